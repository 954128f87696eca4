"""The ``kilo`` command line: one entry, commands that are loaded when they are called.

Commands are entry points of the group ``kilo.commands``: a :class:`typer.Typer` becomes a group, a function
one command. Only the command that is called is imported, so that ``kilo --help`` is fast and the plain
install, which lacks the sandbox, still has a whole command line.
"""

from __future__ import annotations

import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, NamedTuple

import typer

from kilo.callers import refusal, role_hint
from kilo.errors import BadInput, ExitCode, KiloError, RoleDenied
from kilo.extras import MissingExtra, extra_of, requires
from kilo.host import adopt_environment

_EPILOG = (
    "Exit codes: 0 fine, 1 the check said no, 2 wrong use or bad input, 3 a component could not be reached. "
    "Completion for your shell: kilo --install-completion"
)
# EX_SOFTWARE of sysexits.h: none of the documented codes, so that no script takes a defect for an answer.
_DEFECT = 70
# SQLSTATE 42501, by which the driver's error is known without importing it.
_INSUFFICIENT_PRIVILEGE = "42501"
_INTERRUPTED = 130  # What shells report for a process that SIGINT ended.


class Help(NamedTuple):
    """What ``kilo --help`` says of a command without importing it."""

    panel: str
    summary: str


_SANDBOX, _STAGE, _EVENTS, _DATA = "The dev stage on this machine", "A stage", "Events", "Data and artifacts"

HELP = {
    "up": Help(_SANDBOX, "Bring the dev stage up and send events through it."),
    "down": Help(_SANDBOX, "Stop the dev stage; its data stays."),
    "status": Help(_SANDBOX, "Show the components: state, since, restarts, address."),
    "logs": Help(_SANDBOX, "Show the log of one component."),
    "env": Help(_SANDBOX, 'Print the environment for plain pulumi: eval "$(kilo env)".'),
    "doctor": Help(_SANDBOX, "Check what this machine needs and say what to install."),
    "toolchain": Help(_SANDBOX, "Build or download the sandbox's programs and say where they are."),
    "image": Help(_SANDBOX, "Build the platform's own image, without a container engine."),
    "tour": Help(_EVENTS, "Send events through the whole path, mirror an image, drill a backup."),
    "rehearse": Help(_EVENTS, "Serve a next version that fails for some tenants, to try ramps on."),
    "outputs": Help(_STAGE, "Print a stage's outputs as JSON, YAML or environment."),
    "check": Help(_STAGE, "Check the stages' files without the engine."),
    "tenant": Help(_STAGE, "Add, list and offboard the tenants of a stage."),
    "traffic": Help(_STAGE, "Ramp features, tenant by tenant, and take them back."),
    "graph": Help(_STAGE, "Draw a stage's processes and data from its program."),
    "preview-diff": Help(_STAGE, "Say what deploying this tree would change, the dangerous first."),
    "sampling": Help(_STAGE, "Show what of tenants' spans is kept, say why, allow key spans."),
    "alerts": Help(_STAGE, "Show what fires, since when, and the runbook that says what to do."),
    "goals": Help(_STAGE, "Show the sprint's goals with their live figures."),
    "risks": Help(_STAGE, "Check that the mitigations of the risk register are there."),
    "evidence": Help(_STAGE, "Build and verify the acceptance evidence of a stage."),
    "slo": Help(_STAGE, "Tenants' objectives: how they stand, in and out of OpenSLO."),
    "usage": Help(_STAGE, "What tenants use, by hour and day, and what it costs."),
    "dash": Help(_STAGE, "Serve the dashboards in a browser on this machine."),
    "preview": Help(_STAGE, "Bring a pull request's service up in an environment of its own."),
    "svc": Help(_STAGE, "Make services from the template, update and check them."),
    "gateway": Help(_STAGE, "Render and check the tenants' traffic rules."),
    "db": Help(_EVENTS, "Migrate the database."),
    "bus": Help(_EVENTS, "Declare and inspect the bus's streams."),
    "cdc": Help(_EVENTS, "Print change capture's configuration, and tell whether it moves."),
    "ingest": Help(_EVENTS, "Serve the HTTP entrance for events."),
    "outbox": Help(_EVENTS, "Run and inspect the outbox and its worker."),
    "consumer": Help(_EVENTS, "Run the idempotent consumer."),
    "dlq": Help(_EVENTS, "List, show, replay and prune dead letters."),
    "events": Help(_EVENTS, "Find events; check their schemas; AsyncAPI."),
    "trace": Help(_EVENTS, "Follow one event through every component."),
    "fle": Help(_DATA, "Field-level encryption: keys, rotation, audit."),
    "registry": Help(_DATA, "Mirror images and prove that both registries agree."),
    "promote": Help(_DATA, "Gates of promotions, and whether the same bits run everywhere."),
    "backup": Help(_DATA, "Take backups into both stores and drill the restore."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; no traceback is shown for a :class:`KiloError`."""
    given = _as_options(list(sys.argv[1:] if arguments is None else arguments))
    output = _duplicate_output()
    adopt_environment()
    try:
        answer = build(_called(given))(given, prog_name="kilo", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except SystemExit as ending:
        # Typer and Rich end so when any pipe breaks, that of a lost connection too.
        if not isinstance(ending.__context__, BrokenPipeError):
            raise
        if _reader_is_gone(output):
            return ExitCode.OK
        return _report(ending.__context__, given)
    except Exception as error:
        return _report(error, given)
    return answer if isinstance(answer, int) else ExitCode.OK


def build(called: str | None) -> typer.Typer:
    """The application with the called command loaded and only names and summaries of the others.

    Raises:
        BadInput: the called command needs an extra that is not installed, or a checkout of the platform.
    """
    app = typer.Typer(
        name="kilo",
        epilog=_EPILOG,
        no_args_is_help=True,
        context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    installed = {point.name: point for point in entry_points(group="kilo.commands")}
    if called in HELP and called not in installed:
        msg = (
            f"kilo {called} belongs to the platform, and this is the SDK alone: run it in a checkout of the "
            f"platform's repository (make environment, then .venv/bin/kilo {called})"
        )
        raise BadInput(msg)
    for name in [*(name for name in HELP if name in installed), *sorted(installed.keys() - HELP.keys())]:
        text = HELP.get(name, Help("Other", ""))
        if name != called:
            app.command(name, help=text.summary, rich_help_panel=text.panel)(_not_loaded)
            continue
        command = _load(installed[name])
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=text.panel, no_args_is_help=True)
        else:
            app.command(name, rich_help_panel=text.panel)(command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kilo {version('kilo')}")
        raise typer.Exit


def _root(
    show_version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """A multi-tenant, multi-cloud platform: its dev stage on this machine, its services, its evidence."""


def _not_loaded() -> None:
    """Stands in for a command that is not the called one."""


def _as_options(arguments: list[str]) -> list[str]:
    """``kilo help COMMAND`` and ``kilo version``, which people try first, as the options that they mean."""
    match arguments:
        case [] | ["help"]:
            return ["--help"]
        case ["help", *command]:
            return [*command, "--help"]
        case ["version"]:
            return ["--version"]
        case _:
            return arguments


def _called(arguments: Sequence[str]) -> str | None:
    """The name of the command that the arguments, or the words under completion, begin with."""
    if "_KILO_COMPLETE" in os.environ:
        words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
        arguments = words.split()[1:]
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def _load(point: EntryPoint) -> typer.Typer | Callable[..., None]:
    package = point.module.partition(".")[0]
    try:
        with requires():
            return point.load()
    except MissingExtra as error:
        if package == "kilo":
            raise
        raise _incomplete_checkout(error.name) from error
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if package == "kilo" or missing in {"kilo", "sandbox", "infra", "components"}:
            raise
        raise _incomplete_checkout(error.name) from error


def _incomplete_checkout(module: str | None) -> BadInput:
    return BadInput(f"the Python package {module} is not installed: run make environment in the checkout")


def _report(error: Exception, given: Sequence[str]) -> int:
    """Say what went wrong in one line, or with a traceback when it is a defect; return the exit code."""
    match error:
        case RoleDenied():
            message, code = f"{error}; {role_hint(given)}", error.exit_code
        case _ if getattr(error, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
            message, code = refusal(error, given), RoleDenied.exit_code
        case KiloError():
            message, code = str(error), error.exit_code
        case typer.TyperException():
            message, code = _usage(error), ExitCode.BAD_INPUT
        case ModuleNotFoundError() if error.name and (extra := extra_of(error.name)):
            message, code = str(MissingExtra(error.name, extra)), ExitCode.BAD_INPUT
        case _:
            traceback.print_exception(error)
            message, code = (
                "a defect of kilo, not of your input; please report it with the lines above",
                _DEFECT,
            )
    if "--json" in given:
        typer.echo(json.dumps({"error": message, "exit_code": int(code)}), err=True)
    elif message:
        typer.echo(f"{typer.style('kilo: error:', fg='red', bold=True)} {message}", err=True)
    return code


def _duplicate_output() -> int | None:
    """Another descriptor of standard output, since Rich points the first elsewhere when the pipe breaks."""
    try:
        return os.dup(1)
    except OSError:
        return None


def _reader_is_gone(output: int | None) -> bool:
    """Whether the reader of standard output, such as ``head``, has seen enough and nothing is wrong."""
    if output is None:
        return False
    poll = select.poll()
    poll.register(output, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # The interpreter flushes what is left at exit.
    return True


def _usage(error: typer.TyperException) -> str:
    """The one line of a usage error; empty where Typer has already shown the help instead."""
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "kilo"
    message = error.format_message().rstrip(".")
    return message and f"{message} (see {command} --help)"


if __name__ == "__main__":
    sys.exit(main())
