"""Mistakes about tenants, their tiers and the gateway that serves them."""

from __future__ import annotations

from tests.infra.mistakes.changes import Mistakes, drop, put

TENANTS: Mistakes = {
    "unknown tenant setting": (
        "dev",
        put("kilo:tenants.0.tear", "x"),
        "kilo:tenants[0].tear",
        "did you mean 'tier'?",
    ),
    "misspelt tier": (
        "dev",
        put("kilo:tenants.1.tier", "platinum"),
        "kilo:tenants[1].tier",
        "'gold', 'silver'",
    ),
    "tier that is no tier": (
        "dev",
        put("kilo:tiers.platinum", {}),
        "kilo:tiers.platinum",
        "known here: bronze, gold",
    ),
    "tier left out": ("dev", drop("kilo:tiers.bronze"), "kilo:tiers.bronze", "missing"),
    "duplicate tenant": ("dev", put("kilo:tenants.1.id", "acme"), "kilo:tenants[1].id", "already tenants[0]"),
    "tenant id no DNS label": (
        "dev",
        put("kilo:tenants.0.id", "Acme_Inc"),
        "kilo:tenants[0].id",
        "lower-case",
    ),
    "no tenants": ("dev", put("kilo:tenants", []), "kilo:tenants", "a list of at least 1"),
    "list where a mapping is due": ("dev", put("kilo:gateway", []), "kilo:gateway", "a mapping"),
    "mapping where a list is due": ("dev", put("kilo:tenants", {"acme": {}}), "kilo:tenants", "use a list"),
    "weight above a hundred": (
        "dev",
        put("kilo:tenants.0.next_weight_percent", 120),
        "kilo:tenants[0].next_weight_percent",
        "at most 100",
    ),
    "weight on a version that is not there": (
        "stage",
        put("kilo:tenants.0.next_weight_percent", 5),
        "kilo:tenants[0].next_weight_percent",
        "set ingest.next_image, or 0",
    ),
    "burst below the rate": (
        "dev",
        put("kilo:tenants.1.limit", {"requests_per_second": 10, "burst": 5}),
        "kilo:tenants[1].limit",
        "burst (5) must be at least",
    ),
    "tiers upside down": (
        "dev",
        put("kilo:tiers.bronze.limit", {"requests_per_second": 900, "burst": 900}),
        "kilo:tiers.bronze.limit.requests_per_second",
        "at most what the tier above it has",
    ),
    "more availability promised to a lower tier": (
        "dev",
        put("kilo:tiers.silver.objective.availability_percent", 99.99),
        "kilo:tiers.silver.objective.availability_percent",
        "at most what the tier above it is",
    ),
    "objective slower than the timeout": (
        "dev",
        put("kilo:tiers.gold.timeout_ms", 100),
        "kilo:tiers.gold.objective.latency_threshold_ms",
        "timed out",
    ),
    "prod that believes a header from anybody": (
        "prod",
        drop("kilo:gateway.identity"),
        "kilo:gateway.identity",
        "whoever reaches the gateway could name any tenant",
    ),
    "stage whose trusted proxy is everybody": (
        "stage",
        put("kilo:gateway.identity", {"trusted_proxy": {"networks": ["0.0.0.0/0"]}}),
        "kilo:gateway.identity.trusted_proxy.networks[0]",
        "name the network that only the proxy is in",
    ),
    "keys that are not fetched over TLS": (
        "stage",
        put("kilo:gateway.identity.jwt.jwks_url", "http://id.example.com/jwks.json"),
        "kilo:gateway.identity.jwt.jwks_url",
        "an https URL",
    ),
    "limits counted for a gateway that is alone": (
        "dev",
        put("kilo:gateway.rate_limit_service", "deployed"),
        "kilo:gateway.rate_limit_service",
        "the only gateway counts all of a limit itself",
    ),
    "a rate limit service of the user's where only the program's are": (
        "stage",
        put(
            "kilo:gateway.rate_limit_service", {"name": "ratelimit", "namespace": "kilo-stage", "port": 8081}
        ),
        "kilo:gateway.rate_limit_service.namespace",
        "'kilo-stage' is the stage's own",
    ),
    "a rate limit service by a word that means nothing": (
        "stage",
        put("kilo:gateway.rate_limit_service", "deploy"),
        "kilo:gateway.rate_limit_service",
        "use deployed, or the name, namespace and port of one that is there",
    ),
    "a rate limit service without a port": (
        "stage",
        put("kilo:gateway.rate_limit_service", {"name": "ratelimit", "namespace": "limits"}),
        "kilo:gateway.rate_limit_service.port",
        "missing",
    ),
    "gold promised more than the gateway has": (
        "dev",
        put("kilo:gateway.capacity_requests_per_second", 700),
        "kilo:gateway.capacity_requests_per_second",
        "at least 800",
    ),
}
