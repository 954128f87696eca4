"""Pods: environment, mounts, probes, init containers, how they end."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from sandbox.cluster.objects import Object, find_condition, holds
from tests.patience import eventually
from tests.sandbox.cluster.support import (
    NAMESPACE,
    RunningCluster,
    container,
    named,
    server,
)

SHOW = "import json, os, sys; print(json.dumps({'env': dict(os.environ), 'args': sys.argv[1:]}), flush=True)"
SLEEP = "import time; time.sleep(1000)"


def pod(name: str, *containers: Object, **spec: Any) -> Object:
    made = {"terminationGracePeriodSeconds": 5, "containers": list(containers), **spec}
    return named("Pod", name, spec=made)


async def ran(cluster: RunningCluster, obj: Object) -> Any:
    """What the pod of :data:`SHOW` saw."""
    cluster.apply({**obj, "spec": {**obj["spec"], "restartPolicy": "Never"}})
    name = obj["metadata"]["name"]
    await eventually(lambda: cluster.status("Pod", name).get("phase") == "Succeeded")
    return json.loads(cluster.log(name))


def ready(cluster: RunningCluster, name: str) -> bool:
    return holds(cluster.find("Pod", name) or {}, "Ready")


def local(cluster: RunningCluster, name: str, path: str, main: str = "main") -> Path:
    """Where a path of the pod's container lies on this machine."""
    found = cluster.find("Pod", name)
    assert found is not None
    return cluster.home / "pods" / found["metadata"]["uid"] / "containers" / main / path.lstrip("/")


async def test_environment_and_arguments_are_put_together_as_the_kubelet_does(
    cluster: RunningCluster,
) -> None:
    cluster.apply(named("ConfigMap", "settings", data={"COLOUR": "red", "SIZE": "9"}))
    cluster.apply(named("Secret", "keys", stringData={"password": "s3cret"}))
    sources: list[tuple[str, Object]] = [
        ("PASSWORD", {"secretKeyRef": {"name": "keys", "key": "password"}}),
        ("NAME", {"fieldRef": {"fieldPath": "metadata.name"}}),
        ("TEAM", {"fieldRef": {"fieldPath": "metadata.labels['team']"}}),
        ("MEMORY", {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}),
        ("ABSENT", {"configMapKeyRef": {"name": "nothing", "key": "x", "optional": True}}),
    ]
    main = container(
        "-c",
        SHOW,
        "$(COLOUR) $(GREETING)",
        "$$(COLOUR) $(UNSET)",
        envFrom=[{"configMapRef": {"name": "settings"}, "prefix": ""}],
        env=[
            *({"name": name, "valueFrom": source} for name, source in sources),
            {"name": "GREETING", "value": "hello $(PASSWORD)"},
        ],
        resources={"limits": {"memory": "64Mi"}},
    )
    obj = pod("p", main)
    obj["metadata"]["labels"] = {"team": "shop"}
    seen = await ran(cluster, obj)
    assert seen["args"] == ["red hello s3cret", "$(COLOUR) $(UNSET)"]
    wanted = {"SIZE": "9", "NAME": "p", "TEAM": "shop", "MEMORY": "64", "PASSWORD": "s3cret"}
    assert wanted.items() <= seen["env"].items()
    assert "ABSENT" not in seen["env"]
    assert seen["env"]["POD_IP"].startswith("127.")


async def test_the_users_own_environment_does_not_reach_a_pod(
    cluster: RunningCluster, monkeypatch: Any
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    assert "AWS_PROFILE" not in (await ran(cluster, pod("p", container("-c", SHOW))))["env"]


async def test_names_and_mount_paths_are_replaced_wherever_a_container_reads_them(
    cluster: RunningCluster,
) -> None:
    text = "web.shop.svc.cluster.local:80 db-0.db.shop.svc.cluster.local /etc/app/f /other/etc/app http://x/etc/app"
    cluster.apply(named("ConfigMap", "files", data={"f": text}))
    main = container(
        "-c", SHOW, "--file=/etc/app/f", text, volumeMounts=[{"name": "files", "mountPath": "/etc/app"}]
    )
    seen = await ran(cluster, pod("p", main, volumes=[{"name": "files", "configMap": {"name": "files"}}]))
    directory = local(cluster, "p", "/etc/app")
    addresses = cluster.cluster.addresses
    replaced = (
        f"{addresses.service(NAMESPACE, 'web')}:80 {addresses.pod(NAMESPACE, 'db-0')} "
        f"{directory}/f /other/etc/app http://x/etc/app"
    )
    assert seen["args"] == [f"--file={directory}/f", replaced]
    assert (directory / "f").read_text() == replaced


async def test_a_changed_config_map_reaches_a_running_pod_by_one_rename(cluster: RunningCluster) -> None:
    cluster.apply(named("ConfigMap", "files", data={"a": "1", "b": "1"}))
    mounts = [{"name": "files", "mountPath": "/etc/app"}]
    main = container("-c", SLEEP, volumeMounts=mounts)
    cluster.apply(pod("p", main, volumes=[{"name": "files", "configMap": {"name": "files"}}]))
    await eventually(lambda: ready(cluster, "p"))
    directory = local(cluster, "p", "/etc/app")
    before = (directory / "..data").resolve()
    cluster.apply(named("ConfigMap", "files", data={"a": "2", "c": "2"}))
    assert (directory / "..data").resolve() != before
    assert {
        path.name: path.read_text() for path in directory.iterdir() if not path.name.startswith("..")
    } == {
        "a": "2",
        "c": "2",
    }
    assert (directory / "a").is_symlink()
    assert not before.exists()


async def test_a_deleted_config_map_leaves_the_files_of_running_pods(cluster: RunningCluster) -> None:
    cluster.apply(named("ConfigMap", "files", data={"a": "1"}))
    main = container("-c", SLEEP, volumeMounts=[{"name": "files", "mountPath": "/etc/app"}])
    cluster.apply(pod("p", main, volumes=[{"name": "files", "configMap": {"name": "files"}}]))
    await eventually(lambda: ready(cluster, "p"))
    cluster.delete("ConfigMap", "files")
    assert (local(cluster, "p", "/etc/app") / "a").read_text() == "1"


async def test_volumes_of_every_kind(cluster: RunningCluster) -> None:
    cluster.apply(
        named("ConfigMap", "files", data={"a": "1"}, binaryData={"raw": base64.b64encode(b"\xff").decode()})
    )
    cluster.apply(named("Secret", "keys", stringData={"k": "v"}))
    volumes = [
        {"name": "one", "configMap": {"name": "files", "items": [{"key": "a", "path": "deep/er"}]}},
        {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": "files"}},
                    {"secret": {"name": "keys"}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]
                        }
                    },
                    {"serviceAccountToken": {"path": "token", "audience": "them"}},
                ]
            },
        },
        {"name": "scratch", "emptyDir": {}},
    ]
    mounts = [{"name": item["name"], "mountPath": f"/{item['name']}"} for item in volumes]
    mounts.append({"name": "one", "mountPath": "/single", "subPath": "deep/er"})
    second = {**container("-c", SLEEP, volumeMounts=mounts[3:4]), "name": "second"}
    cluster.apply(pod("p", container("-c", SLEEP, volumeMounts=mounts), second, volumes=volumes))
    await eventually(lambda: ready(cluster, "p"))
    assert local(cluster, "p", "/one/deep/er").read_text() == "1"
    assert local(cluster, "p", "/single").read_text() == "1"
    assert local(cluster, "p", "/secret/k").stat().st_mode & 0o777 == 0o400
    assert local(cluster, "p", "/all/raw").read_bytes() == b"\xff"
    assert local(cluster, "p", "/all/name").read_text() == "p"
    claims = local(cluster, "p", "/all/token").read_text().split(".")[1]
    assert (
        json.loads(base64.urlsafe_b64decode(claims + "=="))["sub"]
        == f"system:serviceaccount:{NAMESPACE}:default"
    )
    (local(cluster, "p", "/scratch") / "shared").touch()
    assert (local(cluster, "p", "/scratch", "second") / "shared").exists()


async def test_a_pod_waits_for_what_it_refers_to(cluster: RunningCluster) -> None:
    source = {"secretKeyRef": {"name": "keys", "key": "k"}}
    cluster.apply(pod("p", container("-c", SLEEP, env=[{"name": "K", "valueFrom": source}])))

    def waiting() -> Object | None:
        listed = cluster.status("Pod", "p").get("containerStatuses") or [{"state": {}}]
        return listed[0]["state"].get("waiting")

    await eventually(lambda: (waiting() or {}).get("reason") == "CreateContainerConfigError")
    assert waiting() == {"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}
    cluster.apply(named("Secret", "keys", stringData={"k": "v"}))
    await eventually(lambda: ready(cluster, "p"))


async def test_init_containers_run_first_and_one_after_the_other(cluster: RunningCluster) -> None:
    mounts = [{"name": "scratch", "mountPath": "/scratch"}]
    write = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    spec = {
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "initContainers": [
            {**container("-c", write, "/scratch/f", text, volumeMounts=mounts), "name": f"init-{text}"}
            for text in "ab"
        ],
    }
    read = "import sys; print(open(sys.argv[1]).read())"
    cluster.apply(
        pod("p", container("-c", read, "/scratch/f", volumeMounts=mounts), restartPolicy="Never", **spec)
    )
    await eventually(lambda: cluster.status("Pod", "p").get("phase") == "Succeeded")
    assert cluster.log("p") == "ab\n"


async def test_an_init_container_that_fails_keeps_the_others_from_starting(cluster: RunningCluster) -> None:
    failing = {**container("-c", "raise SystemExit(1)"), "name": "init"}
    cluster.apply(pod("p", container("-c", "print('no')"), restartPolicy="Never", initContainers=[failing]))
    await eventually(lambda: cluster.status("Pod", "p").get("phase") == "Failed")
    assert cluster.log("p") == ""


async def test_a_pod_is_ready_when_its_readiness_probe_says_so_and_no_longer(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    cluster.apply(pod("p", server(env=[{"name": "READY", "value": str(mark)}])))
    await eventually(lambda: cluster.status("Pod", "p").get("phase") == "Running")
    assert find_condition(cluster.find("Pod", "p") or {}, "Ready") is not None
    assert not ready(cluster, "p")
    mark.touch()
    await eventually(lambda: ready(cluster, "p"))
    mark.unlink()
    await eventually(lambda: not ready(cluster, "p"))


async def test_a_failing_liveness_probe_restarts_the_container(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    probe = {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1, "failureThreshold": 3}
    cluster.apply(pod("p", server(env=[{"name": "READY", "value": str(mark)}], livenessProbe=probe)))
    await eventually(lambda: ready(cluster, "p"))
    mark.unlink()
    await eventually(lambda: cluster.status("Pod", "p")["containerStatuses"][0]["restartCount"] >= 1)
    mark.touch()
    assert "liveness probe failed: HTTP probe failed with statuscode: 503" in cluster.log("p", previous=True)
    await eventually(lambda: ready(cluster, "p"))


async def test_nothing_else_is_probed_until_the_container_has_started(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    startup = {"exec": {"command": ["test", "-e", str(mark)]}, "periodSeconds": 1, "failureThreshold": 1000}
    liveness = {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1}
    main = container("-c", SLEEP, startupProbe=startup, livenessProbe=liveness)
    cluster.apply(pod("p", main))
    await eventually(lambda: cluster.status("Pod", "p").get("phase") == "Running")
    await asyncio.sleep(2)
    assert cluster.status("Pod", "p")["containerStatuses"][0]["restartCount"] == 0
    mark.touch()
    await eventually(lambda: cluster.status("Pod", "p")["containerStatuses"][0]["restartCount"] >= 1)


async def test_a_process_that_ignores_sigterm_is_killed_with_its_children(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    program = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(1000)
"""
    pids = tmp_path / "pids"
    cluster.apply(pod("p", container("-c", program, str(pids)), terminationGracePeriodSeconds=1))
    await eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    cluster.delete("Pod", "p")
    await eventually(lambda: cluster.find("Pod", "p") is None)
    for pid in pids.read_text().split():
        await eventually(lambda pid=pid: not Path("/proc", pid, "cmdline").exists() or not is_alive(pid))


def is_alive(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_pre_stop_hook_runs_before_the_process_is_told(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    program = f"""
import signal, sys, time
def end(*_):
    open({str(marks)!r}, "a").write("stopped ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open({str(marks)!r}, "a").write("started ")
time.sleep(1000)
"""
    hook = {"preStop": {"exec": {"command": ["sh", "-c", f"printf 'hook ' >> {marks}"]}}}
    cluster.apply(pod("p", container("-c", program, lifecycle=hook)))
    await eventually(marks.exists)
    cluster.delete("Pod", "p")
    await eventually(lambda: cluster.find("Pod", "p") is None)
    assert marks.read_text() == "started hook stopped "


async def test_a_hook_may_take_longer_than_a_probe(cluster: RunningCluster, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    program = f"""
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(1.5)
        open({str(marks)!r}, "a").write("hook ")
        self.send_response(200)
        self.end_headers()
import os, signal, sys
def end(*_):
    open({str(marks)!r}, "a").write("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
server = http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8099), Handler)
open({str(marks)!r}, "a").write("started ")
server.serve_forever()
"""
    hook = {"preStop": {"httpGet": {"path": "/drain", "port": 8099}}}
    field = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    cluster.apply(pod("p", container("-c", program, lifecycle=hook, env=[field])))
    await eventually(marks.exists)
    cluster.delete("Pod", "p")
    await eventually(lambda: cluster.find("Pod", "p") is None)
    assert marks.read_text() == "started hook stopped"
