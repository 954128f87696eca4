"""Draining: what a gateway does before it is told to stop, so that no request meets its end.

Envoy ends at SIGTERM at once, with every request that is under way. So the kubelet asks ``GET /drain`` first
(the pod's preStop hook), which answers when the time is over: until then the gateway is not ready, answers
everything, and closes each connection after its next answer.

Envoy's admin interface takes only POST for this, and a hook can only GET: a few lines of Lua turn the one
into the other. They stand on a port of their own, which the pod's network policy opens to nobody: only the
kubelet reaches it. Sources: Envoy's admin interface (``healthcheck/fail``), the description of
draining, and the fault filter.
"""

from __future__ import annotations

from kilo.traffic.settings import GatewaySettings
from kilo.traffic.xds import Json, typed

DRAIN_PATH = "/drain"
_ASK = """
function envoy_on_request(request)
  local headers = {[":method"] = "POST", [":path"] = "/healthcheck/fail", [":authority"] = "admin"}
  request:httpCall("%s", headers, "", 1000)
end
"""
"""From then on Envoy says that it is not ready, and closes each connection with its next answer."""


def render_drain_manager(settings: GatewaySettings, admin_cluster: str) -> Json:
    """Render the connection manager of the port that answers ``GET /drain`` when draining is over."""
    delay: Json = {
        "fixed_delay": f"{settings.drain_seconds}s",
        "percentage": {"numerator": 100, "denominator": "HUNDRED"},
    }
    return {
        "route_config": {
            "name": "drain",
            "virtual_hosts": [
                {
                    "name": "drain",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"path": DRAIN_PATH},
                            "direct_response": {"status": 200, "body": {"inline_string": "drained\n"}},
                        }
                    ],
                }
            ],
        },
        "http_filters": [
            {
                "name": "ask",
                "typed_config": typed(
                    "envoy.extensions.filters.http.lua.v3.Lua",
                    default_source_code={"inline_string": _ASK % admin_cluster},
                ),
            },
            {
                "name": "wait",
                "typed_config": typed("envoy.extensions.filters.http.fault.v3.HTTPFault", delay=delay),
            },
            {"name": "router", "typed_config": typed("envoy.extensions.filters.http.router.v3.Router")},
        ],
    }
