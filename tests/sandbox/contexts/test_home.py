"""A context's stage is a project of its own: the checkout's program, and a file rewritten for the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.configuration import read_stage_file
from kilo.errors import BadInput, Unreachable
from sandbox.contexts.commands import variables
from sandbox.contexts.home import Chosen, ContextHome

ROOT = Path(__file__).parents[3]
IMAGE = "ghcr.io/kilo-platform/kilo:0.1.0-0123456789ab"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Pulumi.yaml", "Pulumi.dev.yaml", "infra", "charts", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_only_what_the_cluster_asks_for_differs_from_the_checkouts_stage(checkout: Path) -> None:
    home = ContextHome(checkout, "kind-kind")
    home.write(Chosen("172.18.0.1", IMAGE))
    before = read_stage_file(checkout / "Pulumi.dev.yaml")
    after = read_stage_file(home.project / "Pulumi.dev.yaml")
    assert after.images.runtime == IMAGE
    (feature,) = after.features
    assert feature.next.image == IMAGE
    assert after.database.network == "172.18.0.1/32"
    assert (
        after.model_copy(update={name: getattr(before, name) for name in ("images", "features", "database")})
        == before
    )
    assert "kubernetes:context: kind-kind" in (home.project / "Pulumi.dev.yaml").read_text()
    assert (home.project / "infra" / "__main__.py").samefile(ROOT / "infra" / "__main__.py")


def test_it_is_written_anew_with_the_checkouts_next_change(checkout: Path) -> None:
    home = ContextHome(checkout, "kind-kind")
    home.write(Chosen("172.18.0.1"))
    file = checkout / "Pulumi.dev.yaml"
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace("retention_days: 3", "retention_days: 4"))
    home.write(Chosen("172.18.0.1"))
    assert read_stage_file(home.project / "Pulumi.dev.yaml").bus.retention_days == 4
    assert home.chosen() == Chosen("172.18.0.1", "")


def test_contexts_are_apart_whatever_they_are_called(checkout: Path) -> None:
    issued = "arn:aws:eks:eu-central-1:1:cluster"
    names = (f"{issued}/a", f"{issued}_a", f"{issued}:a", "../../up", "..", ".", "kind", "kind.x", "kind_x")
    folders = {ContextHome(checkout, name).project for name in names}
    assert len(folders) == len(names)
    assert {folder.parent for folder in folders} == {checkout / ".kilo-contexts"}
    assert len({ContextHome(checkout, name).loopback for name in names}) == len(names)


def test_a_context_without_a_stage_says_how_to_make_one(checkout: Path) -> None:
    with pytest.raises(BadInput, match=r"no stage was brought up there; kilo up --context nowhere"):
        ContextHome(checkout, "nowhere").chosen()


def test_the_environment_of_a_stage_that_was_not_brought_up_is_not_made_up(checkout: Path) -> None:
    with pytest.raises(BadInput, match="no stage was brought up there; kilo up --context kind-kind"):
        variables(checkout, "kind-kind")
    ContextHome(checkout, "kind-kind").write(Chosen("172.18.0.1"))
    with pytest.raises(Unreachable, match="the sandbox of kind-kind is not running"):
        variables(checkout, "kind-kind")
