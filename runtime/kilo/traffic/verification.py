"""The filters that verify a tenant's identity before anything else looks at a request.

What a client sends as the tenant's header is removed (or, where a header is believed, made one) by an early
mutation, which runs before Envoy looks up a route: a filter would come too late, since the route is cached by
then.
"""

from __future__ import annotations

from kilo.traffic.identity import KeySet, ProxyIdentity, TokenIdentity, Tokens
from kilo.traffic.routes import OVER_SHARE_HEADER, VERSION_HEADER
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.xds import Json, typed

KEYS_CLUSTER = "token-keys"
TENANT, TESTERS = "tenant", "testers"
TESTER_HEADER = "x-kilo-tester"
"""Header or cookie with a tester's token."""
_JWT = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"


def render_early_mutation(settings: GatewaySettings) -> list[Json]:
    """Render the connection manager's ``early_header_mutation_extensions``."""
    header, identity = settings.tenant_header, settings.identity
    own = [OVER_SHARE_HEADER]
    if not (settings.testers and settings.testers.bare_header):
        own.append(VERSION_HEADER)
    mutations: list[Json] = [{"remove": name} for name in own]
    if identity and identity.jwt:
        mutations.append({"remove": header})
    elif identity and identity.client_certificate:
        # Several names are a list, which is no tenant's name.
        mutations += [{"remove": header}, _set(header, "%DOWNSTREAM_PEER_DNS_SAN%", "ADD_IF_ABSENT")]
    else:
        # A header that is there twice is one from here on: the services behind must read what was routed.
        mutations.append(_set(header, f"%REQUEST_HEADER({header})%", "OVERWRITE_IF_EXISTS"))
    return [
        {
            "name": "tenant-header",
            "typed_config": typed(
                "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                mutations=mutations,
            ),
        }
    ]


def _set(header: str, value: str, action: str) -> Json:
    return {"append": {"header": {"key": header, "value": value}, "append_action": action}}


def render_verification(settings: GatewaySettings) -> list[Json]:
    """Render the filters; none where the header is believed from anybody."""
    filters: list[Json] = []
    identity = settings.identity
    if identity and identity.trusted_proxy:
        filters.append(_proxy_filter(identity.trusted_proxy))
    providers = {name: _provider(name, tokens, settings) for name, tokens in _tokens(settings).items()}
    if providers:
        # A tester without a token is a user; one with a wrong token is told so.
        anyhow = {"requires_any": {"requirements": [{"provider_name": TESTERS}, {"allow_missing": {}}]}}
        required = [anyhow if name == TESTERS else {"provider_name": name} for name in providers]
        requires = required[0] if len(required) == 1 else {"requires_all": {"requirements": required}}
        rules = [{"match": {"prefix": "/"}, "requires": requires}]
        filters.append({"name": "tokens", "typed_config": typed(_JWT, providers=providers, rules=rules)})
    return filters


def _tokens(settings: GatewaySettings) -> dict[str, Tokens]:
    """The tokens that the gateway verifies, by what they prove."""
    found: dict[str, Tokens] = {}
    if settings.identity and settings.identity.jwt:
        found[TENANT] = settings.identity.jwt
    if settings.testers and settings.testers.jwt:
        found[TESTERS] = settings.testers.jwt
    return found


def _provider(name: str, tokens: Tokens, settings: GatewaySettings) -> Json:
    if isinstance(tokens, TokenIdentity):
        # In the header alone: an address with a token in it ends up in logs and histories.
        found: Json = {"from_headers": [{"name": "authorization", "value_prefix": "Bearer "}]}
        claim, header = tokens.claim, settings.tenant_header
    else:
        found = {"from_headers": [{"name": TESTER_HEADER}], "from_cookies": [TESTER_HEADER]}
        claim, header = "kilo_version", VERSION_HEADER
    return {
        "issuer": tokens.issuer,
        "audiences": [tokens.audience],
        # A token for ever is a password that can't be changed.
        "require_expiration": True,
        **found,
        "claim_to_headers": [{"header_name": header, "claim_name": claim}],
        # A token comes with thousands of requests. What it says of its time is looked at each time.
        "jwt_cache_config": {"jwt_cache_size": 10_000, "jwt_max_token_size": 4_096},
        # The route was looked up while nobody was known.
        "clear_route_cache": True,
        **render_keys(tokens, f"{KEYS_CLUSTER}-{name}"),
    }


def render_keys(keys: KeySet, cluster: str) -> Json:
    """Render where a provider's keys come from."""
    if keys.jwks is not None:
        return {"local_jwks": {"inline_string": keys.jwks}}
    return {
        "remote_jwks": {
            "http_uri": {"uri": keys.jwks_url, "cluster": cluster, "timeout": "5s"},
            "cache_duration": "300s",
            # Read before the first request and again before they are needed, never while one waits.
            "async_fetch": {"failed_refetch_duration": "1s"},
            "retry_policy": {"num_retries": 2},
        }
    }


def key_addresses(settings: GatewaySettings) -> list[tuple[str, int]]:
    """Hosts and ports that keys are read from."""
    return [tokens.address for tokens in _tokens(settings).values() if tokens.address]


def render_key_clusters(settings: GatewaySettings) -> list[Json]:
    """Render the clusters that keys are fetched from, over verified TLS."""
    return [
        {
            "name": f"{KEYS_CLUSTER}-{name}",
            "type": "STRICT_DNS",
            "dns_lookup_family": "V4_PREFERRED",
            "connect_timeout": "5s",
            "load_assignment": {
                "cluster_name": f"{KEYS_CLUSTER}-{name}",
                "endpoints": [
                    {
                        "lb_endpoints": [
                            {
                                "endpoint": {
                                    "address": {"socket_address": {"address": host, "port_value": port}}
                                }
                            }
                        ]
                    }
                ],
            },
            "transport_socket": {
                "name": "tls",
                "typed_config": typed(
                    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    sni=host,
                    common_tls_context={
                        "validation_context": {
                            "trusted_ca": {"filename": settings.ca_file},
                            "match_typed_subject_alt_names": [
                                {"san_type": "DNS", "matcher": {"exact": host}}
                            ],
                        }
                    },
                ),
            },
        }
        for name, tokens in _tokens(settings).items()
        if tokens.address
        for host, port in (tokens.address,)
    ]


def _proxy_filter(proxy: ProxyIdentity) -> Json:
    ranges = [
        {"address_prefix": network.split("/")[0], "prefix_len": int(network.split("/")[1])}
        for network in proxy.networks
    ]
    return {
        "name": "trusted-proxy",
        "typed_config": typed(
            "envoy.extensions.filters.http.rbac.v3.RBAC",
            rules={
                "action": "ALLOW",
                "policies": {
                    "proxy": {
                        "permissions": [{"any": True}],
                        # The connection's own address: X-Forwarded-For says what a client wants it to.
                        "principals": [{"or_ids": {"ids": [{"direct_remote_ip": each} for each in ranges]}}],
                    }
                },
            },
        ),
    }
