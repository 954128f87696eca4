"""Previews: an environment of its own for a service of each pull request, a stack of its own in the engine.

``settings`` is what one consists of, ``program`` what the engine runs, and the rest is ``kilo preview``: it
finds the service and the stage (``request``), makes the image (``image``), renders the chart (``chart``),
has the engine carry it out (``engine``) and tries what came about (``checks``).
"""
