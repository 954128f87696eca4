"""Every Kubernetes object of every stage is what a current Kubernetes accepts, to the last field."""

from __future__ import annotations

import kubernetes_validate
import pytest

from components.processes.rate_limits import store_of
from infra import names
from infra.previews.program import RESERVED
from kilo.errors import BadInput
from kilo.observe.platform import CONSUMER, OUTBOX_WORKER
from kilo.scaffold.template import check_name
from tests.infra.programs import STAGES, program

KUBERNETES = "1.37"


@pytest.mark.parametrize("stage", STAGES)
def test_every_object_is_valid_strictly(stage: str) -> None:
    found = [
        resource
        for resource in program(stage).resources
        if resource.type.startswith("kubernetes:") and "coreos" not in resource.type
    ]
    assert len(found) > 50
    for resource in found:
        kubernetes_validate.validate(resource.inputs, KUBERNETES, strict=True)


@pytest.mark.parametrize("stage", STAGES)
def test_rules_name_workloads_as_they_are_named(stage: str) -> None:
    workloads = {
        resource.inputs["metadata"]["name"]
        for resource in program(stage).resources
        if resource.type == "kubernetes:apps/v1:Deployment"
    }
    assert {CONSUMER, OUTBOX_WORKER} <= workloads


@pytest.mark.parametrize("stage", STAGES)
def test_no_service_is_called_as_a_workload_of_the_stage_or_a_preview(stage: str) -> None:
    workloads = {
        resource.inputs["metadata"]["name"]
        for resource in program(stage).resources
        if resource.type in {"kubernetes:core/v1:ServiceAccount", "kubernetes:core/v1:Service"}
    }
    assert len(workloads) > 10
    workloads |= {names.KAFKA, names.COLLECTOR, names.feature("rehearsal")}
    for name in workloads | RESERVED | {names.RATE_LIMITS, store_of(names.RATE_LIMITS)}:
        with pytest.raises(BadInput, match="NAME"):
            check_name(name)
