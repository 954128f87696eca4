"""The components of a stage, one ComponentResource a file, by role.

``clouds`` is what lies in AWS and Google Cloud, ``pods`` what every pod is made of, ``processes`` the
platform's own processes, ``observability`` what is seen of them. A component knows neither stages nor
configuration: it gets frozen arguments with units in their names, gives typed outputs, and leaves the
renderings of config files to ``kilo``.
"""
