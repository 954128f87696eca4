"""An authority of one secret text: always the same, and no two alike; OpenSSL takes it."""

from __future__ import annotations

import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from kilo.bus.certificates import make_certificates

SECRET, OTHER = "a" * 48, "b" * 48
NAMES = ["nats.kilo", "nats.kilo.svc.cluster.local"]


def test_the_same_secret_makes_the_same_bytes_and_another_nothing_alike() -> None:
    made, again, other = (make_certificates(secret, NAMES) for secret in (SECRET, SECRET, OTHER))
    assert made == again
    for name in ("authority", "certificate", "key", "pin"):
        assert getattr(made, name) != getattr(other, name)
    mine, theirs = (x509.load_pem_x509_certificate(each.authority.encode()) for each in (made, other))
    assert mine.subject != theirs.subject
    assert mine.serial_number != theirs.serial_number
    assert SECRET not in f"{made.authority}{made.certificate}{made.key}{made!r}"
    assert made.key not in repr(made)


def test_other_names_make_another_certificate_under_the_same_authority() -> None:
    made, more = make_certificates(SECRET, NAMES), make_certificates(SECRET, [*NAMES, "nats-0.nats-headless"])
    assert (made.authority, made.pin) == (more.authority, more.pin)
    one, two = (x509.load_pem_x509_certificate(each.certificate.encode()) for each in (made, more))
    # An authority never gives a number twice (RFC 5280, 4.1.2.2).
    assert one.serial_number != two.serial_number
    found = two.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == [*NAMES, "nats-0.nats-headless"]


def test_openssl_takes_them_by_its_strict_rules(tmp_path: Path) -> None:
    made = make_certificates(SECRET, NAMES)
    for name, text in (("ca.pem", made.authority), ("tls.pem", made.certificate)):
        (tmp_path / name).write_text(text)
    for purpose in ("sslserver", "sslclient"):
        verify = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", NAMES[0]]
        done = subprocess.run(
            [*verify, "-CAfile", "ca.pem", "tls.pem"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    # A member must not be able to sign another.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=made.authority)
    assert [each["subject"] for each in context.get_ca_certs()] != []
    assert not _constraints(made.certificate).ca
    assert _constraints(made.authority).path_length == 0


def test_they_do_not_end_by_themselves() -> None:
    made = make_certificates(SECRET, NAMES)
    for pem in (made.authority, made.certificate):
        certificate = x509.load_pem_x509_certificate(pem.encode())
        assert certificate.not_valid_after_utc - certificate.not_valid_before_utc > timedelta(days=365_000)


def _constraints(pem: str) -> x509.BasicConstraints:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
