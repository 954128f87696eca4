"""``kilo tenant``: the tenant list of a stage, edited in its file, and the guarded way out of it."""
