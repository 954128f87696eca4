"""The image, built once for all tests of this folder."""

from __future__ import annotations

import pytest

from sandbox.image.build import Image, build
from sandbox.toolchain.progress import Step


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("image") / "one", Step(lambda _: None))
