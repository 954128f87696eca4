"""What a kubeconfig leads to, over real TLS, and by each way of signing in that clouds write into one."""

from __future__ import annotations

import base64
import json
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.configuration import read_stage_file
from infra.target.kubeconfig import Cluster, Refused
from infra.target.refusal import ISSUER_PATH, wrong_account, wrong_cluster, wrong_project
from kilo.errors import BadInput, Unreachable

ROOT = Path(__file__).parents[3]
PROD = read_stage_file(ROOT / "Pulumi.prod.yaml")
ISSUER = PROD.aws.oidc_provider_arn.partition(":oidc-provider/")[2]
NAMESPACE = f"/api/v1/namespaces/{PROD.namespace}"


class ApiServer:
    """An API server with a certificate of its own, which admits one token and its own client certificates."""

    def __init__(self, directory: Path) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.certificate, self.key = certificate()
        file = directory / "server.pem"
        file.write_bytes(self.certificate + self.key)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert isinstance(self.connection, ssl.SSLSocket)
                shown = self.connection.getpeercert(binary_form=True)
                admitted = self.headers["Authorization"] == "Bearer right" or shown
                status, document = outer.answers.get(self.path, (404, {}))
                self.send_response(status if admitted else 401)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
                """Not worth a line each."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.load_verify_locations(file)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.server_port}"


def certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(encoding), private


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    made = ApiServer(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def write(path: Path, api: ApiServer, user: dict[str, Any]) -> None:
    authority = base64.b64encode(api.certificate).decode()
    cluster = {"server": api.url, "certificate-authority-data": authority}
    config = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "kilo-prod", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "kilo-prod",
    }
    path.write_text(json.dumps(config))


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def plugin(tmp_path: Path, body: str) -> dict[str, Any]:
    program = tmp_path / "plugin.py"
    program.write_text(body)
    version = "client.authentication.k8s.io/v1beta1"
    return {"exec": {"apiVersion": version, "command": sys.executable, "args": [str(program)]}}


def test_each_way_of_signing_in_is_understood(api: ApiServer, kubeconfig: Path, tmp_path: Path) -> None:
    api.answers["/x"] = (200, {"seen": True})
    (tmp_path / "token").write_text("right\n")
    encoded = {
        "client-certificate-data": base64.b64encode(api.certificate).decode(),
        "client-key-data": base64.b64encode(api.key).decode(),
    }
    answer = 'import json; print(json.dumps({"status": {"token": "right"}}))'
    for user in ({"token": "right"}, {"tokenFile": "token"}, encoded, plugin(tmp_path, answer)):
        write(kubeconfig, api, user)
        assert Cluster("kilo-prod").get("/x") == {"seen": True}, user.keys()
        assert Cluster(None).get("/y") is None


def test_what_is_wrong_is_said_without_what_signs_in(
    api: ApiServer, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="there is no kubeconfig"):
        Cluster(None)
    write(kubeconfig, api, {"token": "wrong"})
    with pytest.raises(BadInput, match=r"no context 'other'.*it has: kilo-prod"):
        Cluster("other")
    with pytest.raises(Refused, match="refuses to show /x: HTTP 401"):
        Cluster(None).get("/x")
    write(kubeconfig, api, plugin(tmp_path, "print('right'); raise SystemExit(0)"))
    with pytest.raises(Unreachable) as failed:
        Cluster(None)
    assert "right" not in str(failed.value)
    # Whoever stands between has another certificate.
    write(kubeconfig, api, {"token": "right"})
    config = json.loads(kubeconfig.read_text())
    other = base64.b64encode(certificate()[0]).decode()
    config["clusters"][0]["cluster"]["certificate-authority-data"] = other
    kubeconfig.write_text(json.dumps(config))
    with pytest.raises(Unreachable, match="does not answer"):
        Cluster(None).get("/x")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path))
    with pytest.raises(BadInput, match="can't be read as a kubeconfig"):
        Cluster(None)


def test_another_cluster_and_another_owner_are_told(api: ApiServer, kubeconfig: Path) -> None:
    write(kubeconfig, api, {"token": "right"})

    def said() -> list[str]:
        return list(wrong_cluster(PROD, Cluster("kilo-prod")))

    api.answers[ISSUER_PATH] = (200, {"issuer": f"https://{ISSUER}"})
    assert said() == []
    api.answers[ISSUER_PATH] = (200, {"issuer": "https://kubernetes.default.svc"})
    (line,) = said()
    assert "issues tokens as kubernetes.default.svc, and prod runs where" in line
    api.answers[ISSUER_PATH] = (403, {})
    with pytest.raises(Unreachable, match="service-account-issuer-discovery"):
        said()
    del api.answers[ISSUER_PATH]
    for labels, wrong in (
        ({"kilo.platform/stage": "prod"}, ""),
        ({"kilo.platform/stage": "prod-2"}, "is prod-2's"),
        ({"app.kubernetes.io/part-of": "kilo"}, ""),
        ({"app.kubernetes.io/part-of": "other"}, "was made by somebody else"),
    ):
        api.answers[NAMESPACE] = (200, {"metadata": {"labels": labels}})
        assert [wrong in line for line in said()] == ([True] if wrong else [])


def test_another_account_and_another_project_are_told() -> None:
    assert list(wrong_account(PROD, PROD.aws.account_id)) == []
    assert "are account 999999999999's" in next(wrong_account(PROD, "999999999999"))
    assert list(wrong_project(PROD, "300000000003")) == []
    assert "has the number 7" in next(wrong_project(PROD, "7"))
    elsewhere = PROD.model_copy(update={"gcp": PROD.gcp.model_copy(update={"project_number": "7"})})
    assert list(wrong_project(elsewhere, "7")) == []
