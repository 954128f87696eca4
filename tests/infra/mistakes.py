"""Mistakes in a stage's configuration: the file, the change that makes it, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]


def put(path: str, value: object) -> Callable[[Config], None]:
    """A change of the configuration: ``kilo:bus.replicas`` and the like; integers index lists."""

    def change(config: Config) -> None:
        *parents, last = path.split(".")
        place: Any = config
        for part in parents:
            place = place[int(part)] if part.isdigit() else place[part]
        place[int(last) if last.isdigit() else last] = value

    return change


def a_second_key_while_migrating(config: Config) -> None:
    second = {"acme": {"provider": "gcp", "key": "projects/p/k", "alias": "acme"}}
    put("kilo:field_encryption", {"second_keys": second})(config)
    put("kilo:aws.tenant_key_replicas.migrating", True)(config)


def drop(path: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        *parents, last = path.split(".")
        place: Any = config
        for part in parents:
            place = place[int(part)] if part.isdigit() else place[part]
        del place[last]

    return change


ROTATION = {
    "name": "Rotation",
    "role_arn": "arn:aws:iam::123456789012:role/rotation",
    "can": ["encrypt", "decrypt"],
}


MISTAKES: dict[str, tuple[str, Callable[[Config], None], str, str]] = {
    "a key user of a tenant that is not there": (
        "dev",
        put("kilo:aws.key_users", [{**ROTATION, "tenants": ["acmee"]}]),
        "kilo:aws.key_users[0].tenants",
        "'acmee' is no tenant of this stage",
    ),
    "a key user that takes the platform's name": (
        "dev",
        put("kilo:aws.key_users", [{**ROTATION, "name": "Ingest"}]),
        "kilo:aws.key_users",
        "the name 'Ingest' is taken",
    ),
    "a second key of a tenant that is not there": (
        "dev",
        put(
            "kilo:field_encryption",
            {"second_keys": {"acmee": {"provider": "gcp", "key": "projects/p/k", "alias": "acme"}}},
        ),
        "kilo:field_encryption.second_keys.acmee",
        "it is no tenant of this stage",
    ),
    "tenants' keys replicated to their own region": (
        "prod",
        put("kilo:aws.tenant_key_replicas", {"regions": ["eu-central-1"]}),
        "kilo:aws.tenant_key_replicas.regions",
        "'eu-central-1' is the keys' own region",
    ),
    "tenants' keys replicated twice to a region": (
        "prod",
        put("kilo:aws.tenant_key_replicas", {"regions": ["eu-west-1", "eu-west-1"]}),
        "kilo:aws.tenant_key_replicas.regions",
        "listed 2 times",
    ),
    "a second key beside the former one": (
        "prod",
        a_second_key_while_migrating,
        "kilo:field_encryption.second_keys.acme",
        "the second key is the former one",
    ),
    "unknown section": ("dev", put("kilo:tenant", []), "kilo:tenant", "did you mean 'tenants'?"),
    "unknown key": ("dev", put("kilo:bus.replica", 3), "kilo:bus.replica", "did you mean 'replicas'?"),
    "a former generation of the bus's passwords that never was": (
        "dev",
        put("kilo:bus.credentials", {"former_accepted": True}),
        "kilo:bus.credentials.former_accepted",
        "there is no generation before 1",
    ),
    "a former generation of the database's passwords that never was": (
        "dev",
        put("kilo:database.credentials", {"former_accepted": True}),
        "kilo:database.credentials.former_accepted",
        "there is no generation before 1",
    ),
    "unknown key without a likeness": (
        "dev",
        put("kilo:bus.xyz", 3),
        "kilo:bus.xyz",
        "known here: credentials, duplicate_",
    ),
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
    "wrong type": ("dev", put("kilo:outbox.workers", "many"), "kilo:outbox.workers", "a whole number"),
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
    "kept shorter than locked": (
        "dev",
        put("kilo:backups.lock_days", 30),
        "kilo:backups.keep_days",
        "use at least 30",
    ),
    "compliance outside prod": (
        "stage",
        put("kilo:backups.primary.lock_mode", "compliance"),
        "kilo:backups.primary.lock_mode",
        "use governance",
    ),
    "audit under compliance outside prod": (
        "dev",
        put("kilo:audit.lock_mode", "compliance"),
        "kilo:audit.lock_mode",
        "use governance",
    ),
    "checkpoints that nobody could verify": (
        "dev",
        put("kilo:audit.signing_key_secret", "audit-key"),
        "kilo:audit.signing_key_secret",
        "set field_encryption.audit_public_key",
    ),
    "locked policy outside prod": (
        "stage",
        put("kilo:backups.secondary.locked", True),
        "kilo:backups.secondary.locked",
        "use false",
    ),
    "unknown lock mode": (
        "prod",
        put("kilo:backups.primary.lock_mode", "strict"),
        "kilo:backups.primary.lock_mode",
        "'governance' or 'compliance'",
    ),
    "secret id missing": (
        "dev",
        drop("kilo:database.url_secret_id"),
        "kilo:database.url_secret_id",
        "kilo/dev/database-url",
    ),
    "URL instead of a secret id": (
        "dev",
        put("kilo:database.url_secret_id", "postgresql://kilo@db:5432/kilo"),
        "kilo:database.url_secret_id",
        "the name of a secret",
    ),
    "schema of PostgreSQL's own": (
        "dev",
        put("kilo:database.schema_name", "pg_kilo"),
        "kilo:database.schema_name",
        "no pg_ before it",
    ),
    "rows that go before their fingerprints": (
        "dev",
        put("kilo:ingest.keep_days", 3),
        "kilo:ingest.keep_days",
        "use at least 7",
    ),
    "aggregate no subject token": (
        "dev",
        put("kilo:outbox.cdc_aggregates", ["order created"]),
        "kilo:outbox.cdc_aggregates[0]",
        "use lower-case letters, digits, underscores and hyphens",
    ),
    "aggregate twice": (
        "dev",
        put("kilo:outbox.cdc_aggregates", ["order", "order"]),
        "kilo:outbox.cdc_aggregates",
        "list it once",
    ),
    "bucket name in capitals": (
        "dev",
        put("kilo:audit.bucket", "Kilo-Audit"),
        "kilo:audit.bucket",
        "lower-case letters",
    ),
    "bucket name too short": (
        "dev",
        put("kilo:backups.primary.bucket", "ab"),
        "kilo:backups.primary.bucket",
        "3 to 63",
    ),
    "bucket name reserved": (
        "dev",
        put("kilo:backups.secondary.bucket", "goog-backups"),
        "kilo:backups.secondary.bucket",
        "can't start with",
    ),
    "one bucket for two purposes": (
        "dev",
        put("kilo:audit.bucket", "kilo-dev-backups-eu"),
        "kilo:audit.bucket",
        "use another",
    ),
    "AWS region misspelt": ("dev", put("aws:region", "frankfurt"), "aws:region", "such as eu-central-1"),
    "AWS region missing": ("dev", drop("aws:region"), "aws:region", "such as eu-central-1"),
    "Google region misspelt": ("dev", put("gcp:region", "eu_west"), "gcp:region", "such as europe-west3"),
    "account id as a number": (
        "dev",
        put("kilo:aws.account_id", 123456789012),
        "kilo:aws.account_id",
        "quotes",
    ),
    "administrator of another account": (
        "dev",
        put("kilo:aws.key_administrators", ["arn:aws:iam::999999999999:role/admin"]),
        "kilo:aws.key_administrators[0]",
        "another account",
    ),
    "administrator no ARN": (
        "dev",
        put("kilo:aws.key_administrators", ["admin"]),
        "kilo:aws.key_administrators[0]",
        "role or user ARN",
    ),
    "key window too short": (
        "dev",
        put("kilo:key_deletion_window_days", 3),
        "kilo:key_deletion_window_days",
        "at least 7",
    ),
    "two bus members": ("dev", put("kilo:bus.replicas", 2), "kilo:bus.replicas", "1, 3 or 5"),
    "a broker without a port": (
        "dev",
        put("kilo:bus", {"kafka": {"brokers": ["kafka-0.example:9092", "kafka-1.example"]}}),
        "kilo:bus.kafka.brokers[1]",
        "a host and a port such as kafka-0.example:9092",
    ),
    "brokers as one text": (
        "dev",
        put("kilo:bus", {"kafka": {"brokers": "kafka-0.example:9092"}}),
        "kilo:bus.kafka.brokers",
        "use a list",
    ),
    "a broker twice": (
        "dev",
        put("kilo:bus", {"kafka": {"brokers": ["kafka-0.example:9092"] * 2}}),
        "kilo:bus.kafka.brokers",
        "list it once",
    ),
    "NATS's disk beside Kafka": (
        "dev",
        put("kilo:bus", {"kafka": {"brokers": ["kafka-0.example:9092"]}, "storage_gib": 5}),
        "kilo:bus.storage_gib",
        "leave it out beside bus.kafka",
    ),
    "passwords of NATS beside a Kafka": (
        "dev",
        put("kilo:bus", {"kafka": {"brokers": ["kafka-0.example:9092"]}, "credentials": {"generation": 2}}),
        "kilo:bus.credentials",
        "leave it out beside bus.kafka",
    ),
    "a duplicate window beside Kafka": (
        "dev",
        put("kilo:bus", {"kafka": {"brokers": ["kafka-0.example:9092"]}, "duplicate_window_seconds": 60}),
        "kilo:bus.duplicate_window_seconds",
        "leave it out beside bus.kafka",
    ),
    "anybody's Kafka in stage": (
        "stage",
        put("kilo:bus", {"kafka": {"brokers": ["kafka-0.example:9092"]}, "replicas": 3}),
        "kilo:bus.kafka.access",
        "or say unguarded: true",
    ),
    "a Kafka that is guarded and isn't": (
        "prod",
        put(
            "kilo:bus",
            {"kafka": {"brokers": ["kafka-0.example:9092"], "access": {}, "unguarded": True}, "replicas": 3},
        ),
        "kilo:bus.kafka.unguarded",
        "leave it out",
    ),
    "one user of Kafka for two roles": (
        "dev",
        put(
            "kilo:bus",
            {"kafka": {"brokers": ["kafka-0.example:9092"], "access": {"secrets": {"cdc": "bus-worker"}}}},
        ),
        "kilo:bus.kafka.access.secrets.cdc",
        "give each a user of its own",
    ),
    "a role of Kafka's that is none": (
        "dev",
        put(
            "kilo:bus",
            {"kafka": {"brokers": ["kafka-0.example:9092"], "access": {"secrets": {"ingest": "i"}}}},
        ),
        "kilo:bus.kafka.access.secrets.ingest",
        "worker",
    ),
    "no quorum in prod": ("prod", put("kilo:bus.replicas", 1), "kilo:bus.replicas", "use 3 or 5"),
    "duplicate window beyond retention": (
        "dev",
        lambda config: config["kilo:bus"].update(retention_days=1, duplicate_window_seconds=86_401),
        "kilo:bus.duplicate_window_seconds",
        "at most 86400",
    ),
    "prod unprotected": ("prod", put("kilo:protect", False), "kilo:protect", "use true"),
    "policies off in prod": (
        "prod",
        put("kilo:policy_enforcement", "advisory"),
        "kilo:policy_enforcement",
        "use mandatory",
    ),
    "image without a tag": ("dev", put("kilo:images.runtime", "kilo"), "kilo:images.runtime", "digest"),
    "network no network": (
        "dev",
        put("kilo:database.network", "10.0.0.0/99"),
        "kilo:database.network",
        "10.0.0.0/16",
    ),
    "schedule no cron": (
        "dev",
        put("kilo:backups.schedule", "daily"),
        "kilo:backups.schedule",
        "five fields",
    ),
    "repository twice": (
        "dev",
        put("kilo:registry.repositories", ["a/b", "a/b"]),
        "kilo:registry.repositories",
        "list it once",
    ),
    "replica in the primary's region": (
        "dev",
        put("kilo:registry.replica_regions", ["eu-central-1"]),
        "kilo:registry.replica_regions",
        "the primary's own region",
    ),
    "a signer that is no key": (
        "dev",
        put("kilo:registry.signers", {"keys": ["nonsense"]}),
        "kilo:registry.signers",
        "no public key in PEM form",
    ),
    "a list of previews": (
        "dev",
        put("kilo:previews", [{"name": "x", "image": "x:1"}]),
        "kilo:previews",
        "a mapping",
    ),
    "a domain of previews that is none": (
        "dev",
        put("kilo:previews", {"domain": "https://preview.example.com"}),
        "kilo:previews.domain",
        "a domain such as preview.example.com",
    ),
}
