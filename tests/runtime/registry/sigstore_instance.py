"""A Sigstore of a test's own: authority, certificate log and transparency log, none of them served.

It makes what the real ones would have written into a bundle: a short-lived certificate with its
SCT (RFC 6962, 3.2), and a log entry (Rekor 1, kind ``dsse``) with promise, inclusion proof and
signed checkpoint (C2SP tlog-checkpoint). It does not show that a real authority asks for an
identity before it certifies one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_LOG = "log.test"


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class SigstoreInstance:
    """Certifies any identity it is asked to."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC).replace(microsecond=0)
        self._ca_key, self._ct_key, self._log_key = (ec.generate_private_key(ec.SECP256R1()) for _ in "123")
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test"),
                x509.NameAttribute(NameOID.COMMON_NAME, "ca"),
            ]
        )
        self._ca = (
            self._certificate(name, name, self._ca_key.public_key(), timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign=False, certify=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._ca_key.public_key()), critical=False
            )
            .sign(self._ca_key, SHA256())
        )

    def trusted_root(self) -> dict[str, Any]:
        """What a verifier has to trust."""
        since = {"start": _time(self._now - timedelta(days=1))}

        def log(key: ec.EllipticCurvePrivateKey, host: str) -> dict[str, Any]:
            return {
                "baseUrl": f"https://{host}",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": _text(_der(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": since,
                },
                "logId": {"keyId": _text(hashlib.sha256(_der(key)).digest())},
            }

        authority = {
            "subject": {"organization": "test", "commonName": "ca"},
            "uri": "https://ca.test",
            "certChain": {"certificates": [{"rawBytes": _text(self._ca.public_bytes(Encoding.DER))}]},
            "validFor": since,
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self._log_key, _LOG)],
            "certificateAuthorities": [authority],
            "ctlogs": [log(self._ct_key, "ct.test")],
            "timestampAuthorities": [],
        }

    def write_trusted_root(self, directory: Path) -> Path:
        path = directory / "trusted_root.json"
        path.write_text(json.dumps(self.trusted_root()))
        return path

    def sign(self, statement: dict[str, Any], subject: str, issuer: str) -> bytes:
        """The bundle of a statement that ``subject``, known to ``issuer``, has signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certify(key, subject, issuer)
        payload, kind = json.dumps(statement).encode(), "application/vnd.in-toto+json"
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
        signature = _text(key.sign(signed, ec.ECDSA(SHA256())))
        envelope = {"payload": _text(payload), "payloadType": kind, "signatures": [{"sig": signature}]}
        bundle = {
            "mediaType": BUNDLE,
            "verificationMaterial": {
                "certificate": {"rawBytes": _text(certificate.public_bytes(Encoding.DER))},
                "tlogEntries": [self._log_entry(certificate, envelope, payload)],
            },
            "dsseEnvelope": envelope,
        }
        return json.dumps(bundle).encode()

    def _certificate(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: timedelta
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - timedelta(minutes=1))
            .not_valid_after(self._now + validity)
        )

    def _certify(self, key: ec.EllipticCurvePrivateKey, subject: str, issuer: str) -> x509.Certificate:
        # DER's UTF8String, short form.
        encoded_issuer = bytes([0x0C, len(issuer)]) + issuer.encode()
        name: x509.GeneralName = (
            x509.UniformResourceIdentifier(subject) if "://" in subject else x509.RFC822Name(subject)
        )
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca_key.public_key())
        builder = (
            self._certificate(x509.Name([]), self._ca.subject, key.public_key(), timedelta(minutes=9))
            .add_extension(_usage(sign=True, certify=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(authority, critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER, encoded_issuer), critical=False)
        )
        before = builder.sign(self._ca_key, SHA256()).tbs_certificate_bytes
        return builder.add_extension(
            x509.UnrecognizedExtension(_SCT_LIST, self._sct_list(before)), critical=False
        ).sign(self._ca_key, SHA256())

    def _sct_list(self, tbs: bytes) -> bytes:
        milliseconds = int(self._now.timestamp() * 1000)
        issuer_key = hashlib.sha256(_der(self._ca_key)).digest()
        entry = issuer_key + len(tbs).to_bytes(3, "big") + tbs
        signature = self._ct_key.sign(
            struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + b"\0\0", ec.ECDSA(SHA256())
        )
        log_id = hashlib.sha256(_der(self._ct_key)).digest()
        # SHA-256 and ECDSA are 4 and 3 in TLS's registries.
        sct = struct.pack("!B32sQHBBH", 0, log_id, milliseconds, 0, 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        return bytes([0x04, len(listed)]) + listed

    def _log_entry(
        self, certificate: x509.Certificate, envelope: dict[str, Any], payload: bytes
    ) -> dict[str, Any]:
        verifier = _text(certificate.public_bytes(Encoding.PEM))
        spec = {
            "envelopeHash": {
                "algorithm": "sha256",
                "value": hashlib.sha256(json.dumps(envelope).encode()).hexdigest(),
            },
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": envelope["signatures"][0]["sig"], "verifier": verifier}],
        }
        body = rfc8785.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        log_id = hashlib.sha256(_der(self._log_key)).digest()
        seconds = int(self._now.timestamp())
        promise = rfc8785.dumps(
            {"body": _text(body), "integratedTime": seconds, "logID": log_id.hex(), "logIndex": 0}
        )
        # The only leaf of its tree, so that its hash is the root's.
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"{_LOG} - 1\n1\n{_text(root)}\n"
        signature = log_id[:4] + self._log_key.sign(note.encode(), ec.ECDSA(SHA256()))
        return {
            "logIndex": "0",
            "logId": {"keyId": _text(log_id)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(seconds),
            "inclusionPromise": {
                "signedEntryTimestamp": _text(self._log_key.sign(promise, ec.ECDSA(SHA256())))
            },
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _text(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n— {_LOG} {_text(signature)}\n"},
            },
            "canonicalizedBody": _text(body),
        }


def _usage(*, sign: bool, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )
