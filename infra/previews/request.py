"""Who asks for a preview of what: the service's folder, the stage with its checkout, the pull request."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.check import stage_file
from infra.configuration import read_stage_file
from infra.previews.program import RESERVED
from infra.settings import Settings
from kilo.automation import read_outputs
from kilo.contract import StackOutputs, load_outputs
from kilo.errors import BadInput, Unreachable
from kilo.host import adopt_environment, replace_service_names, runs_here
from kilo.project import locate_project
from kilo.scaffold.template import ANSWERS, Service, load

MOST_PULL_REQUEST = 999_999_999
"""Nine digits, so that a namespace's 63 characters hold it beside the longest service's name."""
_DURATION = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=30)
_LARGEST_SMOKE = 100_000


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SmokeRequest(_Model):
    """A request that the service must answer as said, through the gateway."""

    method: str = Field(default="GET", pattern=r"^(GET|HEAD|POST|PUT|PATCH|DELETE)$")
    path: str = Field(pattern=r"^/[!-~]*$", max_length=2_000)
    body: Any = None
    """Sent as JSON."""
    status: int = Field(default=200, ge=100, le=599)


class SmokeEvent(_Model):
    """An event that is put into the outbox for a service that consumes events."""

    aggregate: str
    kind: str
    payload: dict[str, Any] = {}


class Smoke(_Model):
    """``deploy/smoke.yaml``: how a service shows that it works."""

    requests: tuple[SmokeRequest, ...] = ()
    event: SmokeEvent | None = None


@dataclass(frozen=True)
class Target:
    """A stage that can be asked for previews."""

    project: Path
    stage: str

    @property
    def is_here(self) -> bool:
        """Whether it is the dev stage on this machine."""
        return runs_here(self.project)

    def settings(self) -> Settings:
        """What its file says.

        Raises:
            BadInput: it holds a mistake, or the stage has no previews.
        """
        return read_stage_file(stage_file(self.project, self.stage))

    def config(self) -> Mapping[str, Any]:
        """The clouds' settings of its file, which its previews share."""
        document = yaml.safe_load(stage_file(self.project, self.stage).read_text(encoding="utf-8"))
        return {
            key: value
            for key, value in document["config"].items()
            # A secret of the file is encrypted for the stage's own stack.
            if key.partition(":")[0] in {"aws", "gcp", "kubernetes"} and not isinstance(value, dict)
        }

    def outputs(self) -> StackOutputs:
        """What it exports.

        Raises:
            CheckFailed: it was never deployed.
            Unreachable: the engine can't reach its state.
        """
        return load_outputs() if self.is_here else read_outputs(self.stage, self.project)

    def reachable(self, text: str) -> str:
        """``text`` with names of the stage's Services as this machine reaches them."""
        return replace_service_names(text, self.project) if self.is_here else text


def find_target(stage: str, directory: Path) -> Target:
    """The stage ``stage`` of the checkout that ``directory`` or its service's template lies in.

    Raises:
        BadInput: there is no checkout or no such stage, or it is prod.
        Unreachable: it is to run on this machine and does not.
    """
    # Where this is called comes first: a service's folder may be somebody else's, and the program is the
    # checkout's.
    project = locate_project() or locate_project(directory) or _platform_of(directory)
    if project is None:
        msg = (
            f"{directory}: no checkout of the platform here or above, nor its template in one; call it there"
        )
        raise BadInput(msg)
    if stage.partition("-")[0] == "prod":
        msg = f"--stage {stage}: prod has no previews; use dev or stage"
        raise BadInput(msg)
    stage_file(project, stage)
    adopt_environment(project)
    target = Target(project, stage)
    if "PULUMI_BACKEND_URL" not in os.environ and "PULUMI_ACCESS_TOKEN" not in os.environ and stage == "dev":
        msg = f"stage {stage}: does not run on this machine: kilo up (or, on the clouds, pulumi login)"
        raise Unreachable(msg)
    if target.is_here:
        if stage != "dev":
            msg = (
                f"--stage {stage}: this machine runs dev alone; use dev, or pulumi login to the stage's state"
            )
            raise BadInput(msg)
        _answers(os.environ.get("KILO_SANDBOX", ""))
    return target


def _answers(url: str) -> None:
    """Raise when the sandbox is away: one that was killed leaves its variables behind."""
    try:
        httpx.get(f"{url}/version", timeout=5)
    except httpx.HTTPError as error:
        msg = f"stage dev: its sandbox at {urlsplit(url).netloc or 'no address'} does not answer: kilo up"
        raise Unreachable(msg) from error


def _platform_of(directory: Path) -> Path | None:
    """The checkout from whose template a service was made, where it is one on this machine."""
    if not (directory / ANSWERS).is_file():
        return None
    source = Path(str(load(directory).answers["_src_path"]))
    return source if (source / "Pulumi.yaml").is_file() else None


def find_service(directory: Path) -> Service:
    """The service in ``directory``.

    Raises:
        BadInput: there is none, or its name is one of the preview's own workloads.
    """
    if not (directory / ANSWERS).is_file():
        msg = (
            f"{directory.resolve()}: no service here (no {ANSWERS}); change into its folder or name it: "
            "kilo preview up --pr 12 FOLDER, make preview PR=12 SERVICE=FOLDER"
        )
        raise BadInput(msg)
    service = load(directory.resolve())
    if service.name in RESERVED:
        msg = f"{ANSWERS}: name: {service.name}: a preview has a workload of this name itself"
        raise BadInput(msg)
    return service


class _Loader(yaml.SafeLoader):
    """YAML without aliases: what is small in the file stays small."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            msg = "an alias"
            raise yaml.YAMLError(msg)
        return super().compose_node(parent, index)


def read_smoke(service: Service) -> Smoke | None:
    """``deploy/smoke.yaml``, where there is one.

    Raises:
        BadInput: it holds a mistake.
    """
    path = service.directory / "deploy" / "smoke.yaml"
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > _LARGEST_SMOKE:
            msg = f"{path}: {len(text):,} characters; a smoke test has at most {_LARGEST_SMOKE:,}"
            raise BadInput(msg)
        found = yaml.load(text, _Loader) or {}  # noqa: S506 - it is a safe one
        json.dumps(found, allow_nan=False)
        return Smoke.model_validate(found)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        msg = f"{path}: can't be read as YAML without aliases ({type(error).__name__})"
        raise BadInput(msg) from error
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        msg = f"{path}: {'.'.join(str(part) for part in wrong['loc'])}: {wrong['msg']}"
        raise BadInput(msg) from error
    except (TypeError, ValueError) as error:
        msg = f"{path}: holds a value that JSON has not, such as a date; put it between quotes"
        raise BadInput(msg) from error


def read_seed(service: Service) -> str | None:
    """``deploy/seed.sql``, where there is one.

    Raises:
        BadInput: it can't be read, or a ConfigMap has no room for it.
    """
    path = service.directory / "deploy" / "seed.sql"
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: can't be read as text ({type(error).__name__})"
        raise BadInput(msg) from error
    if len(text.encode()) > 500_000:
        msg = f"{path}: {len(text.encode()):,} bytes; a preview's seed has at most 500,000"
        raise BadInput(msg)
    return text or None


def parse_lifetime(text: str) -> timedelta:
    """A length of time such as 90m, 8h or 3d.

    Raises:
        BadInput: it is none, or longer than 30 days.
    """
    match = _DURATION.fullmatch(text)
    found = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if found is None or found > _LONGEST:
        msg = f"--lifetime {text[:40]!r}: no length of time of at most 30 days; use 90m, 8h or 3d"
        raise BadInput(msg)
    return found
