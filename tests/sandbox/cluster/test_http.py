"""The API over HTTP: paths, dry runs, logs, and who may call it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kilo.errors import Unreachable
from sandbox.cluster.client import connect
from sandbox.cluster.http import KubernetesApi
from tests.patience import eventually
from tests.sandbox.cluster.support import NAMESPACE, RunningCluster, container, deployment, named

APPLY = {"content-type": "application/apply-patch+yaml"}
FOLDER = f"/api/v1/namespaces/{NAMESPACE}"


@pytest.fixture
async def api(cluster: RunningCluster) -> AsyncIterator[httpx.AsyncClient]:
    application = KubernetesApi(cluster.resources, cluster.cluster.node.logs, "token").application
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application),
        base_url="http://cluster",
        headers={"authorization": "Bearer token"},
    ) as client:
        yield client


def config_map(**data: str) -> str:
    return json.dumps(named("ConfigMap", "c", data=data))


async def put(api: httpx.AsyncClient, body: str, **query: str) -> httpx.Response:
    return await api.patch(
        f"{FOLDER}/configmaps/c", params={"fieldManager": "t", **query}, content=body, headers=APPLY
    )


async def test_an_object_is_applied_read_listed_and_deleted(api: httpx.AsyncClient) -> None:
    assert (await put(api, config_map(a="1"))).json()["data"] == {"a": "1"}
    assert (await api.get(f"{FOLDER}/configmaps/c")).json()["data"] == {"a": "1"}
    listed = (await api.get("/api/v1/configmaps")).json()
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == (
        "ConfigMapList",
        ["c"],
    )
    assert (await api.delete(f"{FOLDER}/configmaps/c")).status_code == 200
    gone = await api.get(f"{FOLDER}/configmaps/c")
    assert (gone.status_code, gone.json()["message"]) == (404, 'configmaps "c" not found')


async def test_a_dry_run_touches_nothing(api: httpx.AsyncClient) -> None:
    assert (await put(api, config_map(a="1"), dryRun="All")).status_code == 200
    assert (await api.get(f"{FOLDER}/configmaps/c")).status_code == 404
    await put(api, config_map(a="1"))
    assert (await api.delete(f"{FOLDER}/configmaps/c", params={"dryRun": "All"})).status_code == 200
    assert (await api.get(f"{FOLDER}/configmaps/c")).status_code == 200


async def test_labels_select(api: httpx.AsyncClient, cluster: RunningCluster) -> None:
    for name, colour in (("red", "red"), ("blue", "blue")):
        obj = named("ConfigMap", name, data={})
        obj["metadata"]["labels"] = {"colour": colour}
        cluster.apply(obj)
    found = (await api.get(f"{FOLDER}/configmaps", params={"labelSelector": "colour=red"})).json()["items"]
    assert [item["metadata"]["name"] for item in found] == ["red"]


@pytest.mark.parametrize(
    ("method", "path", "request_", "code", "words"),
    [
        ("GET", "/api/v1/gadgets", {}, 404, "could not find the requested resource"),
        ("GET", "/apis/apps/v2/namespaces/shop/deployments", {}, 404, "could not find"),
        ("PATCH", f"{FOLDER}/configmaps/c", {"content": "{", "headers": APPLY}, 400, "not JSON"),
        ("PATCH", f"{FOLDER}/configmaps/c", {"content": config_map(), "headers": APPLY}, 400, "fieldManager"),
        ("PATCH", f"{FOLDER}/configmaps/c", {"content": config_map()}, 415, "application/apply-patch+yaml"),
        (
            "PATCH",
            f"{FOLDER}/configmaps/d",
            {"content": config_map(), "headers": APPLY},
            400,
            "metadata.name",
        ),
        (
            "PATCH",
            f"{FOLDER}/secrets/c",
            {"content": config_map(), "headers": APPLY},
            400,
            "must be a Secret",
        ),
        ("POST", f"{FOLDER}/configmaps", {"content": "[]"}, 400, "must be a ConfigMap"),
        ("DELETE", f"{FOLDER}/configmaps", {}, 405, "not served"),
        ("GET", f"{FOLDER}/pods/p/log", {}, 404, 'pods "p" not found'),
    ],
)
async def test_what_makes_no_sense_is_answered_with_a_status(
    api: httpx.AsyncClient, method: str, path: str, request_: dict[str, Any], code: int, words: str
) -> None:
    answer = await api.request(method, path, **request_)
    assert answer.status_code == code
    assert answer.json()["kind"] == "Status"
    assert words in answer.json()["message"]


@pytest.mark.parametrize("authorization", [None, "Bearer other", "Basic token"])
async def test_nobody_without_the_token_gets_anything(
    api: httpx.AsyncClient, authorization: str | None
) -> None:
    del api.headers["authorization"]
    headers = {"authorization": authorization} if authorization else {}
    assert (await api.get("/api/v1/pods", headers=headers)).status_code == 401
    assert (await put(api, config_map())).status_code == 401


async def test_logs_of_this_start_and_the_one_before(api: httpx.AsyncClient, cluster: RunningCluster) -> None:
    program = "print('first'); print('last'); raise SystemExit(1)"
    cluster.apply(deployment("web", container("-c", program)))

    def crashed() -> str | None:
        for pod in cluster.pods():
            # A pod that has only just been made has none.
            if any(each["restartCount"] >= 1 for each in pod["status"].get("containerStatuses", ())):
                return pod["metadata"]["name"]
        return None

    pod = await eventually(crashed)
    answer = await api.get(f"{FOLDER}/pods/{pod}/log", params={"tailLines": "1", "previous": "true"})
    assert answer.text == "last\n"
    whole = await api.get(f"{FOLDER}/pods/{pod}/log", params={"previous": "true"})
    assert whole.text == "first\nlast\n"
    unknown = await api.get(f"{FOLDER}/pods/{pod}/log", params={"container": "other"})
    assert (unknown.status_code, "container other is not valid" in unknown.json()["message"]) == (400, True)


def test_a_client_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KILO_SANDBOX", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Unreachable, match="kilo env"):
        connect()
    with pytest.raises(Unreachable, match="is it running"):
        connect("http://127.0.0.1:1")
