"""The directory of a stage that is split into a stack a tenant group, made from the groups' own outputs.

``kilo:groups`` in this program's own configuration lists the groups' stacks by their full names, such as
``organization/kilo/prod`` and ``organization/kilo/prod-2``. What routes requests to the groups' gateways
(DNS, a load balancer's rules) is made from the ``gateways`` that this exports. A tenant in two groups is
refused: both would take its events, under two keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from kilo.contract import StackOutputs

names: list[str] = pulumi.Config("kilo").require_object("groups")
groups = pulumi.Output.all(
    *(
        pulumi.StackReference(name).outputs.apply(
            lambda found: StackOutputs.model_validate(found, extra="ignore")
        )
        for name in names
    )
)


def gateways(found: Sequence[StackOutputs]) -> dict[str, str]:
    """By tenant, the URL of its group's gateway."""
    where: dict[str, str] = {}
    for group in found:
        if twice := sorted(where.keys() & group.tenants.keys()):
            msg = (
                f"{group.stage}: {', '.join(twice)}: in another group too; take the entry out of one of them"
            )
            raise pulumi.RunError(msg)
        where |= dict.fromkeys(group.tenants, group.gateway.url)
    return dict(sorted(where.items()))


pulumi.export("gateways", groups.apply(gateways))
