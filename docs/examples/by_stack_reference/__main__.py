"""A Pulumi program of another team that builds on a stage: it reads the stage's outputs by StackReference.

The contract's model gives the values types and names, and fails with the field's name where a stage
is of another version. ``kilo:stage`` in this program's own configuration is the stage's full name,
such as ``organization/kilo/prod``.
"""

from __future__ import annotations

import pulumi

from kilo.contract import StackOutputs

stage = pulumi.StackReference(pulumi.Config("kilo").require("stage"))
outputs = stage.outputs.apply(lambda found: StackOutputs.model_validate(found, extra="ignore"))


def gold(found: StackOutputs) -> list[str]:
    """The tenants of the highest tier."""
    return sorted(name for name, tenant in found.tenants.items() if tenant.tier == "gold")


pulumi.export("bus", outputs.apply(lambda found: found.bus.url))
pulumi.export("subject", outputs.apply(lambda found: f"{found.bus.subject_prefix}.order"))
pulumi.export("gold_tenants", outputs.apply(gold))
