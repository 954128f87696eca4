"""The artifact mirror: what the primary registry holds, the secondary holds whole and identical.

An image is a graph: tag, index, manifests, configs and layers, and what refers to any of them
(signatures, SBOMs, provenance) by the referrers API, by the fallback tag, or by cosign's ``.sig``,
``.att`` and ``.sbom`` tags. Everything here works on that graph over the OCI distribution API 1.1
(https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md), so that both sides may
be any registry, with or without the referrers API.

Two rules make a copy safe to kill at any instant: children are pushed before their parents, and
the tag moves last, after every referrer. A tag at the destination is therefore never half an
image, and a second run skips what the first one finished.

Left out: deleting at the destination (what is EXTRA is reported, never removed), Docker schema 1
(https://docs.docker.com/engine/deprecated/#pushing-and-pulling-with-image-manifest-v2-schema-1),
and layers that may not be distributed: their descriptors are copied, their bytes stay where their
URLs point.
"""
