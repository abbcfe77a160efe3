"""The commands `quarantine list`, `quarantine show` and `quarantine replay`."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    from contracts.contract import Contract
    from infra.cli.refused import Filters
    from infra.launcher.endpoints import Endpoints

ContractName = Annotated[str | None, typer.Option("--contract", metavar="NAME", help="Of this contract only.")]
Rule = Annotated[str | None, typer.Option("--rule", metavar="FIELD.CHECK", help="Refused by this rule only.")]
Origin = Annotated[str | None, typer.Option("--origin", metavar="ID", help="Of this device or collector only.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Sealed at or after; ISO 8601 with zone.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Sealed before; ISO 8601 with zone.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="See what was refused, and put it back after a fix.", no_args_is_help=True)
    group.command(name="list", epilog="Example: fieldlake quarantine list --contract telemetry --rule f3.minimum")(
        list_refused
    )
    group.command(epilog="Example: fieldlake quarantine show press-01 1 4711 --contract telemetry")(show)
    group.command(epilog="Example: fieldlake quarantine replay --contract telemetry --dry-run")(replay)
    app.add_typer(group, name="quarantine")


def list_refused(
    contract: ContractName = None,
    rule: Rule = None,
    origin: Origin = None,
    since: Since = None,
    until: Until = None,
    entries: Annotated[bool, typer.Option("--entries", help="List single rows that are still open.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="With --entries: at most so many.")] = 100,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Show what was refused, by contract, version and rule: how much of it, how much is back, and from when."""
    from infra.cli import refused

    filters = _filters(contract, rule, origin, since, until)
    with _desk(endpoints_for(state_dir, port_base)) as (ask, versions):
        found = refused.open_rows(filters, versions, ask, limit) if entries else refused.sums(filters, versions, ask)
    typer.echo(refused.table(found, as_json=as_json))


def show(
    origin: Annotated[str, typer.Argument(help="Device or collector.")],
    epoch: Annotated[int, typer.Argument(help="Epoch of the refused event.")],
    seq: Annotated[int, typer.Argument(help="Its sequence number.")],
    contract: Annotated[str, typer.Option("--contract", metavar="NAME", help="Contract that it claimed to follow.")],
    as_json: AsJson = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Show one refused row with its original, why it was refused, and what would happen to it today."""
    from infra.cli import refused

    with _desk(endpoints_for(state_dir, port_base)) as (ask, versions):
        typer.echo(refused.shown(origin, epoch, seq, contract, versions, ask, as_json=as_json))


def replay(
    contract: Annotated[str, typer.Option("--contract", metavar="NAME", help="Contract whose rows go back.")],
    rule: Rule = None,
    origin: Origin = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many rows, oldest first.")] = 100_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")] = False,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Put refused rows that fit the contract by now back into their table, each once, and wait until they are there.

    It may be interrupted and repeated: a row that is back already is not put back again.
    """
    from infra.cli import refused
    from infra.cli.audit import Trail
    from lakehouse.sending import Sender

    filters = _filters(contract, rule, origin, since, until)
    endpoints = endpoints_for(state_dir, port_base)
    with _desk(endpoints) as (ask, versions):
        plan = refused.plan(filters, versions, ask, limit)
        if dry_run or not plan.ready:
            typer.echo(refused.summary(plan, None, as_json=as_json))
            return
        trail = Trail(endpoints.settings().state_dir)
        trail.write("quarantine replay begins", filters=filters, rows=len(plan.ready), still_refused=plan.still)
        refused.send(plan, Sender(endpoints.kafka.bootstrap).send, _tell)
        back = refused.wait(plan, filters, versions, ask, _tell)
        trail.write("quarantine replay ends", filters=filters, rows=len(plan.ready), back=back)
    typer.echo(refused.summary(plan, back, as_json=as_json))
    refused.require_all(plan, back)


@contextmanager
def _desk(
    endpoints: "Endpoints",
) -> Iterator[tuple[Callable[[str], list[dict[str, Any]]], "dict[str, tuple[Contract, ...]]"]]:
    """Who answers SQL, and every published version of every contract."""
    from federation.config import TrinoConfig
    from federation.trino import TrinoClient
    from lakehouse.publish import published_versions

    trino = endpoints.trino
    config = TrinoConfig(trino.host, trino.port, trino.ca_file, trino.user, trino.password)
    with TrinoClient(config) as client:
        yield lambda sql: client.query(sql).dicts(), published_versions(endpoints.kafka.bootstrap)


def _filters(
    contract: str | None, rule: str | None, origin: str | None, since: str | None, until: str | None
) -> "Filters":
    from infra.cli.refused import Filters

    return Filters(contract, rule, origin, _time("--since", since), _time("--until", until))


def _time(option: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r}: expected an ISO 8601 time: {error}") from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{option} {text!r}: expected a time with its zone, for example {text}Z")
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")


def _tell(text: str) -> None:
    typer.echo(text, err=True)
