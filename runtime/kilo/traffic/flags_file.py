"""The weights of features as a file for services: the gateway's own numbers, in the gateway's own ConfigMap.

So a step of a ramp reaches the gateway's routes and a service's flags by one change of one object. What no
tenant has a weight for is listed all the same: then a service knows the feature, and that it is off.
"""

from __future__ import annotations

from collections.abc import Sequence

from kilo.tenancy import Tenant
from kilo.traffic.features import weight_of
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.xds import Json

FLAGS_FILE = "flags.json"


def render_flags(tenants: Sequence[Tenant], settings: GatewaySettings) -> Json:
    """Render the file: by feature, each tenant's weight in percent where it is above 0."""
    return {
        "sticky_header": settings.sticky_header,
        "features": {
            feature.id: {
                tenant.id: weight
                for tenant in tenants
                if tenant.accepting and (weight := weight_of(tenant, feature.id))
            }
            for feature in settings.features
        },
    }
