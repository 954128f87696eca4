"""The authority of a bus and its server's certificate, made from a secret text; pure.

The same text always makes the same bytes, so a program that has no place to keep a key but the engine's
secrets can make them anew at each run, and a second run changes nothing. That is why the keys are derived,
signatures have no randomness (RFC 6979), and nothing asks the time: certificates have no end of their own
(RFC 5280, 4.1.2.5). They end with the authority that signed them, which a stage replaces by a number in its
file; clients believe no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hmac import digest as hmac

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BEGIN, _NO_END = datetime(2026, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256 (FIPS 186-5)."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """What one secret text makes, in PEM."""

    authority: str
    """The authority's certificate, which clients believe."""
    certificate: str
    key: str = field(repr=False)
    pin: str
    """SHA-256 of the server's public key, in hexadecimal, by which members of one bus know each other."""


def make_certificates(secret: str, names: Sequence[str]) -> Certificates:
    """An authority, and a certificate by it for a server of these DNS names.

    Args:
        secret: nobody can guess it; not kept in what is returned.
        names: at least one, the most telling first.
    """
    authority_key, server_key = _key(secret, "authority"), _key(secret, "server")
    authority_name = _named(f"Kilo bus {_number(secret, 'name') % 16**8:08x}")
    authority = (
        _builder(secret, "authority", authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, SHA256(), ecdsa_deterministic=True)
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    both_ways = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    server = (
        _builder(secret, f"server {','.join(names)}", authority_name, _named("bus"), server_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_ways), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(server_key.public_key()), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, SHA256(), ecdsa_deterministic=True)
    )
    public = server_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Certificates(
        authority=authority.public_bytes(Encoding.PEM).decode(),
        certificate=server.public_bytes(Encoding.PEM).decode(),
        key=server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        pin=hashlib.sha256(public).hexdigest(),
    )


def _number(secret: str, purpose: str) -> int:
    """384 bits, so that what is left over by a division by the order tells nothing (FIPS 186-5, A.2.1)."""
    return int.from_bytes(hmac(secret.encode(), f"kilo bus {purpose}".encode(), "sha384"))


def _key(secret: str, purpose: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(_number(secret, f"key of {purpose}") % (_ORDER - 1) + 1, ec.SECP256R1())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    secret: str, purpose: str, issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        # At most 159 bits and never 0 (RFC 5280, 4.1.2.2).
        .serial_number(_number(secret, f"serial of {purpose}") % 2**158 + 1)
        .not_valid_before(_BEGIN)
        .not_valid_after(_NO_END)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
