"""The ``gcp`` provider: a bucket."""

from __future__ import annotations

import httpx

from tests.sandbox.providers.examples import Example, raw


def _program(body: str) -> str:
    return f"one = {body}\npulumi.export('name', one.name)\n"


def example(endpoint: str) -> Example:
    """Against the storage server at ``endpoint``."""
    server = httpx.Client(base_url=f"{endpoint}/storage/v1", trust_env=False)

    def drift(name: str) -> None:
        server.patch(f"/b/{name}", json={"defaultEventBasedHold": True}).raise_for_status()

    def adopt() -> str:
        name = "made-by-hand"
        server.post("/b", params={"project": "trial-project"}, json={"name": name}).raise_for_status()
        options = f"opts=pulumi.ResourceOptions(import_={name!r})"
        return _program(f"gcp.storage.Bucket('one', name={name!r}, location='US', {options})")

    bucket = "gcp.storage.Bucket('one', location='US'"
    return Example(
        head="import pulumi_gcp as gcp",
        create=_program(f"{bucket}, labels={{'owner': 'data'}})"),
        update=_program(f"{bucket}, labels={{'owner': 'platform'}})"),
        updated={"labels.owner": "update"},
        replace=_program("gcp.storage.Bucket('one', location='EU')"),
        replaced={"location": "update-replace", "labels": "delete"},
        wrong=raw(
            "gcp:storage/bucket:Bucket",
            {
                "location": 4,
                "lifecycleRules": [{"action": {"typ": "Delete"}, "condition": {}}],
                "retention": 4,
            },
        ),
        wrong_paths=("location", "lifecycleRules[0].action.typ", "retention"),
        unknown_type="gcp:storage/bukket:Bukket",
        missing_type="gcp:storage/notification:Notification",
        unknowns="""
            one = gcp.serviceaccount.Account("one", account_id="one-account")
            two = gcp.projects.IAMMember(
                "two", project="trial-project", role="roles/logging.logWriter", member=one.member
            )
            pulumi.export("two", two.etag)
        """,
        secret="""
            one = gcp.kms.KeyRing("one", location="europe-west1")
            word = pulumi.Output.secret("correct horse")
            two = gcp.kms.CryptoKey("two", key_ring=one.id, labels={"word": word})
            pulumi.export("secret", two.labels["word"])
        """,
        exists=lambda name: server.get(f"/b/{name}").is_success,
        drift=drift,
        drifted="defaultEventBasedHold",
        remove=lambda name: server.delete(f"/b/{name}").raise_for_status() and None,
        adopt=adopt,
        config={"gcp:project": "trial-project", "gcp:region": "europe-west1"},
    )
