"""What a deployment would change, read from the engine's preview and written for a reviewer.

Previews come as the JSON of ``pulumi preview --json``. Values that the engine holds secret never reach
this package, and what identifies an account is redacted before anything is written.
"""
