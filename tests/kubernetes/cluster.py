"""A real Kubernetes API on loopback: etcd, kube-apiserver and kube-controller-manager, and no node.

What a kubelet would report is made up: every pod is said to run and to be ready, every Job's to have done
its work. So this proves what the API server, admission and the controllers make of objects, and nothing of
what runs in pods.
"""

from __future__ import annotations

import json
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import ServerProcess
from sandbox import toolchain
from tests.kubernetes.programs import control_plane, etcd

_NODE = "node"
_LOOK_SECONDS = 0.2
_MERGE = {"content-type": "application/merge-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}
RBAC = "rbac.authorization.k8s.io"


class RealCluster:
    """The servers with their state under ``home``."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.kubeconfig = home / "kubeconfig.json"
        self._etcd, self._port = f"http://127.0.0.1:{free_port()}", free_port()
        token = secrets.token_hex(16)
        (home / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        server = f"https://127.0.0.1:{self._port}"
        self.kubeconfig.write_text(json.dumps(kubeconfig(server, token)))
        # The certificate is the server's own, made at its start, and the address is this machine's.
        self.api = httpx.Client(
            base_url=server,
            headers={"authorization": f"Bearer {token}"},
            verify=False,
            timeout=30,
        )
        self._processes = [self._make_etcd(), self._make_api_server(), self._make_controllers()]
        self._stopping = threading.Event()
        self._node = threading.Thread(target=self._pretend, daemon=True)

    def start(self) -> None:
        """Start the servers, define the Prometheus operator's kinds, and pretend to be a node."""
        key = rsa.generate_private_key(65_537, 2_048)
        (self.home / "accounts.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
        for process in self._processes:
            process.start()
        for file in toolchain.path("crds").glob("*.yaml"):
            group, _, plural = file.stem.partition("_")
            self.apply(
                f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}",
                file.read_text(encoding="utf-8"),
            ).raise_for_status()
        self.api.post("/api/v1/nodes", json={"metadata": {"name": _NODE}}).raise_for_status()
        self._node.start()

    def stop(self) -> None:
        """Stop all."""
        self._stopping.set()
        if self._node.is_alive():
            self._node.join()
        for process in reversed(self._processes):
            process.stop()
        self.api.close()

    def account(self, name: str, *roles: str) -> Path:
        """A kubeconfig of an account of its own that these ClusterRoles, and no other, are bound to."""
        made = self.api.post("/api/v1/namespaces/default/serviceaccounts", json={"metadata": {"name": name}})
        made.raise_for_status()
        for role in roles:
            binding = {
                "metadata": {"name": f"{name}-{role}"},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": name}],
            }
            self.api.post(f"/apis/{RBAC}/v1/clusterrolebindings", json=binding).raise_for_status()
        path = f"/api/v1/namespaces/default/serviceaccounts/{name}/token"
        token = self.api.post(path, json={"spec": {}}).raise_for_status().json()["status"]["token"]
        file = self.home / f"{name}.json"
        file.write_text(json.dumps(kubeconfig(str(self.api.base_url), token)))
        return file

    def lets(self, name: str, verb: str, resource: str, subresource: str = "") -> bool:
        """Whether that account may do ``verb`` to a resource in some namespace."""
        asked = {"namespace": "default", "verb": verb, "resource": resource, "subresource": subresource}
        spec = {"user": f"system:serviceaccount:default:{name}", "resourceAttributes": asked}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return self.api.post(path, json={"spec": spec}).raise_for_status().json()["status"]["allowed"]

    def apply(self, path: str, text: str) -> httpx.Response:
        """Apply an object on the server's side, strictly, as the official provider does."""
        query = {"fieldManager": "pulumi-kubernetes", "fieldValidation": "Strict", "force": "true"}
        return self.api.patch(path, params=query, content=text, headers=APPLY)

    def items(self, path: str) -> list[dict[str, Any]]:
        """All objects of a kind."""
        return self.api.get(path).raise_for_status().json()["items"]

    def _make_etcd(self) -> ServerProcess:
        peers = f"http://127.0.0.1:{free_port()}"
        arguments = ["--data-dir", str(self.home / "etcd"), "--listen-peer-urls", peers]
        arguments += ["--listen-client-urls", self._etcd, "--advertise-client-urls", self._etcd]
        return self._server(
            "etcd",
            [str(etcd()), *arguments],
            lambda: httpx.get(f"{self._etcd}/health", timeout=2).is_success,
        )

    def _make_api_server(self) -> ServerProcess:
        accounts = str(self.home / "accounts.key")
        options = {
            "etcd-servers": self._etcd,
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": str(self._port),
            "cert-dir": str(self.home / "certificates"),
            "token-auth-file": str(self.home / "tokens.csv"),
            "authorization-mode": "RBAC",
            "service-account-key-file": accounts,
            "service-account-signing-key-file": accounts,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-cluster-ip-range": "10.96.0.0/16",
            "endpoint-reconciler-type": "none",
        }
        argv = [str(control_plane() / "kube-apiserver"), *flags(options)]
        return self._server("kube-apiserver", argv, lambda: self.api.get("/readyz").is_success)

    def _make_controllers(self) -> ServerProcess:
        port = free_port()
        options = {
            "kubeconfig": str(self.kubeconfig),
            "bind-address": "127.0.0.1",
            "secure-port": str(port),
            "cert-dir": str(self.home / "controllers"),
            "service-account-private-key-file": str(self.home / "accounts.key"),
            "leader-elect": "false",
        }
        argv = [str(control_plane() / "kube-controller-manager"), *flags(options)]
        health = f"https://127.0.0.1:{port}/healthz"
        return self._server(
            "kube-controller-manager",
            argv,
            lambda: httpx.get(health, verify=False, timeout=2).is_success,
        )

    def _server(self, name: str, argv: list[str], ready: Any) -> ServerProcess:
        log = self.home / f"{name}.log"
        return ServerProcess(name=name, argv=argv, env={}, directory=self.home, log_path=log, ready=ready)

    def _pretend(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            for pod in self.items("/api/v1/pods"):
                self._pretend_pod(pod)

    def _pretend_pod(self, pod: dict[str, Any]) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if metadata.get("deletionTimestamp"):
            self.api.request("DELETE", path, json={"gracePeriodSeconds": 0})
        elif not spec.get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": _NODE}
            binding = {"metadata": {"name": metadata["name"]}, "target": target}
            self.api.post(f"{path}/binding", json=binding)
        elif pod["status"]["phase"] == "Pending":
            done = any(owner["kind"] == "Job" for owner in metadata.get("ownerReferences", ()))
            status = _succeeded(spec) if done else _running(spec, metadata["uid"])
            text = json.dumps({"status": status})
            # A pod that went away meanwhile has no status.
            self.api.patch(f"{path}/status", content=text, headers=_MERGE)


def _running(spec: dict[str, Any], uid: str) -> dict[str, Any]:
    number = int(uid[:8], 16)
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255 or 1}"
    kinds = ("Initialized", "PodScheduled", "ContainersReady", "Ready")
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": _now(),
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": _now()} for kind in kinds],
        "containerStatuses": [
            _container(each, {"running": {"startedAt": _now()}}, ready=True) for each in spec["containers"]
        ],
    }


def _succeeded(spec: dict[str, Any]) -> dict[str, Any]:
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": _now(), "finishedAt": _now()}
    return {
        "phase": "Succeeded",
        "startTime": _now(),
        "containerStatuses": [
            _container(each, {"terminated": ended}, ready=False) for each in spec["containers"]
        ],
    }


def _container(container: dict[str, Any], state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    status = {"name": container["name"], "image": container["image"], "imageID": container["image"]}
    return {**status, "ready": ready, "started": ready, "restartCount": 0, "state": state}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def flags(options: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def kubeconfig(server: str, token: str) -> dict[str, Any]:
    name = "real"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
