"""Where alerts go: pages at once, tickets gathered, consequences silent beside their cause."""

from __future__ import annotations

from typing import Any

_GROUP_BY = ["alertname", "tenant"]
_RECEIVER = "webhook"


def render_routes(webhook_secret: str) -> dict[str, Any]:
    """Render ``spec`` of an AlertmanagerConfig (monitoring.coreos.com/v1alpha1).

    Args:
        webhook_secret: the Secret whose key ``url`` holds the webhook's address.
    """
    return {
        "route": {
            "receiver": _RECEIVER,
            "groupBy": _GROUP_BY,
            "groupWait": "5m",
            "groupInterval": "1h",
            "repeatInterval": "1d",
            "routes": [
                {
                    "receiver": _RECEIVER,
                    "groupBy": _GROUP_BY,
                    "matchers": [_is("severity", "page")],
                    "groupWait": "30s",
                    "groupInterval": "5m",
                    "repeatInterval": "1h",
                }
            ],
        },
        "inhibitRules": [
            # A tenant's faster burn says all that its slower one would.
            {
                "sourceMatch": [_is("severity", "page")],
                "targetMatch": [_is("severity", "ticket")],
                "equal": _GROUP_BY,
            },
            _caused_by("GatewayDown", "Tenant.+|GatewayShedding"),
            _caused_by("OutboxWorkerDown", "OutboxLag|OutboxReconcilerStale"),
            _caused_by("SlotNearLoss", "SlotWalRetention"),
        ],
        "receivers": [
            {
                "name": _RECEIVER,
                "webhookConfigs": [
                    {"urlSecret": {"name": webhook_secret, "key": "url"}, "sendResolved": True}
                ],
            }
        ],
    }


def _caused_by(cause: str, consequences: str) -> dict[str, Any]:
    return {
        "sourceMatch": [_is("alertname", cause)],
        "targetMatch": [{"name": "alertname", "value": consequences, "matchType": "=~"}],
    }


def _is(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value, "matchType": "="}
