"""Members of one NATS that know each other by their keys: no stranger joins, and a successor does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from kilo.bus import certificates
from kilo.bus.certificates import Certificates, make_certificates
from kilo.bus.config import TlsFiles, render_route_tls
from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import ServerProcess
from kilo.testing.servers.wheels import nats_server
from tests.patience import until

NOW, NEXT, STRANGER = (make_certificates(letter * 48, ["nats.kilo"]) for letter in "abc")


class Member:
    """A server without streams, of which a lone one would not be ready."""

    def __init__(self, directory: Path, routes: Sequence[int], place: int, tls: str) -> None:
        self.log = directory / "nats.log"
        self._monitor = free_port()
        urls = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
        configuration = directory / "nats.conf"
        configuration.write_text(
            f'server_name: "{directory.name}"\nlisten: "127.0.0.1:{free_port()}"\n'
            f'http: "127.0.0.1:{self._monitor}"\n'
            f'cluster {{\nname: "members"\nlisten: "127.0.0.1:{routes[place]}"\nroutes: [{urls}]\n{tls}}}\n'
        )
        self.process = ServerProcess(
            name=directory.name,
            argv=[str(nats_server()), "--config", str(configuration)],
            env=dict(os.environ),
            directory=directory,
            log_path=self.log,
            ready=lambda: self._ask("healthz") is not None,
        )

    @property
    def neighbours(self) -> set[str]:
        return {route["remote_name"] for route in (self._ask("routez") or {})["routes"]}

    def _ask(self, what: str) -> dict[str, Any] | None:
        try:
            return httpx.get(f"http://127.0.0.1:{self._monitor}/{what}", timeout=5).raise_for_status().json()
        except httpx.HTTPError:
            return None


class Cluster:
    """Members that are started one by one, each with the key that it shows and those that it knows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports = [free_port() for _ in range(3)]
        self.members: list[Member] = []

    def start(self, name: str, shown: Certificates | None, known: Sequence[Certificates]) -> Member:
        """Start a member; without a key, one that speaks plainly."""
        directory = self._directory / name
        directory.mkdir()
        tls = ""
        if shown:
            files = TlsFiles(str(directory / "tls.crt"), str(directory / "tls.key"))
            Path(files.certificate).write_text(shown.certificate)
            Path(files.key).write_text(shown.key)
            authorities = directory / "ca.pem"
            authorities.write_text("".join(each.authority for each in known))
            tls = render_route_tls(files, str(authorities), [each.pin for each in known])
        member = Member(directory, self._ports, len(self.members), tls)
        self.members.append(member)
        member.process.start()
        return member


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    for member in made.members:
        member.process.stop()


def test_members_know_each_other(cluster: Cluster) -> None:
    one, two = cluster.start("one", NOW, [NOW]), cluster.start("two", NOW, [NOW])
    until(lambda: one.neighbours == {"two"} and two.neighbours == {"one"}, "they don't find each other")


def test_a_successor_and_who_is_not_replaced_yet_are_of_one_cluster(cluster: Cluster) -> None:
    old = cluster.start("old", NOW, [NOW, NEXT])
    new = cluster.start("new", NEXT, [NOW, NEXT])
    until(lambda: old.neighbours == {"new"} and new.neighbours == {"old"}, "they don't find each other")


@pytest.mark.parametrize("stranger", ["of another authority", "of the same authority", "without TLS"])
def test_a_stranger_is_let_in_by_nobody(cluster: Cluster, stranger: str) -> None:
    one = cluster.start("one", NOW, [NOW])
    shown = {
        "of another authority": STRANGER,
        # Signed as a member's, and no member's key.
        "of the same authority": _signed_by_the_same(),
        "without TLS": None,
    }[stranger]
    other = cluster.start("stranger", shown, [NOW, STRANGER, *([shown] if shown else [])])
    until(lambda: "[ERR]" in one.log.read_text(), "nobody has knocked")
    two = cluster.start("two", NOW, [NOW])
    until(lambda: one.neighbours == {"two"}, "the members don't find each other")
    assert other.neighbours == set()
    assert two.neighbours == {"one"}


def _signed_by_the_same() -> Certificates:
    """What another key would have, had it got hold of the authority for a moment."""
    signer = certificates._key("a" * 48, "authority")  # pyright: ignore[reportPrivateUsage]
    theirs = x509.load_pem_x509_certificate(STRANGER.certificate.encode())
    authority = x509.load_pem_x509_certificate(NOW.authority.encode())
    builder = x509.CertificateBuilder(
        authority.subject,
        theirs.subject,
        theirs.public_key(),
        7,
        theirs.not_valid_before_utc,
        theirs.not_valid_after_utc,
        list(theirs.extensions)[:-1],
    )
    pem = builder.sign(signer, SHA256()).public_bytes(Encoding.PEM).decode()
    return replace(STRANGER, authority=NOW.authority, certificate=pem)
