"""What tenants use, summed by hour and day exactly once: gateways' entries and the platform's own counters.

``entries`` says what a gateway writes of a request, ``files`` reads it, ``sums`` adds it up, ``store`` keeps
it; ``measures`` does the same for what the platform counts by itself. ``report`` and ``focus`` tell what
became of it, in usage and in money. docs/usage.md has the design.
"""
