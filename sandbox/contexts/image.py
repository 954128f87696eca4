"""The platform's image for one context: its processes find the sandbox where a cloud's would find the cloud.

Only the image differs from the one that is released, by variables and one file; the program stays the same.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sandbox.cluster.service import ServerUrls, cloud_variables
from sandbox.daemon import Endpoints
from sandbox.image.archive import write_archive
from sandbox.image.build import build
from sandbox.image.derived import derive
from sandbox.toolchain.progress import Step

_REGISTRIES = Path("etc/containers/registries.conf")
_DIGITS = 12


def make(project: Path, endpoints: Endpoints, name: str, archive: Path, step: Step) -> str:
    """Write the image into ``archive``; answers with its name.

    Args:
        project: the context's, whose running sandbox the image leads to.
        name: what the stage calls the image. Its tag gets the content's digest, so that what changed is
            rolled out and what is the same is not.
        archive: a file that is made anew.
    """
    layout = project / ".kilo" / "image"
    build(layout, step)
    servers = ServerUrls(
        aws=endpoints.aws,
        gcs=endpoints.gcs,
        primary_registry=endpoints.primary_registry,
        secondary_registry=endpoints.secondary_registry,
        postgres_programs=Path(),
    )
    with tempfile.TemporaryDirectory(prefix=".image-", dir=layout.parent) as work:
        root, made = Path(work, "root"), Path(work, "layout")
        (root / _REGISTRIES).parent.mkdir(parents=True)
        shutil.copyfile(project / ".kilo" / "registries.conf", root / _REGISTRIES)
        variables = cloud_variables(servers, Path("/", _REGISTRIES))
        digest = derive(layout, made, root=root, environment=variables).removeprefix("sha256:")
        named = f"{name}-{digest[:_DIGITS]}"
        write_archive(made, named, archive)
    return named
