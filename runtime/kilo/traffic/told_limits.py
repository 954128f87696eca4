"""What a rate limit service is told of a tenant's limit, which stands with the tenant's routes.

A service that is told the limit with each request needs no list of tenants, which could be an older one.
"""

from __future__ import annotations

import base64
import struct

from kilo.tenancy import Tenant
from kilo.traffic.xds import Json, typed

TELL_FILTER = "tell-limit"
"""The filter that reads a route's limit for the service, and the name of its settings on routes."""
TELL_TYPE = "envoy.extensions.filters.http.header_to_metadata.v3.Config"
TOLD = "kilo.limit"
"""The namespace of dynamic metadata that the limit is told in."""


def render_told_limit(tenant: Tenant, absent_header: str) -> Json:
    """Render what a virtual host's tenants are limited to, for the service.

    ``absent_header`` is one that no request has when it comes to the filter.
    """
    told = {
        "metadata_namespace": TOLD,
        "key": "limit",
        "value": base64.b64encode(_limit_value(tenant.limit.requests_per_second)).decode(),
        "type": "PROTOBUF_VALUE",
        "encode": "BASE64",
    }
    return {
        TELL_FILTER: typed(TELL_TYPE, request_rules=[{"header": absent_header, "on_header_missing": told}])
    }


def _limit_value(requests_per_second: int) -> bytes:
    """A ``google.protobuf.Value`` with the override that the filter looks for, in protobuf's wire format.

    https://protobuf.dev/programming-guides/encoding/; every part is shorter than 128 bytes.
    """

    def part(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2, len(content)]) + content

    def entry(key: str, value: bytes) -> bytes:
        return part(1, part(1, key.encode()) + part(2, value))

    number = bytes([2 << 3 | 1]) + struct.pack("<d", requests_per_second)
    return part(5, entry("requests_per_unit", number) + entry("unit", part(3, b"SECOND")))
