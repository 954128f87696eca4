"""``kilo preview up | down | list | logs | extend | open | collect``."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from infra.previews.checks import Check, Checks, unreached
from infra.previews.engine import Engine, Found, NotCarriedOut
from infra.previews.image import check_reference, forget_images, make_image
from infra.previews.logs import print_logs
from infra.previews.make import describe
from infra.previews.report import Report, removed_markdown
from infra.previews.request import MOST_PULL_REQUEST, find_service, find_target, parse_lifetime, read_smoke
from infra.previews.settings import TENANT, PreviewSettings
from infra.previews.signature import check_origin
from kilo.errors import BadInput, CheckFailed, ExitCode
from kilo.goals.previews import keep_preview
from kilo.registry.options import CertificateIdentity, CertificateIssuer, SignedBy, TrustedRootFile
from kilo.registry.signers import Signers
from kilo.tables import print_table

app = typer.Typer(no_args_is_help=True, help="Pull requests' services, each in an environment of its own.")

_WORKERS = 2
_FORGOTTEN = timedelta(hours=1)

PrOption = Annotated[
    int, typer.Option("--pr", min=1, max=MOST_PULL_REQUEST, help="The pull request's number.")
]
StageOption = Annotated[str, typer.Option("--stage", "-s", help="The stage that has the preview.")]
ServiceArgument = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The service's folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MarkdownOption = Annotated[
    Path | None, typer.Option(help="Also write it into this file, as a comment for the pull request.")
]


@app.command(
    epilog="Examples: kilo preview up --pr 12 · kilo preview up --pr 12 ../orders --lifetime 8h --json · "
    "kilo preview up --pr 12 --stage stage --image registry.example.com/orders@sha256:…"
)
def up(
    pr: PrOption,
    folder: ServiceArgument = Path(),
    *,
    stage: StageOption = "dev",
    lifetime: Annotated[
        str | None, typer.Option(help="How long it stands: 90m, 8h, 3d; the stage says how long otherwise.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="An image that is there, instead of building one.")
    ] = None,
    signed_by: SignedBy = None,
    certificate_identity: CertificateIdentity = None,
    certificate_oidc_issuer: CertificateIssuer = None,
    trusted_root: TrustedRootFile = None,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the service up in an environment of this pull request's own, and try whether it works.

    Namespace, database, bus and gateway are its own; the service's migrations and deploy/seed.sql make its
    tables, deploy/smoke.yaml says how it is tried. Again, it becomes what the sources are then; what an
    interruption left half made is finished. Exits with 1 when a check is red.
    """
    began = time.monotonic()
    service = find_service(folder)
    target = find_target(stage, folder.resolve())
    length = parse_lifetime(lifetime) if lifetime else None
    given = check_reference(image) if image else None
    origin = check_origin(
        given,
        Signers.of_files(signed_by or [], certificate_identity, certificate_oidc_issuer, trusted_root),
    )
    smoke = read_smoke(service)
    engine = Engine(target)
    name = f"pr-{pr}-{service.name}"
    with engine.turn(name):
        reference = given or make_image(service, target, name, pr)
        settings = describe(target, service, pr, reference, length)
        _say(f"{name}: namespace {settings.namespace}, until {settings.expires}")
        started = time.monotonic()
        try:
            engine.up(settings)
        except NotCarriedOut as error:
            failed = Check("rollout", "red", time.monotonic() - started, error.reasons[0][:160])
            _say("\n".join(f"  {reason}" for reason in error.reasons))
            checks = [failed, *unreached("the rollout failed")]
            _finish(
                Report(settings, "", checks, time.monotonic() - began),
                target.project,
                markdown,
                as_json=as_json,
            )
        took = time.monotonic() - started
        forget_images(name, target.project, but=reference)
        found = engine.find(name)
        if found is None:
            msg = f"{name}: went away while it was tried"
            raise CheckFailed(msg)
        detail = f"{found.resources} resources, every workload ready"
        checks = [
            Check("rollout", "green", took, detail),
            *Checks(target, settings, found, smoke, origin).run(),
        ]
    report = Report(settings, target.reachable(found.address), checks, time.monotonic() - began)
    _finish(report, target.project, markdown, as_json=as_json)


@app.command(epilog="Examples: kilo preview down --pr 12 · kilo preview down --pr 12 --service orders")
def down(
    pr: PrOption,
    folder: ServiceArgument = Path(),
    *,
    stage: StageOption = "dev",
    service: Annotated[
        str | None, typer.Option(help="The service's name, where its folder is not at hand.")
    ] = None,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the preview of a pull request; nothing of it is left. One that is not there is fine."""
    name = f"pr-{pr}-{service or find_service(folder).name}"
    target = find_target(stage, folder.resolve())
    removed = _remove(Engine(target), name, target.project)
    if markdown:
        _write(markdown, removed_markdown(name))
    if as_json:
        typer.echo(json.dumps({"preview": name, "removed": removed}))
    else:
        typer.echo(f"{name}: {'removed' if removed else 'is not there; nothing to remove'}")


def _remove(engine: Engine, name: str, project: Path) -> bool:
    with engine.turn(name):
        existed = engine.destroy(name)
        forget_images(name, project)
    return existed


@app.command("list", epilog="Example: kilo preview list --json | jq '.[].address'")
def list_(stage: StageOption = "dev", as_json: JsonOption = False) -> None:
    """List the previews of a stage: whose, until when, where."""
    target = find_target(stage, Path.cwd())
    found = _all(Engine(target))
    if as_json:
        typer.echo(json.dumps([_document(each, target.reachable(each.address)) for each in found], indent=2))
        return
    if not found:
        typer.echo(f"stage {stage} has no previews", err=True)
        return
    rows = [
        (
            each.name,
            each.settings.service if each.settings else "?",
            "up" if each.settings else "half made",
            _left(each.expires_at),
            target.reachable(each.address) or "-",
        )
        for each in found
    ]
    print_table(("preview", "service", "state", "ends in", "address"), rows)


def _all(engine: Engine) -> list[Found]:
    with ThreadPoolExecutor(_WORKERS) as pool:
        return [found for found in pool.map(engine.find, engine.names()) if found]


def _document(found: Found, address: str) -> dict[str, object]:
    settings = found.settings
    return {
        "preview": found.name,
        "service": settings.service if settings else None,
        "pull_request": settings.pull_request if settings else None,
        "state": "up" if settings else "half made",
        "expires_at": found.expires_at.isoformat() if found.expires_at else None,
        "address": address or None,
        "image": settings.image if settings else None,
    }


@app.command(
    epilog="Examples: kilo preview logs --pr 12 · kilo preview logs --pr 12 outbox-worker --service orders"
)
def logs(
    pr: PrOption,
    workload: Annotated[
        str | None, typer.Argument(help="A workload of the preview; the service itself unless said.")
    ] = None,
    *,
    stage: StageOption = "dev",
    service: Annotated[str | None, typer.Option(help="The service's name; of the current folder.")] = None,
    lines: Annotated[int, typer.Option("--tail", "-n", min=0, help="How many of the last lines.")] = 100,
) -> None:
    """Show what a workload of a preview wrote."""
    named = service or find_service(Path()).name
    target = find_target(stage, Path.cwd())
    print_logs(target, f"pr-{pr}-{named}", workload or named, lines)


@app.command(epilog="Example: kilo preview extend --pr 12 --lifetime 3d")
def extend(
    pr: PrOption,
    folder: ServiceArgument = Path(),
    *,
    lifetime: Annotated[str, typer.Option(help="From now: 90m, 8h, 3d.")],
    stage: StageOption = "dev",
    service: Annotated[
        str | None, typer.Option(help="The service's name; of the folder unless said.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let a preview stand for longer, or for less long, from now on."""
    name = f"pr-{pr}-{service or find_service(folder).name}"
    length = parse_lifetime(lifetime)
    target = find_target(stage, folder.resolve())
    engine = Engine(target)
    with engine.turn(name):
        settings = _whole(engine, name)
        later = settings.model_copy(update={"expires_at": datetime.now(UTC) + length})
        engine.up(later)
    if as_json:
        typer.echo(json.dumps({"preview": name, "expires_at": later.expires}))
    else:
        typer.echo(f"{name}: until {later.expires}")


@app.command("open", epilog='Example: curl "$(kilo preview open --pr 12 --json | jq -r .address)/v1/items/1"')
def open_(
    pr: PrOption,
    folder: ServiceArgument = Path(),
    *,
    stage: StageOption = "dev",
    service: Annotated[
        str | None, typer.Option(help="The service's name; of the folder unless said.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser", help="Open the address in a browser, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say how a preview is reached: its address, and a request to begin with."""
    name = f"pr-{pr}-{service or find_service(folder).name}"
    target = find_target(stage, folder.resolve())
    engine = Engine(target)
    settings = _whole(engine, name)
    found = engine.find(name)
    if found is None or not found.address:
        msg = f"{name}: a {settings.kind} answers no requests; kilo preview logs --pr {pr} shows what it does"
        raise BadInput(msg)
    address = target.reachable(found.address)
    header = f"{settings.tenant_header}: {TENANT}"
    if as_json:
        typer.echo(json.dumps({"preview": name, "address": address, "header": header}))
        return
    path = next((each["path"] for each in settings.smoke if each["method"] == "GET"), "/v1/")
    typer.echo(f"{address}\ncurl -i '{address}{path}' -H '{header}'")
    if browser:
        typer.launch(address)


def _whole(engine: Engine, name: str) -> PreviewSettings:
    found = engine.find(name)
    if found is None:
        msg = f"{name}: there is no such preview; kilo preview list shows those that there are"
        raise BadInput(msg)
    if found.settings is None:
        msg = f"{name}: its making was interrupted; kilo preview up finishes it, kilo preview down removes it"
        raise CheckFailed(msg)
    return found.settings


@app.command(epilog="Example: kilo preview collect --stage dev --json")
def collect(stage: StageOption = "dev", as_json: JsonOption = False) -> None:
    """Remove the previews whose time is over, and what is left of those that never came to be.

    The sandbox calls it for its own; elsewhere a workflow does, by the hour.
    """
    target = find_target(stage, Path.cwd())
    engine = Engine(target)
    removed: list[str] = []
    kept: list[str] = []
    for found in _all(engine):
        if not _is_over(found, engine.folder(found.name)):
            continue
        try:
            _remove(engine, found.name, target.project)
        except NotCarriedOut as error:
            kept.append(f"{found.name}: {error.reasons[0]}")
        else:
            removed.append(found.name)
    if as_json:
        typer.echo(json.dumps({"removed": removed, "kept": kept}))
    else:
        typer.echo("\n".join(f"{name}: removed, its time was over" for name in removed) or "nothing is over")
    if kept:
        raise CheckFailed("\n".join(kept))


def _is_over(found: Found, folder: Path) -> bool:
    if found.expires_at is not None:
        return found.expires_at <= datetime.now(UTC)
    # Interrupted before its namespace was there: nobody knows until when. Somebody may be at it just now.
    try:
        return datetime.now(UTC).timestamp() - folder.stat().st_mtime > _FORGOTTEN.total_seconds()
    except OSError:
        return True


def _finish(report: Report, project: Path, markdown: Path | None, *, as_json: bool) -> None:
    """Keep the record and say it in each way that was asked for; exits with 1 when a check is red."""
    keep_preview(project / ".kilo" / "previews", report.document())
    if markdown:
        _write(markdown, report.markdown())
    if as_json:
        typer.echo(json.dumps(report.document(), indent=2))
    else:
        report.print()
    if not report.is_green:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"--markdown {path}: can't be written ({error.strerror})"
        raise BadInput(msg) from error


def _left(until: datetime | None) -> str:
    if until is None:
        return "?"
    minutes = int((until - datetime.now(UTC)).total_seconds() // 60)
    if minutes < 0:
        return "over"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 2_880 else f"{minutes // 1_440} d"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
