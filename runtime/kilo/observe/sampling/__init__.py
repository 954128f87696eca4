"""The sampling guard: what keeps the spans and the series of every tenant within its allowance.

Each span is kept or dropped by its tenant's threshold against the randomness that its trace carries, so that
services agree without speaking to each other, and by a bucket that holds even when that randomness lies.
:mod:`~kilo.observe.sampling.guard` decides, knows no OpenTelemetry and has no clock of its own;
:mod:`~kilo.observe.sampling.sdk` puts it into OpenTelemetry's SDK.
"""
