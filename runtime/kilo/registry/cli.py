"""``kilo registry``: copy, compare and keep mirrored."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kilo.errors import CheckFailed, Unreachable
from kilo.registry.client import Names, Registries
from kilo.registry.drift import Comparison, Kind, compare, unreadable_repository
from kilo.registry.errors import Unreadable
from kilo.registry.options import CertificateIdentity, CertificateIssuer, SignedBy, TrustedRootFile
from kilo.registry.reference import Reference
from kilo.registry.sync import Policy, Synchronizer, TagResult

if TYPE_CHECKING:
    from kilo.registry.signers import Signers

app = typer.Typer(help="Mirror images and prove that both registries agree.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
_Tags = Annotated[
    str, typer.Option("--tags", metavar="PATTERN", help="Only tags that match, such as 'v1.*'.")
]
_Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Images under way at once.")]
_Repositories = Annotated[
    list[str] | None,
    typer.Option(
        "--repository",
        "-r",
        metavar="NAME",
        help="A repository below both; again for more, '*' for every one.",
    ),
]
_PATIENCE_SECONDS = 30.0
_REPAIRABLE = frozenset({Kind.DRIFT, Kind.MISSING, Kind.MISSING_ATTESTATION})
_DIFFERENT = _REPAIRABLE | {Kind.UNREADABLE}


@app.command(
    epilog="Examples: kilo registry sync 127.0.0.1:5000/app 127.0.0.1:5001/app --tags 'v2.*' · "
    "kilo registry sync ghcr.io/org eu.example.com/org -r api -r worker · "
    "kilo registry sync ghcr.io/org/app eu.example.com/org/app --signed-by cosign.pub"
)
def sync(
    source: Annotated[str, typer.Argument(help="HOST/REPOSITORY[:TAG|@DIGEST], or a prefix with -r.")],
    destination: Annotated[str, typer.Argument(help="Where it goes, in the same form.")],
    *,
    repository: _Repositories = None,
    tags: _Tags = "*",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be copied.")] = False,
    signed_by: SignedBy = None,
    certificate_identity: CertificateIdentity = None,
    certificate_oidc_issuer: CertificateIssuer = None,
    trusted_root: TrustedRootFile = None,
    jobs: _Jobs = 8,
    as_json: _Json = False,
) -> None:
    """Copy images whole: every platform, signature, SBOM and attestation; tags last.

    With a key or an identity, images that it did not sign are quarantined: reported, not copied.
    """
    signers = None
    if signed_by or certificate_identity or certificate_oidc_issuer:
        from kilo.registry.signers import Signers  # noqa: PLC0415 - doubles the time to start

        signers = Signers.of_files(
            signed_by or [], certificate_identity, certificate_oidc_issuer, trusted_root
        )
    with _interactive(jobs, signers) as synchronizer:
        pairs, unreadable = _pairs(synchronizer.registries, source, destination, repository)
        results = [TagResult(source, "*", "", "failed", error=error) for error in unreadable]
        one_by_one = synchronizer.sync_repository if repository else synchronizer.sync
        with _progress(as_json) as show:
            for here, there in pairs:
                show(f"copying {here}")
                results += one_by_one(
                    here,
                    there,
                    pattern=tags,
                    dry_run=dry_run,
                    progress=lambda result: show(f"{result.outcome} {result.repository}:{result.name}"),
                )
    _print_results(results, as_json=as_json)
    _raise_for_results(results)


@app.command(
    epilog="Example: kilo registry diff ghcr.io/org/app eu.example.com/org/app --repair · "
    "exit code 1: they differ, 3: a side could not be reached"
)
def diff(
    source: Annotated[str, typer.Argument(help="HOST/REPOSITORY[:TAG], or a prefix with -r.")],
    destination: Annotated[str, typer.Argument(help="The side that should equal it.")],
    *,
    repository: _Repositories = None,
    tags: _Tags = "*",
    repair: Annotated[bool, typer.Option("--repair", help="Copy what differs, then compare again.")] = False,
    jobs: _Jobs = 8,
    as_json: _Json = False,
) -> None:
    """Compare both sides graph by graph, down to the blobs; name every difference."""
    comparisons: list[Comparison] = []
    repairs: list[TagResult] = []
    with _interactive(jobs) as synchronizer, _progress(as_json) as show:
        pairs, unreadable = _pairs(synchronizer.registries, source, destination, repository)
        comparisons += [unreadable_repository(Reference.parse(source), error) for error in unreadable]
        for here, there in pairs:
            show(f"comparing {here}")
            comparison = compare(synchronizer.registries, here, there, pattern=tags, jobs=jobs)
            wrong = sorted({found.tag for found in comparison.findings if found.kind in _REPAIRABLE})
            if repair and wrong:
                repairs += [
                    result
                    for tag in wrong
                    for result in synchronizer.sync(_tagged(here, tag), _tagged(there, tag), deep=True)
                ]
                comparison = compare(synchronizer.registries, here, there, pattern=tags, jobs=jobs)
            comparisons.append(comparison)
    findings = [finding for comparison in comparisons for finding in comparison.findings]
    if as_json:
        document = {
            "compared": {comparison.repository: comparison.tags for comparison in comparisons},
            "findings": [finding.document() for finding in findings],
            "repairs": [result.document() for result in repairs],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        from kilo.registry.report import show_comparisons  # noqa: PLC0415 - see _print_results

        if repairs:
            _print_results(repairs, as_json=False)
        show_comparisons(comparisons)
    _raise_for_comparisons(comparisons)


@app.command(epilog="Example: kilo registry sweep")
def sweep(jobs: _Jobs = 8, as_json: _Json = False) -> None:
    """Copy all that the secondary registry lacks, down to the blobs: every repository of the stage.

    What the stage's signers did not sign is quarantined, and the exit code is 1.
    """
    from kilo.contract import load_outputs  # noqa: PLC0415 - what only some commands need is imported there
    from kilo.registry.mirror import Sides  # noqa: PLC0415
    from kilo.registry.signers import Signers  # noqa: PLC0415

    outputs = load_outputs().registries
    sides = Sides(outputs)
    results: list[TagResult] = []
    policy = _policy(Signers.of_outputs(outputs.signers))
    with Synchronizer(jobs=jobs, policy=policy, move_tags=False) as synchronizer:
        for name in sides.repositories:
            results += synchronizer.sync_repository(*sides.pair(name), deep=True, may_be_missing=True)
    _print_results(results, as_json=as_json)
    _raise_for_results(results)


@app.command(epilog="Example: KILO_OUTPUTS=outputs.json kilo registry mirror --port 10084")
def mirror(
    port: Annotated[int, typer.Option(help="Where health and metrics are served.")] = 10084,
    compare_every: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How often both registries are compared.")
    ] = 300,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Pushes under way at once.")] = 4,
) -> None:
    """Mirror pushes as they happen, from the queue of the stage's outputs, until told to stop.

    What the stage's signers did not sign is quarantined: reported, not copied, and tried again.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415

    from kilo.contract import load_outputs  # noqa: PLC0415
    from kilo.environment import bind_address  # noqa: PLC0415
    from kilo.health import HealthServer  # noqa: PLC0415
    from kilo.registry.mirror import Mirror, MirrorMetrics  # noqa: PLC0415
    from kilo.registry.signers import Signers  # noqa: PLC0415
    from kilo.registry.watch import Watch  # noqa: PLC0415
    from kilo.service import log_start  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    outputs = load_outputs().registries
    log_start(
        "mirror",
        {
            "listens on": f"{bind_address()}:{port}",
            "primary": outputs.primary.url,
            "secondary": outputs.secondary.url,
            "queue": outputs.push_queue_url,
        },
        {"pushes at once": jobs, "seconds between comparisons": compare_every},
    )
    metrics_registry = CollectorRegistry()
    # Rules tell what a new process was born with by when it started.
    ProcessCollector(registry=metrics_registry)
    instruments = MirrorMetrics(metrics_registry, outputs.repositories)
    policy = _policy(Signers.of_outputs(outputs.signers))
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with Synchronizer(jobs=jobs, policy=policy, move_tags=False) as synchronizer:
        worker = Mirror(outputs, synchronizer, instruments, jobs=jobs)
        watch = Watch(outputs, instruments, policy)
        comparing = threading.Thread(
            target=watch.run, args=(compare_every, stopping), name="comparison", daemon=True
        )
        comparing.start()
        with HealthServer(port, metrics_registry, lambda: worker.ready and comparing.is_alive()):
            worker.run(stopping)


def _pairs(
    registries: Registries, source: str, destination: str, names: Sequence[str] | None
) -> tuple[list[tuple[Reference, Reference]], tuple[Unreadable, ...]]:
    """The repositories to take in turn, and entries of the registry's list that are no names."""
    here, there = Reference.parse(source), Reference.parse(destination)
    if not names:
        return [(here, there)], ()
    listed = registries.catalog(here) if "*" in names else Names(frozenset(names))
    pairs = [
        (Reference.parse(f"{here.name}/{name}"), Reference.parse(f"{there.name}/{name}"))
        for name in sorted(listed.names)
    ]
    return pairs, listed.unreadable


def _policy(signers: Signers) -> Policy | None:
    if not signers:
        return None
    from kilo.registry.signatures import SignaturePolicy  # noqa: PLC0415

    return SignaturePolicy(signers)


def _interactive(jobs: int, signers: Signers | None = None) -> Synchronizer:
    """With less patience than the workers have: somebody waits."""
    return Synchronizer(
        jobs=jobs,
        policy=_policy(signers) if signers else None,
        registries=Registries(connections=jobs + 2, patience_seconds=_PATIENCE_SECONDS),
    )


def _tagged(repository: Reference, tag: str) -> Reference:
    return Reference(repository.host, repository.repository, tag)


@contextmanager
def _progress(quiet: bool) -> Generator[Callable[[str], None]]:
    """Show what is under way to whoever watches a terminal; the callable takes the text."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - see _print_results
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)


def _print_results(results: Sequence[TagResult], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([result.document() for result in results], indent=2))
        return
    # Rich takes a tenth of the time to start, which a script that asks for JSON need not pay.
    from kilo.registry.report import show_results  # noqa: PLC0415

    show_results(results)


def _raise_for_results(results: Sequence[TagResult]) -> None:
    failed = [error for result in results if (error := result.first_error) is not None]
    if failed:
        first = failed[0]
        unreachable = all(isinstance(error, Unreachable) for error in failed)
        error: Any = Unreachable if unreachable else CheckFailed
        msg = f"{len(failed)} of {len(results)} not mirrored whole; the first: {first}"
        raise error(msg)


def _raise_for_comparisons(comparisons: Sequence[Comparison]) -> None:
    kinds = {finding.kind for comparison in comparisons for finding in comparison.findings}
    if kinds & _DIFFERENT:
        msg = "the registries differ" if kinds & _REPAIRABLE else "not all of it could be read"
        raise CheckFailed(msg)
    if Kind.UNREACHABLE in kinds:
        msg = "a registry could not be reached, so not everything was compared"
        raise Unreachable(msg)
