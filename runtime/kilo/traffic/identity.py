"""Who a request's tenant is, from a source that the client can't invent.

One of three, chosen in the stage's file: a JSON Web Token that the gateway verifies (RFC 7519), a client
certificate whose subject alternative name is the tenant's, or a proxy in front that has verified it and is
the only one whose header is believed. With none of them the header is believed from anybody, which is for
the sandbox. In each case the header that reaches the routes, the limits and the services is the gateway's
own: what a client sends under its name is gone before a route is looked up.

Left out: opaque tokens, which would need a call to their issuer for each request.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Annotated, Any, Self, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

_SYMMETRIC_OR_PRIVATE = frozenset({"k", "d", "p", "q", "dp", "dq", "qi", "oth"})
"""Members of a JSON Web Key that are secret (RFC 7518, section 6)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _public_keys(text: str) -> str:
    """Hold an inline key set to public keys: what stands in a stage's file is read by everybody."""
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        msg = f'not JSON ({error}); give a JSON Web Key Set such as {{"keys": […]}}'
        raise ValueError(msg) from error
    keys = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not keys:
        msg = 'no keys; give a JSON Web Key Set such as {"keys": […]}'
        raise ValueError(msg)
    for index, key in enumerate(cast("list[Any]", keys)):
        if not isinstance(key, dict) or cast("dict[str, Any]", key).get("kty") not in {"RSA", "EC", "OKP"}:
            msg = f"keys[{index}] is no RSA, EC or OKP key; a key that verifies and signs is a secret"
            raise ValueError(msg)
        if _SYMMETRIC_OR_PRIVATE & cast("dict[str, Any]", key).keys():
            msg = f"keys[{index}] holds a private key; keep it with its issuer and give the public half"
            raise ValueError(msg)
    return text


def _network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        msg = f"{error}; a network such as 10.0.0.0/16 is needed"
        raise ValueError(msg) from error
    if network.prefixlen == 0:
        msg = f"{value} is everybody; name the network that only the proxy is in"
        raise ValueError(msg)
    return str(network)


Text = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,256}$")]
SecretName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"),
    Field(description="the name of a Kubernetes Secret"),
]
HttpsUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[\x21-\x7e]*)?$", max_length=512),
    Field(description="an https URL, such as https://id.example.com/jwks.json"),
]


class KeySet(_Frozen):
    """Where a token's issuer publishes its keys: a URL that is read again every few minutes, or here."""

    jwks_url: HttpsUrl | None = None
    jwks: Annotated[str, AfterValidator(_public_keys)] | None = Field(
        default=None, description="The JSON Web Key Set itself, with public keys alone."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.jwks_url is None) == (self.jwks is None):
            msg = "give jwks_url or jwks, one of them"
            raise ValueError(msg)
        return self

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port that keys are read from."""
        if self.jwks_url is None:
            return None
        parts = urlsplit(self.jwks_url)
        return parts.hostname or "", parts.port or 443


class Tokens(KeySet):
    """Signed tokens (RFC 7519) of one issuer for one audience."""

    issuer: Text = Field(description="What the claim iss must be.")
    audience: Text = Field(description="What the claim aud must hold: tokens for others are refused.")


class TesterTokens(Tokens):
    """A tester's token in the header or cookie ``x-kilo-tester``; its claim ``kilo_version`` is ``next``."""


class TokenIdentity(Tokens):
    """The tenant is a claim of a signed token in ``Authorization: Bearer``."""

    claim: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/-]{1,64}$")] = "tenant"


class ProxyIdentity(_Frozen):
    """A proxy in front verifies tenants and sets the header; from any other address it is not believed."""

    networks: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        min_length=1, description="The proxy's own addresses, as the gateway sees them."
    )


class CertificateIdentity(_Frozen):
    """The tenant is the one DNS name (subject alternative name, RFC 5280) of a client's certificate.

    The names are those of an authority of one's own: who signs for it says who is which tenant.
    """

    ca_secret: SecretName = Field(
        description="A Secret of the stage's namespace with the authority's certificate under ca.crt."
    )


class TesterAccess(_Frozen):
    """Who sees the next version whatever a tenant's weight: by a signed token of their own, or a header."""

    jwt: TesterTokens | None = None
    bare_header: bool = Field(
        default=False, description="Believe x-kilo-version from anybody, signed or not."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.jwt is None) != self.bare_header:
            msg = "give jwt or bare_header: true, one of them"
            raise ValueError(msg)
        return self


class Tls(_Frozen):
    """TLS at the gateway itself."""

    secret: SecretName = Field(
        description="A Secret of the stage's namespace, of type kubernetes.io/tls; its change is taken up."
    )


class Identity(_Frozen):
    """Where a tenant's identity comes from: one of these."""

    jwt: TokenIdentity | None = None
    client_certificate: CertificateIdentity | None = None
    trusted_proxy: ProxyIdentity | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(each is not None for each in (self.jwt, self.client_certificate, self.trusted_proxy)) != 1:
            msg = "give jwt, client_certificate or trusted_proxy, one of them"
            raise ValueError(msg)
        return self
