"""Field-level encryption: a tenant's sensitive fields under the tenant's own keys.

::

    cipher = FieldCipher.from_outputs(load_outputs(), database_url, table="events")
    if "email" in cipher.encrypted_fields("acme"):
        stored = cipher.encrypt("acme", "email", event_id, "ana@example.com")
        cipher.decrypt("acme", "email", event_id, stored)

:class:`AsyncFieldCipher` is the same for asyncio: what is in memory is done at once, and fetching keys
happens in a thread. Calls with a key in memory cost microseconds, so neither needs batching for speed
alone.
"""

from kilo.extras import requires

with requires("fle"):
    from kilo.fle.aio import AsyncFieldCipher
    from kilo.fle.cipher import FieldCipher
    from kilo.fle.errors import FieldError
    from kilo.fle.keyset import CacheLimits

__all__ = ["AsyncFieldCipher", "CacheLimits", "FieldCipher", "FieldError"]
