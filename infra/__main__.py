"""The program: one stage of the platform, from its configuration to its outputs.

::

    Pulumi.<stage>.yaml ─> settings ─> identities ─> clouds ─> outputs ─> cluster ─> what is seen of it

    HTTP ─> gateway ─> ingest ─> database: business row + outbox, one transaction
                                     │ outbox worker, or change capture
                                     v
                                message bus ─> consumer

Where the credentials lead is asked before anything is registered (:mod:`infra.target`). Then each step is a
module, which says what it takes and gives: :mod:`infra.identities`, :mod:`infra.clouds` (keys, registries,
vaults), :mod:`infra.outputs`, :mod:`infra.cluster` (the second picture), :mod:`infra.monitoring`.
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import pulumi

from infra import names
from infra.clouds import create_clouds
from infra.cluster import create_cluster, create_namespace
from infra.cluster.gateway import create_gateway
from infra.cluster.requests import ask_for
from infra.configuration import from_engine
from infra.identities import create_identities
from infra.monitoring import create_monitoring
from infra.outputs import export_outputs
from infra.settings import Settings
from infra.target.refusal import refuse_elsewhere
from kilo.environment import GATEWAY_ALONE_VARIABLE
from kilo.errors import KiloError


def deploy(settings: Settings) -> None:
    """Register everything that the stage consists of, and export its outputs."""
    ask_for(settings.requests_percent)
    identities = create_identities(settings)
    clouds = create_clouds(settings, identities)
    outputs = export_outputs(settings, clouds)
    namespace = create_cluster(settings, identities, clouds, outputs)
    create_monitoring(settings, namespace)


def deploy_gateway(settings: Settings, outputs: Path) -> None:
    """Register the gateway and the namespace that it stands in, and nothing else.

    For a targeted update of the gateway, which leaves what is not registered as it is: a ramp's step and a
    revert take half of the time. Only the stack's outputs are what a program exports, whatever is targeted:
    they come from a file.
    """
    ask_for(settings.requests_percent)
    upstreams = (names.INGEST, *((names.INGEST_NEXT,) if settings.ingest.next_image else ()))
    upstreams += tuple(names.feature(feature.id) for feature in settings.features if feature.next.image)
    known = json.loads(outputs.read_bytes())
    namespace = create_namespace(settings, "")
    inside = pulumi.ResourceOptions(depends_on=[namespace])
    create_gateway(settings, upstreams, inside)
    for name, value in known.items():
        pulumi.export(name, value)


def main() -> None:
    """Deploy the stage that the engine names, or say what is wrong with its configuration."""
    # It runs once and ends. Looking for garbage among what the SDKs make took half of its time with five
    # tenants and three quarters with a thousand, to save a tenth of the memory.
    gc.disable()
    values = {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    try:
        settings = from_engine(values, pulumi.get_stack())
        refuse_elsewhere(settings, values.get("kubernetes:context"))
        outputs = os.environ.get(GATEWAY_ALONE_VARIABLE)
        deploy_gateway(settings, Path(outputs)) if outputs else deploy(settings)
    except KiloError as error:
        # A mistake in a file, not in the program: its lines are enough, without a traceback.
        raise pulumi.RunError(str(error)) from None


if __name__ == "__main__":
    main()
