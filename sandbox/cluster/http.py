"""The Kubernetes API's paths over HTTP on loopback, for the provider and the command line.

https://kubernetes.io/docs/reference/using-api/api-concepts/. A token in a file that only the user can
read keeps other users of the machine, and web pages in the user's browser, from running anything here.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sandbox.cluster.errors import ApiError, bad_request, not_found
from sandbox.cluster.kinds import Kind
from sandbox.cluster.node.logs import LogReader
from sandbox.cluster.objects import Key, Object, labels_of
from sandbox.cluster.resources import Resources

_PATHS = {
    "/api/{version}/{plural}": "cluster",
    "/api/{version}/{plural}/{name}": "cluster",
    "/api/{version}/namespaces/{namespace}/{plural}": "namespace",
    "/api/{version}/namespaces/{namespace}/{plural}/{name}": "namespace",
    "/apis/{group}/{version}/{plural}": "cluster",
    "/apis/{group}/{version}/{plural}/{name}": "cluster",
    "/apis/{group}/{version}/namespaces/{namespace}/{plural}": "namespace",
    "/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}": "namespace",
}


class KubernetesApi:
    """The application.

    Args:
        resources: what it serves.
        logs: of the node's containers.
        token: what callers must carry as bearer token.
        extra: further paths, answered with JSON.
    """

    def __init__(
        self,
        resources: Resources,
        logs: LogReader,
        token: str,
        extra: dict[str, Callable[[], Any]] | None = None,
    ) -> None:
        self._resources = resources
        self._logs = logs
        self._token = token
        self._extra = extra or {}
        methods = ["GET", "POST", "PATCH", "PUT", "DELETE"]
        routes = [
            Route("/version", self._guard(self._version)),
            *(Route(path, self._guard(self._answer_extra)) for path in self._extra),
            Route("/api/v1/namespaces/{namespace}/pods/{name}/log", self._guard(self._log)),
            *(
                Route(path, self._guard(self._object), methods=methods)
                for path in sorted(_PATHS, key=_specific)
            ),
        ]
        self.application = Starlette(routes=routes)

    def _guard(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            try:
                self._authenticate(given)
                return await answer(request)
            except ApiError as error:
                return JSONResponse(error.status(), status_code=error.code)

        return guarded

    def _authenticate(self, given: str) -> None:
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise ApiError(401, "Unauthorized", "the cluster's token is needed as bearer token")

    async def _version(self, request: Request) -> Response:
        del request
        return JSONResponse({"major": "1", "minor": "37", "gitVersion": "v1.37.0+kilo"})

    async def _answer_extra(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._extra[request.url.path]))

    async def _log(self, request: Request) -> Response:
        key = Key("v1", "Pod", request.path_params["namespace"], request.path_params["name"])
        pod = self._resources.get(key)
        query = request.query_params
        text = self._logs.read(
            pod,
            container=query.get("container"),
            lines=int(query.get("tailLines", "0")) or None,
            previous=query.get("previous") == "true",
        )
        return PlainTextResponse(text)

    async def _object(self, request: Request) -> Response:
        kind, namespace, name = self._target(request)
        dry_run = request.query_params.get("dryRun") == "All"
        key = Key(kind.api_version, kind.kind, namespace or "", name or "")
        match request.method, name:
            case "GET", None:
                return JSONResponse(self._list(kind, namespace, request.query_params.get("labelSelector")))
            case "GET", _:
                return JSONResponse(self._resources.get(key))
            case "POST", None:
                obj = self._body(await request.body(), kind, namespace, None)
                return JSONResponse(self._resources.create(obj, dry_run=dry_run), status_code=201)
            case "PATCH", str():
                if request.headers.get("content-type") != "application/apply-patch+yaml":
                    raise ApiError(415, "UnsupportedMediaType", "only application/apply-patch+yaml is served")
                obj = self._body(await request.body(), kind, namespace, name)
                manager = request.query_params.get("fieldManager")
                if not manager:
                    msg = "fieldManager is required for apply patch"
                    raise bad_request(msg)
                return JSONResponse(self._resources.apply(obj, manager=manager, dry_run=dry_run))
            case "PUT", str():
                obj = self._body(await request.body(), kind, namespace, name)
                return JSONResponse(self._resources.replace(obj))
            case "DELETE", str():
                return JSONResponse(self._resources.delete(key, dry_run=dry_run))
            case _:
                raise ApiError(405, "MethodNotAllowed", f"{request.method} is not served here")

    def _target(self, request: Request) -> tuple[Kind, str | None, str | None]:
        path = request.path_params
        group = path.get("group")
        api_version = f"{group}/{path['version']}" if group else path["version"]
        kind = self._resources.kinds.find_plural(api_version, path["plural"])
        namespace = path.get("namespace")
        if path.get("name") and kind.namespaced and namespace is None:
            raise not_found(kind.plural, path["name"])
        return kind, namespace, path.get("name")

    def _body(self, body: bytes, kind: Kind, namespace: str | None, name: str | None) -> Object:
        try:
            obj = json.loads(body)
        except ValueError as error:
            msg = f"the body is not JSON: {error}"
            raise bad_request(msg) from error
        if not isinstance(obj, dict) or (obj.get("apiVersion"), obj.get("kind")) != (
            kind.api_version,
            kind.kind,
        ):
            msg = f"the body must be a {kind.kind} of {kind.api_version}"
            raise bad_request(msg)
        metadata = obj.setdefault("metadata", {})
        for field, value in (("namespace", namespace), ("name", name)):
            if value and metadata.setdefault(field, value) != value:
                msg = f"metadata.{field} of the body is not that of the path"
                raise bad_request(msg)
        return obj

    def _list(self, kind: Kind, namespace: str | None, selector: str | None) -> Object:
        items = list(self._resources.store.list(kind.api_version, kind.kind, namespace))
        for term in selector.split(",") if selector else ():
            name, equals, value = term.partition("=")
            if not equals:
                msg = f'labelSelector: "{term}": only NAME=VALUE is served'
                raise bad_request(msg)
            items = [item for item in items if labels_of(item).get(name) == value]
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": {}, "items": items}


def _specific(path: str) -> tuple[int, int]:
    """Fixed parts before parameters, so that a namespace's content is not taken for a cluster's object."""
    return (0 if "namespaces" in path else 1, -path.count("/"))
