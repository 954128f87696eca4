"""``kilo svc new | update | check | list | chart``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from kilo.errors import BadInput, ExitCode
from kilo.scaffold.paved_road import Result, score
from kilo.scaffold.template import ANSWERS, Service, check_name, create, default_template, git, load
from kilo.scaffold.updating import update
from kilo.tables import print_table

app = typer.Typer(no_args_is_help=True, help="Services on the paved road.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RefOption = Annotated[str | None, typer.Option(help="A version (tag or commit) of the template.")]
_MOST_DEEP = 4


@app.command(
    epilog="Examples: kilo svc new orders · kilo svc new bill-mailer --kind consumer --into ../bill-mailer"
)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The service's name, a DNS label.")],
    *,
    kind: Annotated[
        Literal["http", "consumer", "job"] | None, typer.Option(help="What it does: http unless said.")
    ] = None,
    database: Annotated[
        bool | None, typer.Option("--database/--no-database", help="Keeps data in PostgreSQL.")
    ] = None,
    outbox: Annotated[bool | None, typer.Option("--outbox/--no-outbox", help="Announces events.")] = None,
    encrypted: Annotated[
        bool | None, typer.Option("--encrypted/--no-encrypted", help="Keeps personal data.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="When a job runs: cron, in UTC.")] = None,
    team: Annotated[str | None, typer.Option(help="Who answers when it pages.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for, in one sentence.")] = None,
    into: Annotated[Path | None, typer.Option(help="Where it will lie: ./NAME unless said.")] = None,
    template: Annotated[
        str | None, typer.Option(help="The platform's repository: a git URL or path; of a checkout that one.")
    ] = None,
    ref: RefOption = None,
    ask: Annotated[
        bool | None, typer.Option("--ask/--no-ask", help="Ask what is not given; at a terminal unless said.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Say which files would be made, and make none.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a service from the template, with tests that pass, an image, a chart's values and a workflow."""
    check_name(name)
    given = {
        "kind": kind,
        "database": database,
        "outbox": outbox,
        "encrypted": encrypted,
        "schedule": schedule,
        "team": team,
        "description": description,
    }
    answers = {key: value for key, value in given.items() if value is not None}
    _check_together(answers)
    asks = sys.stdin.isatty() and not as_json if ask is None else ask
    source = template or default_template()
    target = (into or Path(name)).absolute()
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            made = create(name, Path(scratch) / name, answers, source, ref, ask=asks)
            _report_new(made, _files(made.directory), as_json=as_json, at=target, would="would make ")
        return
    made = create(name, target, answers, source, ref, ask=asks)
    files = _files(made.directory)
    if git(target, "rev-parse", "--is-inside-work-tree").strip() != "true":
        git(target, "init", "--quiet", "--initial-branch", "main")
    _report_new(made, files, as_json=as_json, at=target, would="")


@app.command(
    "update", epilog="Examples: kilo svc update · kilo svc update ../orders --ref v0.2.0 --encrypted"
)
def update_command(
    directory: Annotated[Path, typer.Argument(help="The service.")] = Path(),
    *,
    encrypted: Annotated[
        bool | None, typer.Option("--encrypted/--no-encrypted", help="Answer this anew.")
    ] = None,
    outbox: Annotated[bool | None, typer.Option("--outbox/--no-outbox", help="Answer this anew.")] = None,
    template: Annotated[
        str | None, typer.Option(help="What the answers name, if it is not what the service was made from.")
    ] = None,
    ref: RefOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a service to a newer template by a three-way merge; its own changes are kept.

    Exits 1 when both changed the same; the files then have markers, as after git merge. What fails or is
    interrupted is taken back.
    """
    service = load(directory)
    answers = {
        key: value for key, value in {"encrypted": encrypted, "outbox": outbox}.items() if value is not None
    }
    done = update(service, ref, answers, template)
    after = load(directory)
    if as_json:
        found = {"name": after.name, "from": service.version, "to": after.version}
        typer.echo(json.dumps({**found, "changed": done.changed, "left_out": done.left_out}))
    elif not done.changed:
        typer.echo(f"{after.name} is at {after.version} already")
    else:
        typer.echo(f"{after.name}: {service.version} to {after.version}, {len(done.changed)} files changed")
        for name in done.left_out:
            typer.echo(f"left out: what the template changed in {name}, which the service has not")
        typer.echo("look at them with git diff, run make test, and commit")


@app.command(epilog="Examples: kilo svc check · kilo svc check ../orders ../bills --metrics adoption.prom")
def check(
    directories: Annotated[
        list[Path] | None, typer.Argument(help="Services; the current one unless said.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Write the scores for Prometheus' node exporter into this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold services against the paved road; exits 1 when one is off it."""
    services = [load(each) for each in directories or [Path()]]
    results = {service.name: score(service, _newest(service)) for service in services}
    if metrics is not None:
        _write_metrics(metrics, services, results)
    if as_json:
        rows = [
            {"service": name, "check": each.check, "passed": each.passed, "repair": each.repair}
            for name, found in results.items()
            for each in found
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        for name, found in results.items():
            passed = sum(each.passed for each in found)
            typer.echo(f"{name}: {passed} of {len(found)}")
            for each in found:
                typer.echo(f"  {'ok    ' if each.passed else 'failed'}  {each.check}")
                if each.repair:
                    typer.echo(f"          {each.repair}")
    if not all(each.passed for found in results.values() for each in found):
        raise typer.Exit(ExitCode.CHECK_FAILED)


@app.command("list", epilog="Example: kilo svc list ..")
def list_(
    root: Annotated[Path, typer.Argument(help="Where to look, some folders deep.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """List the services under a folder, and how far each is on the paved road."""
    if not root.is_dir():
        msg = f"{root}: no such directory"
        raise BadInput(msg)
    services = sorted((load(each) for each in _found(root, _MOST_DEEP)), key=lambda each: each.name)
    rows = [(each, score(each, _newest(each))) for each in services]
    if as_json:
        document = [
            {
                "name": each.name,
                "kind": each.answers["kind"],
                "template": each.version,
                "directory": str(each.directory),
                "passed": sum(result.passed for result in results),
                "checks": len(results),
            }
            for each, results in rows
        ]
        typer.echo(json.dumps(document, indent=2))
        return
    if not rows:
        typer.echo(f"no service under {root}; kilo svc new makes one")
        return
    print_table(
        ("service", "kind", "template", "paved road", "directory"),
        [
            (
                each.name,
                each.answers["kind"],
                each.version,
                f"{sum(result.passed for result in results)} of {len(results)}",
                each.directory,
            )
            for each, results in rows
        ],
    )


@app.command(epilog="Examples: kilo svc chart --dry-run · KILO_OUTPUTS=outputs.json kilo svc chart --json")
def chart(
    directory: Annotated[
        Path | None, typer.Argument(help="The chart: charts/service of the checkout unless said.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option(help="Pack it, say its digest, and ask no registry.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish the paved road's chart to the stage's registry, from which helm and the mirror take it.

    A version is published once: the same files again change nothing, others are refused.
    """
    from kilo.contract import load_outputs  # noqa: PLC0415 - what only this command needs
    from kilo.scaffold.chart import pack, publish  # noqa: PLC0415

    packed = pack(directory or Path(default_template()) / "charts" / "service")
    digest = packed.manifest().digest
    if dry_run:
        found = {"name": packed.name, "version": packed.version, "digest": digest, "dry_run": True}
        line = f"{packed.name} {packed.version} would be {digest}"
    else:
        done = publish(packed, load_outputs().registries)
        found = {"name": packed.name, "version": packed.version, "digest": digest}
        found |= {"chart": done.chart, "pushed": done.pushed, "signed": done.signed}
        line = done.chart if done.pushed else f"{done.chart} was there already"
        if not done.signed:
            typer.echo(
                f"not signed yet: cosign sign {done.chart.replace(f':{packed.version}@', '@')}", err=True
            )
    typer.echo(json.dumps(found) if as_json else line)


def _check_together(answers: Mapping[str, object]) -> None:
    """Refuse what can't be together rather than overlook it.

    Raises:
        BadInput: two options don't go together.
    """
    kind = answers.get("kind", "http")
    refused = {
        "--no-database with --kind consumer: its inbox lies in the database": kind == "consumer"
        and answers.get("database") is False,
        "--outbox with --no-database: events are written in the transaction of a change": bool(
            answers.get("outbox")
        )
        and answers.get("database") is False,
        f"--encrypted with --kind {kind}: the template has encrypted fields for http alone": bool(
            answers.get("encrypted")
        )
        and kind != "http",
        "--encrypted with --no-database: there is nothing to encrypt": bool(answers.get("encrypted"))
        and answers.get("database") is False,
        f"--schedule with --kind {kind}: only a job has one": "schedule" in answers and kind != "job",
    }
    for reason, applies in refused.items():
        if applies:
            raise BadInput(reason)


def _report_new(made: Service, files: Sequence[str], *, as_json: bool, at: Path, would: str) -> None:
    if as_json:
        document = {"name": made.name, "directory": str(at), "template": made.version, "files": files}
        typer.echo(json.dumps({**document, "dry_run": bool(would)}, indent=2))
        return
    if would:
        typer.echo(f"{would}{len(files)} files in {at}:")
        for each in files:
            typer.echo(f"  {each}")
        return
    typer.echo(f"{made.name} is in {at}: {len(files)} files, from the template {made.version}. Next:")
    typer.echo(f"  cd {os.path.relpath(at)}")
    typer.echo("  make test    # its tests, on real servers")
    typer.echo("  make help    # the other verbs")


def _files(directory: Path) -> list[str]:
    return sorted(
        str(each.relative_to(directory))
        for each in directory.rglob("*")
        if each.is_file() and ".git" not in each.relative_to(directory).parts
    )


def _found(root: Path, depth: int) -> Iterator[Path]:
    if (root / ANSWERS).is_file():
        yield root
        return
    if depth:
        for each in sorted(root.iterdir()):
            if each.is_dir() and not each.is_symlink() and not each.name.startswith("."):
                yield from _found(each, depth - 1)


def _newest(service: Service) -> str | None:
    """The version of a template that lies on this machine; none of one elsewhere, since nobody is asked."""
    source = Path(str(service.answers["_src_path"]))
    if not source.is_dir():
        return None
    return git(source, "describe", "--tags", "--always").strip() or None


def _write_metrics(path: Path, services: Sequence[Service], results: dict[str, list[Result]]) -> None:
    """For the textfile collector: https://github.com/prometheus/node_exporter#textfile-collector."""
    lines = [
        "# HELP service_paved_road_ratio Checks of the paved road that a service passes, of all.",
        "# TYPE service_paved_road_ratio gauge",
    ]
    for service in services:
        found = results[service.name]
        ratio = sum(each.passed for each in found) / len(found)
        labels = f'service="{service.name}",kind="{service.answers["kind"]}",template="{service.version}"'
        lines.append(f"service_paved_road_ratio{{{labels}}} {ratio:.4f}")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.rename(path)
    except OSError as error:
        msg = f"--metrics {path}: can't be written ({error.strerror})"
        raise BadInput(msg) from error
