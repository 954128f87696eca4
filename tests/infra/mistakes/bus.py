"""Mistakes about the bus."""

from __future__ import annotations

from tests.infra.mistakes.changes import Mistakes, put

BUS: Mistakes = {
    "unknown key": ("dev", put("kilo:bus.replica", 3), "kilo:bus.replica", "did you mean 'replicas'?"),
    "a former generation of the bus's passwords that never was": (
        "dev",
        put("kilo:bus.credentials", {"former_accepted": True}),
        "kilo:bus.credentials.former_accepted",
        "there is no generation before 1",
    ),
    "unknown key without a likeness": (
        "dev",
        put("kilo:bus.xyz", 3),
        "kilo:bus.xyz",
        "known here: credentials, duplicate_",
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
    "tokens from nowhere": (
        "dev",
        put("kilo:bus", {"kafka": {"brokers": ["kafka-0.example:9092"], "access": {"shown": "token"}}}),
        "kilo:bus.kafka.access.tokens",
        "'token' needs it",
    ),
    "an endpoint of tokens that is asked in plain": (
        "dev",
        put(
            "kilo:bus",
            {
                "kafka": {
                    "brokers": ["kafka-0.example:9092"],
                    "access": {"shown": "token", "tokens": {"endpoint": "http://id.example/token"}},
                }
            },
        ),
        "kilo:bus.kafka.access.tokens.endpoint",
        "an https URL",
    ),
    "tokens beside passwords": (
        "dev",
        put(
            "kilo:bus",
            {
                "kafka": {
                    "brokers": ["kafka-0.example:9092"],
                    "access": {"tokens": {"endpoint": "https://id.example/token"}},
                }
            },
        ),
        "kilo:bus.kafka.access.tokens",
        "leave it out",
    ),
    "IAM's tokens of no cluster": (
        "dev",
        put(
            "kilo:bus",
            {"kafka": {"brokers": ["kafka-0.example:9098"], "access": {"shown": "aws-msk-iam"}}},
        ),
        "kilo:bus.kafka.access.msk_cluster",
        "'aws-msk-iam' needs it",
    ),
    "Debezium's own image before Amazon's Kafka": (
        "dev",
        put(
            "kilo:bus",
            {
                "kafka": {
                    "brokers": ["kafka-0.example:9098"],
                    "access": {
                        "shown": "aws-msk-iam",
                        "msk_cluster": "arn:aws:kafka:eu-west-1:123456789012:cluster/events/8a4b6d1e-2",
                    },
                }
            },
        ),
        "kilo:images.debezium",
        "give one with aws-msk-iam-auth",
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
}
