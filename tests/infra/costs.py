"""The tables of ``docs/costs.md``: counted in the program of every stage, priced by the dev stage's file.

``python -m tests.infra.costs`` writes them anew.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from kilo.tenancy import TenantEntry
from kilo.usage.costs import SKUS
from reference.tables import table
from tests.components.recorder import Recorded, Recording, record
from tests.infra.programs import ROOT, STAGES, program

PAGE = ROOT / "docs" / "costs.md"
KINDS = {
    "aws:kms/key:Key": "KMS keys",
    "aws:kms/replicaKey:ReplicaKey": "KMS keys in a second region",
    "aws:s3/bucket:Bucket": "S3 buckets",
    "gcp:storage/bucket:Bucket": "GCS buckets",
    "aws:ecr/repository:Repository": "ECR repositories",
    "gcp:artifactregistry/repository:Repository": "Artifact Registry repositories",
    "aws:sqs/queue:Queue": "SQS queues",
}
PODS = ("kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:StatefulSet")
DRIVERS = {
    ("TenantKeys", "KMS keys"): "tenants: one each, or one for all with `kms_key: shared`",
    ("TenantKeys", "KMS keys in a second region"): "the same tenants",
    ("BackupVault", "KMS keys"): "the stage",
    ("BackupVault", "KMS keys in a second region"): "`kilo:backups.replica`",
    ("BackupVault", "S3 buckets"): "the stage; what lies in them: GiB of the database",
    ("BackupVault", "GCS buckets"): "the same GiB, a second time",
    ("S3LockedBucket", "S3 buckets"): "the audit log: rotations, ramps, promotions",
    ("MirroredRegistry", "ECR repositories"): "services; what lies in them: GiB of images",
    ("MirroredRegistry", "Artifact Registry repositories"): "the same GiB, a second time",
    ("MirroredRegistry", "SQS queues"): "pushes of images",
    ("BackupSchedule", "pods"): "the stage",
    ("ChangeCapture", "pods"): "events of the aggregates under `kilo:outbox`",
    ("Consumer", "pods"): "events",
    ("Ingest", "pods"): "requests and events",
    ("MessageBus", "pods"): "events",
    ("Monitoring", "pods"): "tenants: their rules and series",
    ("Objectives", "pods"): "the stage",
    ("Outbox", "pods"): "events",
    ("RegistryMirror", "pods"): "pushes of images",
    ("TenantGateway", "pods"): "requests",
    ("UsageCounter", "pods"): "the stage",
}


def render() -> dict[str, str]:
    """The tables, by the name of their place in the page."""
    return {"stands": _standing(), "tenant": _of_a_tenant("stage"), "use": _prices()}


def page(text: str) -> str:
    """``text`` with its tables made anew."""
    for name, made in render().items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = place.sub(lambda found, made=made: f"{found[1]}{made}{found[2]}", text)
    return text


def _component(resource: Recorded) -> str:
    """The component at the root of a resource's parents."""
    return resource.parent.split("::")[-2].split("$")[0].rpartition(":")[2]


def _standing() -> str:
    found: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for stage in STAGES:
        counts: Counter[tuple[str, str]] = Counter()
        pods: dict[str, Counter[str]] = defaultdict(Counter)
        for resource in program(stage).resources:
            if resource.type in KINDS:
                counts[_component(resource), KINDS[resource.type]] += 1
            elif resource.type in PODS:
                pods[_component(resource)] += _requested(resource.inputs["spec"])
        for key, count in counts.items():
            found[key][stage] = str(count)
        for component, asked in pods.items():
            found[component, "pods"][stage] = _words(asked)
    rows = [
        (component, kind, DRIVERS[component, kind], *(stages.get(stage, "") for stage in STAGES))
        for (component, kind), stages in sorted(found.items())
    ]
    return table(["component", "what", "driven by", *STAGES], rows)


def _requested(spec: dict[str, Any]) -> Counter[str]:
    """Pods, thousandths of a core, MiB of memory and GiB of volumes, all copies together."""
    copies = int(spec.get("replicas") or 1)
    asked: Counter[str] = Counter(pods=copies)
    for container in spec["template"]["spec"]["containers"]:
        requests = container["resources"]["requests"]
        asked["cpu"] += copies * int(requests["cpu"].removesuffix("m"))
        asked["memory"] += copies * int(requests["memory"].removesuffix("Mi"))
    for claim in spec.get("volumeClaimTemplates") or ():
        asked["volumes"] += copies * int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
    return asked


def _words(asked: Counter[str]) -> str:
    disk = f", {asked['volumes']} GiB" if asked["volumes"] else ""
    return f"{asked['pods']}: {asked['cpu']}m, {asked['memory']} MiB{disk}"


def _of_a_tenant(stage: str) -> str:
    settings = read_stage_file(ROOT / f"Pulumi.{stage}.yaml")
    entry = TenantEntry.model_validate({"id": "one-more", "tier": "bronze"})
    more = settings.model_copy(update={"tenants": (*settings.tenants, entry)})
    with_it: Recording = record(lambda: deploy(more), stack=stage)
    before = Counter(each.type for each in program(stage).resources if each.custom)
    after = Counter(each.type for each in with_it.resources if each.custom)
    assert not before - after
    rows = [(f"`{type_}`", str(count)) for type_, count in sorted((after - before).items())]
    return table(["resource", "more of it"], rows)


def _prices() -> str:
    usage = read_stage_file(ROOT / "Pulumi.dev.yaml").usage
    assert usage is not None
    prices = usage.prices
    rows = [(sku.meter, sku.pricing_unit, f"{sku.price(prices)}") for sku in SKUS]
    rows.append(("What all tenants share", "month", f"{prices.shared_month}"))
    return table(["use", "unit", f"price in {usage.currency}"], rows)


if __name__ == "__main__":
    PAGE.write_text(page(Path(PAGE).read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE)
