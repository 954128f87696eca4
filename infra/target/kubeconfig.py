"""A client of the cluster that the Kubernetes provider would deploy to, to look before it does.

The provider has no function that reads. What is understood is what clouds and local clusters write: a token,
a file with one, a program that makes one, and client certificates.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/,
https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import httpx
from ruamel.yaml import YAML, YAMLError

from kilo.errors import BadInput, KiloError, Unreachable

_SECONDS = 20
_NOT_FOUND = 404
_SIGN_IN_SECONDS = 60


class Cluster:
    """The API server that a context of the kubeconfig leads to.

    Args:
        context: its name, the current one without.

    Raises:
        BadInput: the kubeconfig is missing or has no such context; says which there are.
        Unreachable: signing in failed.
    """

    def __init__(self, context: str | None) -> None:
        config, folder = _merged()
        self.context = context or str(config.get("current-context") or "")
        contexts = _by_name(config, "contexts", "context")
        if self.context not in contexts:
            known = ", ".join(sorted(contexts)) or "none"
            msg = f"{_said()} has no context '{self.context}' (kubernetes:context); it has: {known}"
            raise BadInput(msg)
        chosen = contexts[self.context]
        server = _by_name(config, "clusters", "cluster").get(str(chosen.get("cluster")), {})
        user = _by_name(config, "users", "user").get(str(chosen.get("user")), {})
        self.address = str(server.get("server", ""))
        self._client = _client(self.address, server, user, folder)

    def metadata(self, path: str) -> dict[str, Any] | None:
        """As :meth:`get`, but an object's metadata alone: of a Secret that it is there."""
        return self._asked(path, {"accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"})

    def get(self, path: str) -> dict[str, Any] | None:
        """What lies at ``path``, such as ``/api/v1/namespaces/kilo``; None when nothing does.

        Raises:
            KiloError: the server doesn't answer, or refuses.
        """
        return self._asked(path, {})

    def _asked(self, path: str, headers: Mapping[str, str]) -> dict[str, Any] | None:
        try:
            answer = self._client.get(path, headers=headers)
        except (httpx.HTTPError, ssl.SSLError) as error:
            msg = f"the cluster of context '{self.context}' does not answer at {self.address}: {error}"
            raise Unreachable(msg) from error
        if answer.status_code == _NOT_FOUND:
            return None
        if not answer.is_success:
            msg = f"the cluster of context '{self.context}' refuses to show {path}: HTTP {answer.status_code}"
            raise Refused(msg)
        try:
            return cast("dict[str, Any]", answer.json())
        except ValueError as error:
            msg = f"{self.address}{path} answers no JSON; is it a Kubernetes API server?"
            raise Unreachable(msg) from error


class Refused(KiloError):
    """The API server doesn't let the caller look."""


def _files() -> list[Path]:
    named = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return named or [Path.home() / ".kube" / "config"]


def _said() -> str:
    return os.pathsep.join(str(file) for file in _files())


def _merged() -> tuple[dict[str, Any], Path]:
    """All files as one, as kubectl merges them: the first to say something wins."""
    merged: dict[str, Any] = {}
    folder = Path()
    for file in _files():
        try:
            found: object = YAML(typ="safe").load(file)
        except FileNotFoundError:
            continue
        except (OSError, YAMLError) as error:
            msg = f"{file}: can't be read as a kubeconfig ({type(error).__name__})"
            raise BadInput(msg) from error
        if not isinstance(found, dict):
            continue
        folder = folder if merged else file.parent
        for key, value in cast("dict[str, Any]", found).items():
            if isinstance(value, list):
                merged.setdefault(key, []).extend(value)
            else:
                merged[key] = merged.get(key) or value
    if not merged:
        msg = f"there is no kubeconfig at {_said()}; get one of the stage's cluster"
        raise BadInput(msg)
    return merged, folder


def _by_name(config: Mapping[str, Any], group: str, item: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in config.get(group) or ():
        found.setdefault(str(entry.get("name")), entry.get(item) or {})
    return found


def _client(address: str, server: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> httpx.Client:
    context = ssl.create_default_context(
        cafile=str(folder / server["certificate-authority"]) if "certificate-authority" in server else None,
        cadata=_data(server, "certificate-authority"),
    )
    if server.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    credentials = _signed_in(user["exec"], folder) if "exec" in user else dict(user)
    if "tokenFile" in credentials:
        credentials["token"] = (folder / credentials["tokenFile"]).read_text(encoding="ascii").strip()
    certificate = _data(credentials, "client-certificate")
    if certificate:
        _load(context, certificate, _data(credentials, "client-key") or "")
    elif "client-certificate" in credentials:
        context.load_cert_chain(
            folder / credentials["client-certificate"], folder / credentials["client-key"]
        )
    headers = {"authorization": f"Bearer {credentials['token']}"} if credentials.get("token") else {}
    return httpx.Client(
        base_url=address,
        verify=context,
        headers=headers,
        timeout=_SECONDS,
        proxy=server.get("proxy-url"),
        trust_env=not _is_here(address),
    )


def _is_here(address: str) -> bool:
    return httpx.URL(address).host in {"127.0.0.1", "localhost", "::1"}


def _data(entry: Mapping[str, Any], name: str) -> str | None:
    held = entry.get(f"{name}-data")
    return base64.b64decode(held).decode() if held else None


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    # OpenSSL's interface takes files alone.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "client.pem")
        file.touch(mode=0o600)
        file.write_text(f"{certificate}\n{key}", encoding="ascii")
        context.load_cert_chain(file)


def _signed_in(plugin: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a credential plugin, such as ``aws eks get-token``, answers with."""
    command = str(plugin.get("command"))
    version = plugin.get("apiVersion", "client.authentication.k8s.io/v1")
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    variables = {str(each["name"]): str(each["value"]) for each in plugin.get("env") or ()}
    path = str(folder / command) if "/" in command else command
    try:
        done = subprocess.run(
            [path, *(plugin.get("args") or ())],
            env={**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SIGN_IN_SECONDS,
            check=True,
        )
        status: dict[str, Any] = json.loads(done.stdout)["status"]
    except subprocess.CalledProcessError as error:
        msg = f"signing in to the cluster failed: {command}: {error.stderr.strip()}"
        raise Unreachable(msg) from error
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        # What it printed may hold a token.
        msg = f"signing in to the cluster failed: {command}: {type(error).__name__}"
        raise Unreachable(msg) from error
    found = {"token": status.get("token")}
    for name, key in (("client-certificate", "clientCertificateData"), ("client-key", "clientKeyData")):
        if status.get(key):
            found[f"{name}-data"] = base64.b64encode(str(status[key]).encode()).decode()
    return found
