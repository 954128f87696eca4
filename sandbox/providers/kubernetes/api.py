"""The cluster's API as the provider uses it: apply, get, delete, and the pods of a workload.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx

from sandbox.cluster.client import connect

Object = dict[str, Any]

FIELD_MANAGER = "pulumi-kubernetes"
NOT_FOUND: int = httpx.codes.NOT_FOUND
CLUSTER_SCOPED = frozenset({"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass"})


class Refused(Exception):
    """The API server refuses a request; the message is its own."""

    def __init__(self, code: int, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind
        """The plural of the kind that the refusal is about, as in ``namespaces``."""


class Api:
    """One connection for each thread of the provider."""

    def __init__(self) -> None:
        self._local = threading.local()

    def apply(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Create the object or set in it what ``obj`` says, and answer with it as stored.

        Raises:
            Refused: the object is not valid.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        headers = {"content-type": "application/apply-patch+yaml"}
        return self._call("PATCH", _path(obj), params=query, content=json.dumps(obj), headers=headers)

    def get(self, obj: Object) -> Object | None:
        """The live object, None when there is none."""
        try:
            return self._call("GET", _path(obj))
        except Refused as refused:
            if refused.code == NOT_FOUND:
                return None
            raise

    def delete(self, obj: Object) -> None:
        """Begin to delete the object; one that is gone is fine."""
        try:
            self._call("DELETE", _path(obj), params={"propagationPolicy": "Foreground"})
        except Refused as refused:
            if refused.code != NOT_FOUND:
                raise

    def pods(self, workload: Object) -> list[Object]:
        """The pods that a workload's selector picks."""
        labels: dict[str, str] = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        path = f"/api/v1/namespaces/{workload['metadata']['namespace']}/pods"
        return self._call("GET", path, params={"labelSelector": selector})["items"] if labels else []

    def logs(self, pod: Object, container: str, *, lines: int, previous: bool = False) -> str:
        """The last lines of a container; empty when there are none."""
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/log"
        query = {"container": container, "tailLines": str(lines), "previous": str(previous).lower()}
        answer = self._client().get(path, params=query)
        return answer.text if answer.is_success else ""

    def _call(self, method: str, path: str, **request: Any) -> Object:
        answer = self._client().request(method, path, **request)
        if answer.is_success:
            return answer.json()
        try:
            status = answer.json()
            message, kind = status["message"], (status.get("details") or {}).get("kind", "")
        except (ValueError, KeyError, TypeError):
            message, kind = f"{method} {path}: HTTP {answer.status_code}", ""
        raise Refused(answer.status_code, message, kind)

    def _client(self) -> httpx.Client:
        if not hasattr(self._local, "client"):
            self._local.client = connect()
        return self._local.client


def _path(obj: Object) -> str:
    group_version, kind, metadata = obj["apiVersion"], obj["kind"], obj["metadata"]
    root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
    if kind not in CLUSTER_SCOPED:
        root += f"/namespaces/{metadata['namespace']}"
    return f"{root}/{_plural(kind)}/{metadata['name']}"


def _plural(kind: str) -> str:
    """The plural in paths; every kind that the cluster serves follows English's rule."""
    word = kind.lower()
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith("s") else f"{word}s"
