"""Mistakes about clouds, keys, backups, databases and the program itself."""

from __future__ import annotations

from tests.infra.mistakes.changes import Config, Mistakes, drop, put

CA = """
-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUBVyKlOwbNLkrTmqIDGFiXt+B020wCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMzAxODAzMTBaGA8yMTI2MTEwNjE4MDMx
MFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABM0G
4f43iVfg6u/SHwJqSMz/a+oLa1BxZZeNK8aVYpoug4zlnRH4QoJ61SPTqFbkfgsN
M5mVw79MmIddl1xVXtGjUzBRMB0GA1UdDgQWBBQZ+Mo9djFV+GDvlaU86pm5w4yb
bzAfBgNVHSMEGDAWgBQZ+Mo9djFV+GDvlaU86pm5w4ybbzAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQDMZlI3YQsXDgdPtsKcH80/ZsGuj/vIYJ0r
JFHgrpZLAQIgEeIvUvhWJko15hhW0hN0aL2+EfgsNTiVap+JNsd3Q24=
-----END CERTIFICATE-----
"""

ROTATION = {
    "name": "Rotation",
    "role_arn": "arn:aws:iam::123456789012:role/rotation",
    "can": ["encrypt", "decrypt"],
}


def a_second_key_while_migrating(config: Config) -> None:
    second = {"acme": {"provider": "gcp", "key": "projects/p/k", "alias": "acme"}}
    put("kilo:field_encryption", {"second_keys": second})(config)
    put("kilo:aws.tenant_key_replicas.migrating", True)(config)


PLATFORM: Mistakes = {
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
    "who restores and administers the key": (
        "dev",
        put("kilo:backups.restorers", ["arn:aws:iam::123456789012:role/key-administrator"]),
        "kilo:backups.restorers[0]",
        "administers the keys; restore as another role",
    ),
    "who restores in another account": (
        "dev",
        put("kilo:backups.restorers", ["arn:aws:iam::999999999999:role/restorer"]),
        "kilo:backups.restorers[0]",
        "belongs to another account than aws.account_id",
    ),
    "who restores in Google Cloud by a bare address": (
        "dev",
        put("kilo:backups.google_restorers", ["ana@example.com"]),
        "kilo:backups.google_restorers[0]",
        "group:restorers@example.com",
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
    "a former generation of the database's passwords that never was": (
        "dev",
        put("kilo:database.credentials", {"former_accepted": True}),
        "kilo:database.credentials.former_accepted",
        "there is no generation before 1",
    ),
    "wrong type": ("dev", put("kilo:outbox.workers", "many"), "kilo:outbox.workers", "a whole number"),
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
    "no host of the database": (
        "dev",
        drop("kilo:database.host"),
        "kilo:database.host",
        "a host name such as",
    ),
    "a URL instead of the database's host": (
        "dev",
        put("kilo:database.host", "postgresql://db:5432"),
        "kilo:database.host",
        "a host name such as",
    ),
    "a name of a database that ends a URL": (
        "dev",
        put("kilo:database.name", "kilo?sslmode=disable"),
        "kilo:database.name",
        "a database's name of letters",
    ),
    "a server known by certificates that are not there": (
        "prod",
        put("kilo:database.sslmode", "verify-full"),
        "kilo:database.ca",
        "use sslmode require",
    ),
    "certificates that nobody looks at": (
        "prod",
        put("kilo:database.ca", CA),
        "kilo:database.sslmode",
        "use verify-full with ca",
    ),
    "no certificate": (
        "prod",
        put("kilo:database.ca", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "kilo:database.ca",
        "certificates in PEM form are needed",
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
