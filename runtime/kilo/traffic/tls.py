"""TLS at the gateway: its certificate and, where certificates say who a tenant is, the clients' authority.

Both come from Secrets that are mounted as directories. Envoy watches them and takes up a new certificate for
new connections, while those that are open go on: nothing is dropped, no pod is replaced.
"""

from __future__ import annotations

from kilo.traffic.settings import CONFIG_DIRECTORY, GatewaySettings
from kilo.traffic.xds import Json, discovery, file_source, typed

TLS_FILE = "tls.json"
CLIENT_CA_FILE = "client-ca.json"
TLS_DIRECTORY = f"{CONFIG_DIRECTORY}-tls"
CLIENT_CA_DIRECTORY = f"{CONFIG_DIRECTORY}-client-ca"
_SERVER, _CLIENTS = "server", "clients"
_SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  a type's name


def render_tls(settings: GatewaySettings) -> dict[str, Json]:
    """Render the SDS files, by their names, each with one secret as Envoy wants it; none without TLS."""
    if settings.tls is None:
        return {}
    certificate = typed(
        _SECRET,
        name=_SERVER,
        tls_certificate={
            "certificate_chain": {"filename": f"{TLS_DIRECTORY}/tls.crt"},
            "private_key": {"filename": f"{TLS_DIRECTORY}/tls.key"},
            "watched_directory": {"path": TLS_DIRECTORY},
        },
    )
    if not _wants_certificates(settings):
        return {TLS_FILE: discovery(certificate)}
    authority = typed(
        _SECRET,
        name=_CLIENTS,
        validation_context={
            "trusted_ca": {"filename": f"{CLIENT_CA_DIRECTORY}/ca.crt"},
            "watched_directory": {"path": CLIENT_CA_DIRECTORY},
        },
    )
    return {TLS_FILE: discovery(certificate), CLIENT_CA_FILE: discovery(authority)}


def render_transport(settings: GatewaySettings) -> Json:
    """Render what a listener's filter chain has for TLS; nothing without it."""
    if settings.tls is None:
        return {}
    context: Json = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [{"name": _SERVER, "sds_config": file_source(TLS_FILE)}],
    }
    if _wants_certificates(settings):
        context["validation_context_sds_secret_config"] = {
            "name": _CLIENTS,
            "sds_config": file_source(CLIENT_CA_FILE),
        }
    return {
        "transport_socket": {
            "name": "tls",
            "typed_config": typed(
                "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                common_tls_context=context,
                require_client_certificate=_wants_certificates(settings),
            ),
        }
    }


def _wants_certificates(settings: GatewaySettings) -> bool:
    return bool(settings.identity and settings.identity.client_certificate)
