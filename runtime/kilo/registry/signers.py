"""Who signs images: public keys, and keyless identities as Sigstore certifies them.

A keyless signature is good when its certificate was issued by the trusted root's authority for one
of the identities, was valid when the transparency log took the signature in, and when log, certificate
and signature fit together. All of that is sigstore-python's to check
(https://docs.sigstore.dev/about/overview/); here stands only whose identity counts.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.x509 import (
    Certificate,
    ExtensionNotFound,
    RFC822Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
)

from kilo.contract import SignerIdentity, SignersOutputs
from kilo.errors import BadInput, Unreachable

if TYPE_CHECKING:
    from sigstore.verify import Verifier

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Keys:
    """Public keys whose signatures are accepted."""

    def __init__(self, keys: Sequence[PublicKey] = ()) -> None:
        self._keys: dict[str, PublicKey] = {}
        for key in keys:
            der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self._keys[f"sha256:{hashlib.sha256(der).hexdigest()}"] = key

    def __bool__(self) -> bool:
        return bool(self._keys)

    def identify(self, signature: bytes, content: bytes) -> str | None:
        """The identity of the key that made ``signature`` over ``content``; None when none of these did."""
        for identity, key in self._keys.items():
            try:
                if isinstance(key, ec.EllipticCurvePublicKey):
                    key.verify(signature, content, ec.ECDSA(SHA256()))
                elif isinstance(key, rsa.RSAPublicKey):
                    key.verify(signature, content, padding.PKCS1v15(), SHA256())
                else:
                    key.verify(signature, content)
            except InvalidSignature:
                continue
            return identity
        return None


def read_key(pem: bytes, place: str) -> PublicKey:
    """Read a public key in PEM form; ``place`` names it in messages.

    Raises:
        BadInput: it is none, or of a kind that signs no images.
    """
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        msg = f"{place}: no public key in PEM form ({type(error).__name__})"
        raise BadInput(msg) from error
    if not isinstance(key, PublicKey):
        msg = f"{place}: keys of the type {type(key).__name__} sign no images"
        raise BadInput(msg)
    return key


class Identities:
    """Keyless identities whose signatures are accepted.

    ``trusted_root`` is a trusted root in JSON form; without one it is that of the public-good
    Sigstore, brought up to date when first needed.
    """

    def __init__(self, identities: Sequence[SignerIdentity] = (), trusted_root: str | None = None) -> None:
        self._identities = tuple(identities)
        self._trusted_root = trusted_root

    def __bool__(self) -> bool:
        return bool(self._identities)

    def identify(self, bundle: bytes) -> str | None:
        """The identity that made the Sigstore bundle's DSSE envelope; None when none of these did.

        Raises:
            BadInput: the trusted root is none.
            Unreachable: the public-good trusted root is not to be had.
        """
        if not self._identities:
            return None
        from sigstore.models import Bundle  # noqa: PLC0415 - an extra, and slow to import

        verifier = self._verifier
        match = _Match(self._identities)
        try:
            verifier.verify_dsse(Bundle.from_json(bundle), match)
        except Exception:  # Whatever a hostile bundle makes of the parsers below, it is not verified.
            return None
        return match.found

    @cached_property
    def _verifier(self) -> Verifier:
        from sigstore.errors import Error  # noqa: PLC0415
        from sigstore.models import TrustedRoot  # noqa: PLC0415
        from sigstore.verify import Verifier  # noqa: PLC0415

        if self._trusted_root is None:
            try:
                return Verifier.production()
            except (Error, OSError) as error:
                msg = f"the trusted root of the public-good Sigstore is not to be had: {error}"
                raise Unreachable(msg) from error
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            file.write(self._trusted_root)
            file.flush()
            try:
                return Verifier(trusted_root=TrustedRoot.from_file(file.name))
            except (Error, ValueError) as error:
                msg = f"the trusted root is none of Sigstore's: {str(error).splitlines()[0]}"
                raise BadInput(msg) from error


class _Match:
    """A verification policy that takes any of some identities and notes which certificate it was."""

    def __init__(self, identities: Sequence[SignerIdentity]) -> None:
        self._identities = identities
        self.found: str | None = None

    def verify(self, cert: Certificate) -> None:
        """Raise VerificationError unless the certificate is of one of the identities."""
        from sigstore.errors import VerificationError  # noqa: PLC0415
        from sigstore.verify.policy import AnyOf, OIDCIssuer, OIDCIssuerV2  # noqa: PLC0415

        for wanted in self._identities:
            subject = next(
                (name for name in _subjects(cert) if fnmatch.fnmatchcase(name, _literal(wanted.subject))),
                None,
            )
            if subject is None:
                continue
            try:
                AnyOf([OIDCIssuerV2(wanted.issuer), OIDCIssuer(wanted.issuer)]).verify(cert)
            except VerificationError:
                continue
            self.found = f"{subject} ({wanted.issuer})"
            return
        msg = "the certificate is of none of the identities"
        raise VerificationError(msg)


def _literal(pattern: str) -> str:
    """The pattern with nothing but ``*`` special: a subject may hold brackets and question marks."""
    return "".join({"[": "[[]", "?": "[?]"}.get(character, character) for character in pattern)


def _subjects(certificate: Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return []
    return [
        *names.get_values_for_type(RFC822Name),
        *names.get_values_for_type(UniformResourceIdentifier),
    ]


class Signers:
    """Everybody whose signature counts."""

    def __init__(self, keys: Keys | None = None, identities: Identities | None = None) -> None:
        self.keys = keys or Keys()
        self.identities = identities or Identities()

    def __bool__(self) -> bool:
        return bool(self.keys) or bool(self.identities)

    @classmethod
    def of_outputs(cls, outputs: SignersOutputs) -> Self:
        """The signers that a stage's outputs name.

        Raises:
            BadInput: a key is none.
        """
        place = "registries.signers.keys"
        keys = [read_key(pem.encode(), f"{place}[{index}]") for index, pem in enumerate(outputs.keys)]
        return cls(Keys(keys), Identities(outputs.identities, outputs.trusted_root))

    @classmethod
    def of_files(
        cls, keys: Sequence[Path], identity: str | None, issuer: str | None, trusted_root: Path | None
    ) -> Self:
        """The signers that a command line names.

        Raises:
            BadInput: a file is not what it should be, or an identity has no issuer.
        """
        if bool(identity) != bool(issuer):
            msg = "--certificate-identity and --certificate-oidc-issuer are given together or not at all"
            raise BadInput(msg)
        identities = [SignerIdentity(subject=identity, issuer=issuer)] if identity and issuer else []
        root = None
        if trusted_root:
            root = _read(trusted_root).decode(errors="replace")
            try:
                json.loads(root)
            except ValueError as error:
                msg = f"{trusted_root}: a trusted root is JSON, and this is not"
                raise BadInput(msg) from error
        read = [read_key(_read(file), str(file)) for file in keys]
        return cls(Keys(read), Identities(identities, root))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        msg = f"{file}: can't be read ({error.strerror})"
        raise BadInput(msg) from error
