"""The program: one stage of the platform, from its configuration to its outputs.

::

    Pulumi.<stage>.yaml ─> settings ─> identities ─> clouds ─> outputs ─> cluster ─> what is seen of it

    HTTP ─> gateway ─> ingest ─> database: business row + outbox, one transaction
                                     │ outbox worker, or change capture
                                     v
                                message bus ─> consumer

Each step is a module, which says what it takes and gives: :mod:`infra.identities`, :mod:`infra.clouds` (keys,
registries, vaults), :mod:`infra.outputs`, :mod:`infra.cluster` (the second picture), :mod:`infra.monitoring`.
"""

from __future__ import annotations

import gc

import pulumi

from infra.clouds import create_clouds
from infra.cluster import create_cluster
from infra.configuration import from_engine
from infra.identities import create_identities
from infra.monitoring import create_monitoring
from infra.outputs import export_outputs
from infra.previews import create_previews
from infra.settings import Settings
from kilo.errors import KiloError


def deploy(settings: Settings) -> None:
    """Register everything that the stage consists of, and export its outputs."""
    identities = create_identities(settings)
    clouds = create_clouds(settings, identities)
    outputs = export_outputs(settings, clouds)
    namespace = create_cluster(settings, identities, clouds, outputs)
    create_monitoring(settings, namespace)
    create_previews(settings)


def main() -> None:
    """Deploy the stage that the engine names, or say what is wrong with its configuration."""
    # It runs once and ends. Looking for garbage among what the SDKs make took half of its time with five
    # tenants and three quarters with a thousand, to save a tenth of the memory.
    gc.disable()
    values = {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    try:
        deploy(from_engine(values, pulumi.get_stack()))
    except KiloError as error:
        # A mistake in a file, not in the program: its lines are enough, without a traceback.
        raise pulumi.RunError(str(error)) from None


if __name__ == "__main__":
    main()
