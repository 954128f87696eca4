"""Feature flags that are the gateway's weights: an OpenFeature provider (``pip install 'kilo[flags]'``).

A feature of the stage's file is a flag, and a tenant's ramp its share. A request that the gateway would send
to the next version is one for which the flag is on, since both put the same key (the idempotency key) into
the same bucket. So a feature can be ramped by a next version, by a flag in the code, or by one after the
other, with the same command: ``kilo traffic ramp``. Weight 0 is the kill switch.

    from openfeature import api
    from kilo.flags import StageFlags

    api.set_provider_and_wait(StageFlags())
    if api.get_client().get_boolean_value("checkout-v2", False, EvaluationContext(key, {"tenant": tenant})):
"""

from kilo.flags.provider import StageFlags
from kilo.flags.weights import Weights, bucket_of

__all__ = ["StageFlags", "Weights", "bucket_of"]
