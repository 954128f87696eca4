"""A cluster of one real node: kubelet, containerd, kube-proxy, names and enforced network policies.

Everything runs in namespaces of its own (:mod:`tests.node.namespaces`), with its state under one directory.
Left out: a cloud's load balancers, several nodes, and credentials that expire.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kilo.testing.servers.process import ServerProcess
from tests.kubernetes.cluster import APPLY, flags, kubeconfig
from tests.kubernetes.programs import control_plane, etcd
from tests.node import settings
from tests.node.namespaces import Namespaces
from tests.node.programs import network_policies, node_programs

CONTEXT = "real"
_ETCD = "http://127.0.0.1:2379"
_PORT = 6443


def is_ready(status: dict[str, Any]) -> bool:
    """Whether a node or a pod says that it is ready."""
    conditions = status.get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


class RealNode:
    """The cluster with its state under ``home``, whose path is to be short: sockets lie in it.

    Attributes:
        kubeconfig: of an administrator, with the context :data:`CONTEXT`; it works here and inside.
        api: the API server as that administrator.
        machine: this machine's address as pods reach it.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.namespaces = Namespaces(home)
        self.machine = self.namespaces.machine
        self.name = self.namespaces.name
        server = f"https://{self.namespaces.address}:{_PORT}"
        self._tokens = {name: secrets.token_hex(16) for name in ("admin", "kubelet")}
        self.kubeconfig = home / "kubeconfig.json"
        self._configs = {
            self.kubeconfig: json.dumps(kubeconfig(server, self._tokens["admin"])),
            home / "kubelet-access.json": json.dumps(kubeconfig(server, self._tokens["kubelet"])),
            home / "tokens.csv": f'{self._tokens["admin"]},admin,admin,"system:masters"\n'
            f'{self._tokens["kubelet"]},system:node:{self.name},kubelet,"system:nodes"\n',
            home / "containerd.toml": settings.containerd(home),
            home / "cni" / "10-pods.conflist": settings.network(home),
            home / "kubelet.json": settings.kubelet(home, self.name),
            home / "proxy.json": settings.proxy(self.kubeconfig, self.name),
            home / "resolv.conf": "",
        }
        # The certificate is the server's own, made at its start, and the address is this machine's.
        self.api = httpx.Client(
            base_url=server,
            headers={"authorization": f"Bearer {self._tokens['admin']}"},
            verify=False,
            timeout=60,
            trust_env=False,
        )
        self.servers: dict[str, ServerProcess] = {}

    def start(self, pause: Path) -> None:
        """Start everything and wait until the node is ready; ``pause`` as :meth:`start_runtime` has it."""
        self.start_runtime(pause)
        key = rsa.generate_private_key(65_537, 2_048)
        (self.home / "accounts.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
        self._start_control_plane()
        self._start_node()

    def start_runtime(self, pause: Path) -> None:
        """Start the namespaces and in them containerd, which alone runs no pods.

        Args:
            pause: an archive with :data:`tests.node.settings.PAUSE`, which keeps a pod's namespaces.
        """
        for file, text in self._configs.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.namespaces.start()
        socket = self.home / "containerd.sock"
        containerd = ["containerd", "--config", f"{self.home}/containerd.toml"]
        self._serve("containerd", containerd, lambda: socket.exists() and bool(self.ctr("version")))
        self.load(pause)

    def stop(self) -> None:
        """End everything and leave nothing but ``home``."""
        for server in self.servers.values():
            server.kill()
        self.namespaces.stop()
        self.api.close()

    def load(self, archive: Path) -> None:
        """Give the node an image under the name that is in its archive."""
        done = subprocess.run([*self.loader(), str(archive)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def loader(self) -> list[str]:
        """The command that loads an image's archive, whose path comes last."""
        return self.namespaces.enter(*self._ctr(), "images", "import")

    def ctr(self, *words: str) -> str:
        """containerd's own command."""
        return self.namespaces.run(*self._ctr(), *words).stdout

    def _ctr(self) -> list[str]:
        return ["ctr", f"--address={self.home}/containerd.sock", "--namespace=k8s.io"]

    def kubectl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """kubectl on this machine, as the administrator."""
        argv = [str(node_programs() / "kubectl"), f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def apply(self, path: str, content: object) -> dict[str, Any]:
        """Apply an object on the server's side, strictly."""
        query = {"fieldManager": "tests", "fieldValidation": "Strict", "force": "true"}
        answer = self.api.patch(path, params=query, content=json.dumps(content), headers=APPLY)
        assert answer.is_success, f"{path}: {answer.text}"
        return answer.json()

    def items(self, path: str) -> list[dict[str, Any]]:
        """All objects of a kind."""
        return self.api.get(path).raise_for_status().json()["items"]

    def get(self, path: str) -> dict[str, Any]:
        """One object."""
        return self.api.get(path).raise_for_status().json()

    def _start_control_plane(self) -> None:
        home, accounts = self.home, str(self.home / "accounts.key")
        urls = {"listen-client-urls": _ETCD, "advertise-client-urls": _ETCD}
        store = [str(etcd()), *flags({"data-dir": f"{home}/etcd", **urls}), "--unsafe-no-fsync"]
        self._serve("etcd", store, lambda: self._is_open(2379))
        options = {
            "etcd-servers": _ETCD,
            "bind-address": self.namespaces.address,
            "advertise-address": self.namespaces.address,
            "secure-port": str(_PORT),
            "cert-dir": f"{home}/certificates",
            "token-auth-file": f"{home}/tokens.csv",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-account-key-file": accounts,
            "service-account-signing-key-file": accounts,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-cluster-ip-range": settings.SERVICES,
            "allow-privileged": "true",
            "kubelet-preferred-address-types": "InternalIP",
        }
        argv = [str(control_plane() / "kube-apiserver"), *flags(options)]
        self._serve("kube-apiserver", argv, lambda: self.api.get("/readyz").is_success)
        own = {"kubeconfig": str(self.kubeconfig), "bind-address": "127.0.0.1", "leader-elect": "false"}
        controllers = {
            **own,
            "cert-dir": f"{home}/controllers",
            "service-account-private-key-file": accounts,
            "cluster-cidr": settings.PODS,
            # By default a node that has been silent for 50 s loses its pods to others; here there are none.
            "node-monitor-grace-period": "3m",
        }
        argv = [str(control_plane() / "kube-controller-manager"), *flags(controllers)]
        self._serve("kube-controller-manager", argv, lambda: self._is_open(10257))
        argv = [str(node_programs() / "kube-scheduler"), *flags({**own, "cert-dir": f"{home}/scheduler"})]
        self._serve("kube-scheduler", argv, lambda: self._is_open(10259))

    def _start_node(self) -> None:
        options = {
            "config": f"{self.home}/kubelet.json",
            "kubeconfig": f"{self.home}/kubelet-access.json",
            "root-dir": f"{self.home}/kubelet",
            "cert-dir": f"{self.home}/kubelet-certificates",
            "hostname-override": self.name,
            "node-ip": self.namespaces.address,
        }
        self._serve("kubelet", [str(node_programs() / "kubelet"), *flags(options)], self.is_ready)
        proxy = [str(node_programs() / "kube-proxy"), f"--config={self.home}/proxy.json"]
        self._serve("kube-proxy", proxy, lambda: self._is_open(10256))
        policies = [str(network_policies()), str(self.kubeconfig), self.name, settings.SERVICES]
        self._serve("network-policies", policies, self._has_policies)

    def is_ready(self) -> bool:
        """Whether the node takes pods."""
        return is_ready(self.get(f"/api/v1/nodes/{self.name}")["status"])

    def _has_policies(self) -> bool:
        return "KUBE-ROUTER-FORWARD" in self.namespaces.run("iptables-save").stdout

    def _is_open(self, port: int) -> bool:
        """Whether something listens inside on a port of the loopback address."""
        listening = self.namespaces.run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.splitlines()
        return any(f":{port:04X} " in line and " 0A " in line for line in listening)

    def _serve(self, name: str, argv: Sequence[str], ready: Callable[[], bool]) -> None:
        self.servers[name] = ServerProcess(
            name=name,
            argv=self.namespaces.enter(*argv),
            env={},
            directory=self.home,
            log_path=self.home / f"{name}.log",
            ready=ready,
        )
        self.servers[name].start()
