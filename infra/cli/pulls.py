"""The command `pull`: events that a device still has, by time and condition, into the lake."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    from contracts.contract import Contract
    from contracts.edge_rules import Condition
    from contracts.pulls import PullRequest
    from infra.cli.pulled import Following
    from infra.launcher.endpoints import Endpoints

HOURS = 24.0  # h; a device that is away over night still hears of it
MS_PER_HOUR = 3_600_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: fieldlake pull press-01 --from 2026-03-01T09:50:00Z --to 2026-03-01T10:00:00Z "
        """--where '{"test": "compare", "field": "f1", "op": "gt", "value": 60}'"""
    )(pull)


def pull(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Name of the device.")],
    first: Annotated[str, typer.Option("--from", metavar="TIME", help="First event time, ISO 8601 with zone.")],
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="Event time up to which, and not with which.")],
    contract: Annotated[str, typer.Option("--contract", metavar="ID", help="Contract of the events.")] = "telemetry",
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="CONDITION", help="Condition of an edge rule, as JSON or @FILE."),
    ] = None,
    rows_max: Annotated[int, typer.Option("--rows-max", min=1, help="Send no more rows.")] = 1_000_000,
    mb_max: Annotated[int, typer.Option("--mb-max", min=1, max=1_024, help="Send no more MiB.")] = 64,
    hours: Annotated[
        float, typer.Option("--hours", min=0.01, max=720.0, help="How long a device that is away may take to come.")
    ] = HOURS,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the rows are in the lake.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Fetch events that a device still has, whatever became of them: kept, aggregated or dropped.

    They arrive as rows of CONTRACT_pulled. A command that is interrupted while it waits takes its request back.
    """
    import getpass
    import secrets
    import time

    from contracts.pulls import ID_BYTES, NAME_CHARS_MAX, PullRequest
    from contracts.topics import is_origin

    if not is_origin(device):
        raise typer.BadParameter(f"DEVICE {device!r}: expected letters, digits, '-', '_' or '.'")
    asked_at_ms = round(time.time() * 1_000)
    known = _contract(contract)
    request = PullRequest(
        id=secrets.token_hex(ID_BYTES),
        contract=known.id,
        from_us=_micros("--from", first),
        to_us=_micros("--to", end),
        asked_at_ms=asked_at_ms,
        expires_at_ms=asked_at_ms + round(hours * MS_PER_HOUR),
        when=_condition(where),
        rows_max=rows_max,
        bytes_max=mb_max << 20,
        asked_by=getpass.getuser()[:NAME_CHARS_MAX],
    )
    _check(request, known)
    endpoints = endpoints_for(state_dir, port_base)
    _require_device(endpoints, device)
    _pull(endpoints, device, known, request, wait=wait, as_json=as_json)


def _pull(
    endpoints: "Endpoints", device: str, contract: "Contract", request: "PullRequest", *, wait: bool, as_json: bool
) -> None:
    import time

    from federation.config import TrinoConfig
    from federation.trino import TrinoClient
    from infra.cli.pulled import Following, Told, rendered, rows_sql, tell_json
    from infra.fleet.pulls import desk

    trino = endpoints.trino
    config = TrinoConfig(trino.host, trino.port, trino.ca_file, trino.analyst_user, trino.analyst_password)
    with TrinoClient(config) as client, desk(endpoints, device) as asking:
        following = Following(device, contract, request, lambda statement: client.query(statement).dicts())
        _require_tables(following, contract)
        asking.ask(request, round(time.time() * 1_000))
        typer.echo(f"pull {request.id}: {device} is asked", err=True)
        if not wait:
            typer.echo(tell_json(request, None, rows_sql(contract, request)) if as_json else following.how_to_look())
            return
        try:
            told: Told = following.wait(
                time.time, time.sleep, lambda text: typer.echo(text, err=True), lambda: asking.is_online
            )
        finally:
            asking.withdraw(request.id)
        typer.echo(tell_json(request, told, rows_sql(contract, request)) if as_json else rendered(told, contract))
        told.require()


def _require_tables(following: "Following", contract: "Contract") -> None:
    """Look before the device is troubled."""
    from contracts.errors import OperatorMustActError
    from federation.errors import QueryRefusedError

    try:
        following.look()
    except QueryRefusedError as error:
        if error.name != "TABLE_NOT_FOUND":
            raise
        raise OperatorMustActError(
            f"contract {contract.id!r}: the lake has no table for its pulled events: pull another contract, or publish "
            "the contracts of this version"
        ) from error


def _contract(name: str) -> "Contract":
    from infra.bundles.documents import read_contracts

    known = {contract.id: contract for contract in read_contracts()}
    if name not in known:
        raise typer.BadParameter(f"--contract {name!r}: expected one of {', '.join(sorted(known))}")
    return known[name]


def _condition(text: str | None) -> "Condition | None":
    import msgspec

    from contracts.edge_rules import Condition
    from contracts.malformed import MALFORMED

    if text is None:
        return None
    try:
        data: Any = Path(text[1:]).read_bytes() if text.startswith("@") else text
        found: Condition = msgspec.json.decode(data, type=Condition)
    except OSError as error:
        raise typer.BadParameter(f"--where {text}: expected a readable file: {error.strerror}") from error
    except MALFORMED as error:
        raise typer.BadParameter(f"--where: expected a condition of an edge rule as JSON: {error}") from error
    return found


def _check(request: "PullRequest", contract: "Contract") -> None:
    """Refuse here what every device would refuse."""
    from contracts import pulls
    from contracts.errors import PullError

    try:
        pulls.check(pulls.decode(pulls.encode(request)), contract)
    except PullError as error:
        raise typer.BadParameter(str(error).removeprefix(f"pull {request.id}: ")) from error


def _require_device(endpoints: "Endpoints", device: str) -> None:
    from contracts.errors import OperatorMustActError
    from infra.fleet.identity import operator

    with operator(endpoints) as asking:
        found = asking.device(device)
    if found is None:
        raise OperatorMustActError(
            f"device {device!r}: the registry has none of that name: see `fieldlake device list`"
        )
    if found.state != "active":
        raise OperatorMustActError(f"device {device!r} is {found.state}: only an active device can be asked")


def _micros(option: str, text: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r}: expected an ISO 8601 time: {error}") from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{option} {text!r}: expected a time with its zone, for example {text}Z")
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
