"""``kilo traffic show | ramp | pause | resume | revert | history``."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Annotated

import typer

from infra.check import stage_file
from infra.configuration import read_stage_file
from infra.ramps.plans import hold_seconds, print_plans, tenants_and_feature
from infra.ramps.publish import Committing
from infra.ramps.run import Setting, lead
from infra.ramps.setting import make_setting
from infra.ramps.tour import Load, rehearsed, tour
from infra.ramps.tune import tune
from infra.ramps.view import Shown, document, table
from kilo.contract import load_outputs
from kilo.errors import BadInput, CheckFailed
from kilo.project import find_project
from kilo.tables import make_console, print_table
from kilo.tenancy import RampWeight
from kilo.traffic.flags_file import render_flags
from kilo.traffic.ramps.gate import GateSettings
from kilo.traffic.ramps.ramp import DEFAULT_STEPS, Ramp, State, parse_weight, plan_steps
from kilo.traffic.ramps.store import RampStore
from kilo.traffic.settings import GatewayFeature, GatewaySettings, Upstream

app = typer.Typer(no_args_is_help=True, help="Ramp features, tenant by tenant; tune tiers.")
app.command()(tune)

_NOWHERE = Upstream(host="nowhere.invalid", port=1)

StageOption = Annotated[str, typer.Option("--stage", "-s", help="The stage whose file is meant.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON; a line for each change.")]
PrometheusOption = Annotated[
    str | None, typer.Option("--prometheus", metavar="URL", help="Instead of the stage's own Prometheus.")
]
GatewayOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gateway",
        metavar="URL",
        help="A gateway's operations address; again for each. Default: those that Prometheus scrapes.",
    ),
]
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT")]
FeatureArgument = Annotated[str, typer.Argument(metavar="FEATURE")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the record.")]


@app.command(
    epilog="Examples: kilo traffic show -s prod · kilo traffic show -s prod --json | jq '.[].weight'"
)
def show(stage: StageOption, as_json: JsonOption = False) -> None:
    """Show the ramps that are under way, and every weight that the stage's file has."""
    setting = make_setting(stage)

    async def active() -> list[Ramp]:
        async with setting.connection() as connection:
            return await RampStore(connection, stage).active()

    ramps = asyncio.run(active())
    weights = setting.file.weights
    if as_json:
        resting = [
            {"tenant": tenant, "feature": feature, "state": None, "weight": weight}
            for (tenant, feature), weight in weights.items()
            if (tenant, feature) not in {ramp.key for ramp in ramps}
        ]
        typer.echo(json.dumps([*(document(ramp) for ramp in ramps), *resting], indent=2))
        return
    if ramps:
        make_console().print(table(ramps))
    for (tenant, feature), weight in weights.items():
        if (tenant, feature) not in {ramp.key for ramp in ramps}:
            typer.echo(f"{tenant} {feature}: {weight}, no ramp under way")
    if not ramps and not weights:
        typer.echo(f"{setting.file.path.name}: no tenant has a weight for a feature", err=True)


@app.command(epilog="Example: kilo traffic flags -s dev > flags.json && export KILO_FLAGS=$PWD/flags.json")
def flags(stage: StageOption) -> None:
    """Print the weights of a stage's features as services read them (kilo.flags), for one that runs here."""
    settings = read_stage_file(stage_file(find_project(), stage))
    given = GatewaySettings(
        # Where they lead is the gateway's affair alone.
        stable=_NOWHERE,
        features=tuple(GatewayFeature(id=each.id, next=_NOWHERE) for each in settings.features),
    )
    typer.echo(json.dumps(render_flags(settings.resolved_tenants, given), indent=2))


@app.command(
    epilog="Examples: kilo traffic ramp acme checkout-v2 -s prod --hold 10m · "
    "kilo traffic ramp checkout-v2 -s prod --tier bronze --steps shadow,1,5,25 --dry-run · "
    "kilo traffic ramp -s prod --continue --once --json"
)
def ramp(  # noqa: PLR0917
    stage: StageOption,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TENANT] FEATURE", help="The feature alone with --tier or --all."),
    ] = None,
    tier: Annotated[str | None, typer.Option(help="Every tenant of a tier, instead of TENANT.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every tenant, instead of TENANT.")] = False,
    to: Annotated[int, typer.Option(min=1, max=100, help="The weight to come to, in percent.")] = 100,
    steps: Annotated[
        str, typer.Option(help="Weights on the way; begin with shadow to copy requests first.")
    ] = ",".join(map(str, DEFAULT_STEPS)),
    hold: Annotated[str, typer.Option(help="How long each step has to be good: 30s, 10m, 2h.")] = "10m",
    minimum_requests: Annotated[
        int, typer.Option("--min-requests", min=1, help="How many the next version must answer at each step.")
    ] = GateSettings().minimum_requests,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")
    ] = False,
    detach: Annotated[bool, typer.Option(help="Begin, and leave the steps to --continue.")] = False,
    go_on: Annotated[bool, typer.Option("--continue", help="Go on with every ramp of the stage.")] = False,
    commit: Annotated[
        bool, typer.Option("--commit", help="Commit and push the stage's file with each step.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="With --continue: look once, for a schedule.")] = False,
    prometheus: PrometheusOption = None,
    gateway: GatewayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Raise a tenant's weight for a feature step by step, as long as its next version keeps up.

    Each step is written into the stage's file, carried out by the engine on the gateway alone, and awaited in
    every gateway. Then the tenant's requests to the next version are compared with its own to the stable one
    over the same minutes. A worse version is reverted; what can't be known is waited for. Killed or detached,
    a ramp goes on with --continue. DATABASE_URL names the stage's database.

    Exits with 1 when a ramp was reverted, or ended because somebody set the weight.
    """
    setting = make_setting(stage, prometheus, gateway or ())
    if commit:
        setting = replace(setting, engine=Committing(setting.engine, setting.file.path))
    if go_on:
        if names or tier or everyone:
            msg = "--continue goes on with every ramp of the stage; leave the names out"
            raise BadInput(msg)
        _follow(setting, None, as_json=as_json, once=once)
        return
    tenants, feature = tenants_and_feature(setting.file, names or [], tier, everyone=everyone)
    gate = GateSettings(hold_seconds(hold), minimum_requests)
    wanted: list[RampWeight] = [parse_weight(step.strip()) for step in steps.split(",")]
    plans = {
        tenant: plan_steps(wanted, to, setting.file.weights.get((tenant, feature), 0)) for tenant in tenants
    }
    if dry_run:
        print_plans(setting, feature, plans, gate, as_json=as_json)
        return

    async def begin() -> set[int]:
        async with setting.connection() as connection:
            store = RampStore(connection, stage)
            ids: set[int] = set()
            for tenant, planned in plans.items():
                before = setting.file.weights.get((tenant, feature), 0)
                begun = await store.start(
                    tenant=tenant,
                    feature=feature,
                    steps=planned,
                    gate=gate,
                    before=before,
                    who=setting.who,
                    program=setting.program,
                )
                ids.add(begun.id)
            return ids

    mine = asyncio.run(begin())
    if detach:
        typer.echo(
            f"begun for {', '.join(plans)}; kilo traffic ramp -s {stage} --continue leads it", err=True
        )
        return
    _follow(setting, mine, as_json=as_json)


@app.command(epilog="Example: kilo traffic pause acme checkout-v2 -s prod --reason 'incident 42'")
def pause(
    tenant: TenantArgument, feature: FeatureArgument, stage: StageOption, reason: ReasonOption = "paused"
) -> None:
    """Hold a ramp where it is until `resume`; nothing reverts it meanwhile but `revert`."""
    _request(stage, tenant, feature, State.PAUSED, reason)
    typer.echo(f"{tenant} {feature}: paused", err=True)


@app.command(epilog="Example: kilo traffic resume acme checkout-v2 -s prod")
def resume(
    tenant: TenantArgument, feature: FeatureArgument, stage: StageOption, reason: ReasonOption = "resumed"
) -> None:
    """Let a paused ramp go on; whoever leads the stage's ramps takes it up."""
    _request(stage, tenant, feature, State.RUNNING, reason)
    typer.echo(f"{tenant} {feature}: resumed; kilo traffic ramp -s {stage} --continue leads it", err=True)


@app.command(epilog="Example: kilo traffic revert acme checkout-v2 -s prod --reason 'customers complain'")
def revert(  # noqa: PLR0917
    tenant: TenantArgument,
    feature: FeatureArgument,
    stage: StageOption,
    reason: ReasonOption = "reverted by hand",
    prometheus: PrometheusOption = None,
    gateway: GatewayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a feature's weight of a tenant back at once, and wait until every gateway has it.

    To what it was before the ramp, or to 0 where none is under way.
    """
    setting = make_setting(stage, prometheus, gateway or ())

    async def ask() -> set[int]:
        async with setting.connection() as connection:
            store = RampStore(connection, stage)
            found = [each for each in await store.active() if each.key == (tenant, feature)]
            if not found:
                found = [await _of_nothing(setting, store, tenant, feature)]
            await store.request(found[0], State.REVERTING, reason, setting.who, setting.program)
            return {found[0].id}

    _follow(setting, asyncio.run(ask()), as_json=as_json, wanted=State.REVERTED)


@app.command(
    epilog="Examples: kilo traffic history -s prod · kilo traffic history acme checkout-v2 -s prod --json"
)
def history(
    stage: StageOption,
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]")] = None,
    feature: Annotated[str | None, typer.Argument(metavar="[FEATURE]")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many steps, the newest.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show each recorded step: when, who, from and to which weight, and the figures that decided."""
    setting = make_setting(stage)

    async def read() -> list[dict[str, object]]:
        async with setting.connection() as connection:
            return await RampStore(connection, stage).history(tenant, feature, limit)

    steps = asyncio.run(read())
    if as_json:
        typer.echo(json.dumps(steps, indent=2, default=str))
        return
    columns = ("at", "tenant", "feature", "act", "from", "to", "in force after", "who", "why")
    keys = ("tenant", "feature", "act", "weight_from", "weight_to")
    rows = [
        (
            f"{step['at']:%Y-%m-%d %H:%M:%S}",
            *(step[key] for key in keys),
            f"{step['seconds']:.1f} s" if step["seconds"] is not None else "-",
            step["who"],
            step["reason"],
        )
        for step in steps
    ]
    print_table(columns, rows)


@app.command("tour", epilog="Example: kilo traffic tour -s dev")
def tour_(
    stage: StageOption,
    feature: Annotated[str, typer.Option(help="The feature to rehearse on.")] = "rehearsal",
    tenants: Annotated[
        list[str] | None,
        typer.Option(
            "--tenant", help="Whose ramps; again for each. Default: acme, and globex, for which it fails."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ramp a feature for two tenants under load: one to the end, one that is taken back by itself.

    Takes both back to 0 afterwards, so that it can be shown again.
    """
    setting = make_setting(stage)
    outputs = load_outputs()
    load = Load(outputs.gateway.url, outputs.gateway.tenant_header, rehearsed(setting, feature))
    with Shown(as_json=as_json) as shown:
        asyncio.run(tour(setting, load, tenants or ["acme", "globex"], shown))
    if not as_json:
        answered = ", ".join(
            f"{who} {status}: {count}" for (who, status), count in sorted(load.answers.items())
        )
        typer.echo(f"answers under load: {answered}", err=True)


def _follow(
    setting: Setting, mine: set[int] | None, *, as_json: bool, once: bool = False, wanted: State = State.DONE
) -> None:
    with Shown(as_json=as_json) as shown:
        ended = asyncio.run(lead(setting, mine, shown, once=once))
    others = [each for each in ended if each.state.ended and each.state is not wanted]
    if others:
        raise CheckFailed(
            "; ".join(f"{each.tenant} {each.feature}: {each.state}: {each.reason}" for each in others)
        )


def _request(stage: str, tenant: str, feature: str, state: State, reason: str) -> None:
    setting = make_setting(stage)

    async def ask() -> None:
        async with setting.connection() as connection:
            store = RampStore(connection, stage)
            found = await store.find(tenant, feature)
            await store.request(found, state, reason, setting.who, setting.program)

    asyncio.run(ask())


async def _of_nothing(setting: Setting, store: RampStore, tenant: str, feature: str) -> Ramp:
    """A ramp to revert where none is under way."""
    weight = setting.file.weights.get((tenant, feature), 0)
    if weight == 0:
        msg = f"{tenant} {feature}: the weight is 0 and no ramp is under way; there is nothing to revert"
        raise BadInput(msg)
    return await store.start(
        tenant=tenant,
        feature=feature,
        steps=[weight],
        gate=GateSettings(),
        before=0,
        weight=weight,
        who=setting.who,
        program=setting.program,
    )
