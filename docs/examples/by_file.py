"""A service that finds its stage: from the file that the platform mounts into every workload.

On your own machine write the file first, and name it::

    kilo outputs -s dev > outputs.json
    KILO_OUTPUTS=outputs.json python docs/examples/by_file.py order
"""

from __future__ import annotations

import sys

from kilo.contract import load_outputs


def main(aggregate: str) -> None:
    """Print where events of ``aggregate`` are published, and by whom."""
    outputs = load_outputs()
    publisher = "change capture" if aggregate in outputs.outbox.cdc_aggregates else "the outbox worker"
    print(f"{outputs.bus.url}, subject {outputs.bus.subject_prefix}.{aggregate}, published by {publisher}")
    for tenant, about in outputs.tenants.items():
        fields = ", ".join(about.encrypted_fields) or "nothing"
        print(f"{tenant} ({about.tier}): {fields} encrypted under {about.encryption_key.alias}")


if __name__ == "__main__":
    main(sys.argv[1])
