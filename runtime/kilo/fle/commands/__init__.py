"""The ``kilo fle`` commands: values, keys, rotation and audit."""
