"""The building blocks of a stage, one ComponentResource a file.

A component knows neither stages nor configuration: it gets frozen arguments with units in their
names, gives typed outputs, and leaves the renderings of config files to ``runtime``.
"""
