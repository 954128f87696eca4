"""The Prometheus operator's part: a Prometheus that scrapes what monitors say, an Alertmanager that tells.

Prometheus runs for as long as there is a monitor or a rule, Alertmanager for as long as there is an
AlertmanagerConfig (:mod:`sandbox.cluster.operated`).

A stage keeps the address that its alerts go to in a Secret that its operators bring. Where nobody brought it,
they go to the receiver in Alertmanager's own pod: ``kilo logs alertmanager`` shows them.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping
from contextlib import suppress

import httpx

from sandbox.cluster import alert_routes, monitors
from sandbox.cluster.errors import ApiError
from sandbox.cluster.objects import Key, Object
from sandbox.cluster.operated import ALERTMANAGER, NAMESPACE, PROMETHEUS, RECEIVER_PORT, Operated
from sandbox.cluster.resources import Resources

_MANAGER = "PrometheusOperator"
# Pods come and go in groups.
_SETTLE_SECONDS = 0.5
_SCRAPED = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
_ROUTED = "AlertmanagerConfig"
_WATCHED = {"Pod", "Service", "Secret"}
_log = logging.getLogger(__name__)


class PrometheusOperator:
    """Keeps Prometheus and Alertmanager there and their configurations up to date."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._store = resources.store
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        self._store.subscribe(self._notice)
        self._changed.set()
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._changed.clear()
            try:
                await self._reconcile()
            except ApiError as error:
                _log.warning("%s", error)

    def _notice(self, key: Key, obj: Object | None) -> None:
        del obj
        if key.kind in {*_SCRAPED, _ROUTED} or (key.kind in _WATCHED and key.namespace != NAMESPACE):
            self._changed.set()

    async def _reconcile(self) -> None:
        routes = {
            (each["metadata"]["namespace"], each["metadata"]["name"]): each["spec"]
            for each in self._store.list(alert_routes.API, _ROUTED)
        }
        scraped = any(True for kind in _SCRAPED for _ in self._store.list(monitors.API, kind))
        namespace = Key("v1", "Namespace", "", NAMESPACE)
        if not scraped and not routes:
            # Only what this operator has made.
            if self._store.get(PROMETHEUS.config) or self._store.get(ALERTMANAGER.config):
                self._resources.delete(namespace)
            return
        if self._store.get(namespace) is None:
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            self._resources.apply(made, manager=_MANAGER)
        if routes:
            files = {"alertmanager.yaml": alert_routes.alertmanager_yml(routes, self._webhook)}
            await self._keep(ALERTMANAGER, files)
        else:
            self._remove(ALERTMANAGER)
        told = f"{ALERTMANAGER.host}:{ALERTMANAGER.port}" if routes else None
        await self._keep(PROMETHEUS, monitors.render(self._store, told))

    async def _keep(self, operated: Operated, files: Mapping[str, str]) -> None:
        before = self._store.get(operated.config)
        if before is not None and before["data"] == operated.held(files):
            return
        for obj in operated.objects(files):
            self._resources.apply(obj, manager=_MANAGER)
        if before is not None:
            await self._reload(operated)

    def _remove(self, operated: Operated) -> None:
        for key in operated.made:
            if self._store.get(key):
                self._resources.delete(key)

    def _webhook(self, namespace: str, selector: Mapping[str, str]) -> str:
        secret = self._store.get(Key("v1", "Secret", namespace, selector["name"])) or {}
        if value := (secret.get("data") or {}).get(selector["key"]):
            return base64.b64decode(value).decode().strip()
        return f"http://{ALERTMANAGER.host}:{RECEIVER_PORT}/"

    async def _reload(self, operated: Operated) -> None:
        pod = self._store.get(Key("v1", "Pod", NAMESPACE, f"{operated.name}-0")) or {}
        if address := (pod.get("status") or {}).get("podIP"):
            # One that is just starting reads the files by itself.
            with suppress(httpx.HTTPError):
                async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                    answer = await client.post(f"http://{address}:{operated.port}/-/reload")
                if answer.is_error:
                    _log.warning("%s refuses its configuration: %s", operated.program, answer.text.strip())
