"""A tour of the running platform: events over HTTP through every component, and a count of what arrived.

It speaks to the stage as any client does, over the gateway, and reads the database to count. It leaves
out load: that is what benchmarks are for.
"""
