"""Makes the documentation's site: the pages of ``docs/``, and a reference that is read from the code.

``python -m reference DIRECTORY`` writes what the generator is given; ``make docs`` runs both. Left out on
purpose: pages of what no service imports. The platform's own modules are read where they lie.
"""
