"""Makes the documentation's site: the pages of ``docs/``, and a reference that is read from the code.

``python -m reference DIRECTORY`` writes what the generator is given; ``make docs`` runs both. Left out on
purpose: pages that repeat what a function's docstring says. The public API of the SDK is its own docstrings.
"""
