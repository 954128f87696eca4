"""Side-by-side measurements: one run measures everything it compares, on the same machine and rows."""
