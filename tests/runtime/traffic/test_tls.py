"""TLS at the gateway: certificates of clients and its own, and testers' tokens."""

from __future__ import annotations

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from kilo.traffic.identity import Identity, TesterAccess, Tls
from tests.patience import until
from tests.runtime.traffic.certificates import Authority
from tests.runtime.traffic.support import ADDRESS, Gateway, UpstreamServer, make_tenant, publish
from tests.runtime.traffic.tokens import AUDIENCE, ISSUER, Issuer

MakeGateway = Callable[..., Gateway]
TLS = Tls(secret="gateway-tls")


def secret(gateway: Gateway, suffix: str, **files: bytes) -> None:
    """Publish a Secret as a kubelet does, beside the mounted configuration."""
    directory = gateway.directory.with_name(gateway.directory.name + suffix)
    publish(directory, {name.replace("_", "."): content for name, content in files.items()})


def secure_client(gateway: Gateway, context: ssl.SSLContext, tenant: str | None = "acme") -> httpx.Client:
    headers = {"x-tenant-id": tenant} if tenant else {}
    url = gateway.url.replace("http:", "https:").replace(ADDRESS, "localhost")
    return httpx.Client(base_url=url, headers=headers, verify=context, timeout=30)


def shown(gateway: Gateway, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that a new connection is shown."""
    with (
        socket.create_connection((ADDRESS, gateway.settings.listener_port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"").serial_number


def test_a_new_certificate_is_taken_up_and_no_request_is_dropped(make_gateway: MakeGateway) -> None:
    authority = Authority()
    gateway = make_gateway(tls=TLS)
    first, second = authority.sign("localhost"), authority.sign("localhost")
    secret(gateway, "-tls", tls_crt=first[0], tls_key=first[1])
    gateway.start([make_tenant("acme")])
    context = ssl.create_default_context(cadata=authority.pem.decode())
    assert shown(gateway, context) == first[2]
    done, answers, failures = threading.Event(), Counter[int](), list[Exception]()

    def load() -> None:
        with secure_client(gateway, context) as http:
            while not done.is_set():
                try:
                    answers[http.post("/v1/events").status_code] += 1
                except httpx.HTTPError as error:
                    failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        until(lambda: answers[200] > 20, "load running")
        secret(gateway, "-tls", tls_crt=second[0], tls_key=second[1])
        until(lambda: shown(gateway, context) == second[2], "new certificate shown")
        seen = answers[200]
        until(lambda: answers[200] > seen + 20, "load going on")
    finally:
        done.set()
        thread.join()
    assert not failures
    assert set(answers) == {200}

    old = ssl.create_default_context(cadata=authority.pem.decode())
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shown(gateway, old)


def test_a_certificates_name_is_the_tenant_and_nothing_else_is(
    make_gateway: MakeGateway, stable: UpstreamServer, tmp_path: Path
) -> None:
    ours, stranger = Authority(), Authority()
    identity = Identity.model_validate({"client_certificate": {"ca_secret": "client-ca"}})
    gateway = make_gateway(tls=TLS, identity=identity)
    certificate, key, _ = ours.sign("localhost")
    secret(gateway, "-tls", tls_crt=certificate, tls_key=key)
    secret(gateway, "-client-ca", ca_crt=ours.pem)
    gateway.start([make_tenant("acme"), make_tenant("globex")])

    def post(signer: Authority | None, *names: str) -> httpx.Response:
        context = ssl.create_default_context(cadata=ours.pem.decode())
        if signer is not None:
            context.load_cert_chain(*signer.client_files(tmp_path, *names))
        with secure_client(gateway, context, "globex") as http:
            return http.post("/v1/events")

    assert post(ours, "acme").status_code == 200
    assert [request["x-tenant-id"] for request in stable.requests] == ["acme"]
    # The subject's common name, which anybody may choose, counts for nothing; nor do two names.
    for names, status, reason in (
        ((), 403, "names no tenant"),
        (("acme", "globex"), 403, "no such tenant"),
        (("nobody",), 403, "no such tenant"),
    ):
        answer = post(ours, *names)
        assert (answer.status_code, reason in answer.text) == (status, True), answer.text
    for signer in (None, stranger):
        with pytest.raises(httpx.TransportError):
            post(signer, "acme")
    assert len(stable.requests) == 1


def test_testers_see_the_next_version_by_a_token_of_their_own(make_gateway: MakeGateway) -> None:
    testers, tenants = Issuer(), Issuer("k2")
    gateway = make_gateway(
        testers=TesterAccess.model_validate(
            {"jwt": {"issuer": ISSUER, "audience": "testers", "jwks": testers.jwks}}
        ),
        identity=Identity.model_validate(
            {"jwt": {"issuer": ISSUER, "audience": AUDIENCE, "jwks": tenants.jwks}}
        ),
    )
    gateway.start([make_tenant("acme")])
    token = testers.token(aud="testers", kilo_version="next")

    def post(**headers: str) -> httpx.Response:
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        named = {"authorization": f"Bearer {tenants.token('acme')}"}
        return httpx.post(f"{gateway.url}/v1/events", headers={**named, **said}, timeout=30)

    assert post().text == "stable"
    assert post(x_kilo_tester=token).text == "next"
    assert post(cookie=f"x-kilo-tester={token}").text == "next"
    # Asking is not enough, nor is a tenant's token, nor a tester's for a tenant.
    assert post(x_kilo_version="next").text == "stable"
    assert post(x_kilo_tester=testers.token(aud="testers")).text == "stable"
    assert post(x_kilo_tester=tenants.token("acme", kilo_version="next")).status_code in {401, 403}
    assert post(x_kilo_tester=testers.unsigned("acme")).status_code == 401
    assert post(authorization=f"Bearer {token}").status_code in {401, 403}


def test_a_bare_header_chooses_the_version_only_where_the_stage_says_so(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(testers=TesterAccess(bare_header=True))
    gateway.start([make_tenant("acme")])
    other = make_gateway()
    other.start([make_tenant("acme")])
    headers = {"x-tenant-id": "acme", "x-kilo-version": "next"}
    assert httpx.post(f"{gateway.url}/v1/events", headers=headers).text == "next"
    assert httpx.post(f"{other.url}/v1/events", headers=headers).text == "stable"
