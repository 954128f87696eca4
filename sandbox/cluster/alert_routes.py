"""Alertmanager's configuration from AlertmanagerConfigs, as the Prometheus operator renders it.

An AlertmanagerConfig speaks for its own namespace alone: its route and both sides of its inhibitions take
alerts with the label ``namespace`` of that name, and nothing else reaches its receivers.
https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1alpha1.AlertmanagerConfig
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from sandbox.cluster.objects import Object

API = "monitoring.coreos.com/v1alpha1"
NOBODY = "null"
_CAMEL = re.compile(r"(?<=[a-z])([A-Z])")
_MATCHERS = {"matchers": "matchers", "sourceMatch": "source_matchers", "targetMatch": "target_matchers"}

Secret = Callable[[str, Mapping[str, str]], str]
"""Gives the value of a namespace's SecretKeySelector."""


def alertmanager_yml(configs: Mapping[tuple[str, str], Object], secret: Secret) -> str:
    """Render alertmanager.yml from the ``spec`` of each AlertmanagerConfig, by namespace and name."""
    routes: list[Object] = []
    inhibitions: list[Object] = []
    receivers: list[Object] = [{"name": NOBODY}]
    for (namespace, name), spec in configs.items():
        own = f'namespace="{namespace}"'

        def prefixed(receiver: str, prefix: str = f"{namespace}/{name}") -> str:
            return f"{prefix}/{receiver}"

        route = _route(spec["route"], prefixed)
        routes.append({**route, "matchers": [own, *route.get("matchers", ())], "continue": True})
        for rule in spec.get("inhibitRules") or ():
            rendered = _snake(rule)
            for side in ("source_matchers", "target_matchers"):
                rendered[side] = [own, *rendered.get(side, ())]
            inhibitions.append(rendered)
        for receiver in spec.get("receivers") or ():
            hooks = [_webhook(hook, namespace, secret) for hook in receiver.get("webhookConfigs") or ()]
            receivers.append({"name": prefixed(receiver["name"]), "webhook_configs": hooks})
    document = {
        "route": {"receiver": NOBODY, "group_by": ["job"], "routes": routes},
        "inhibit_rules": inhibitions,
        "receivers": receivers,
    }
    return yaml.safe_dump(document, sort_keys=False)


def _webhook(hook: Object, namespace: str, secret: Secret) -> Object:
    plain = {name: value for name, value in hook.items() if name != "urlSecret"}
    return {**_snake(plain), "url": secret(namespace, hook["urlSecret"])}


def _route(route: Object, prefixed: Callable[[str], str]) -> Object:
    rendered = _snake({key: value for key, value in route.items() if key not in {"receiver", "routes"}})
    if "receiver" in route:
        rendered["receiver"] = prefixed(route["receiver"])
    if route.get("routes"):
        rendered["routes"] = [_route(inner, prefixed) for inner in route["routes"]]
    return rendered


def _snake(value: Object) -> Object:
    rendered: Object = {}
    for name, inner in value.items():
        if name in _MATCHERS:
            rendered[_MATCHERS[name]] = [_matcher(each) for each in inner]
        else:
            rendered[_CAMEL.sub(lambda found: f"_{found[1].lower()}", name)] = inner
    return rendered


def _matcher(matcher: Mapping[str, Any]) -> str:
    return f'{matcher["name"]}{matcher.get("matchType") or "="}"{matcher["value"]}"'
