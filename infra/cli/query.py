"""The commands that ask: `sql`, `history`, `ledger`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    from federation.trino import Result
    from infra.launcher.endpoints import Endpoints

HTTP_TIMEOUT_S = 30.0  # s; an answer takes milliseconds, a part that restarts some seconds

LEDGER_SQL = """
SELECT origin, stream, stream_epoch, fate, rule, reason, sum(count) AS events
FROM lake_a.ops.ledger {where}
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
"""


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog='Example: fieldlake sql "SELECT count(*) FROM lake_a.field.telemetry" --format csv')(sql)
    app.command(epilog="Example: fieldlake history A-0001 --as-of 2026-03-01T00:00:00Z --json")(history)
    app.command(epilog='Example: fieldlake ledger --stream telemetry --relevant "f1 > 60"')(ledger)


def sql(
    statement: Annotated[str, typer.Argument(help="One statement, without a semicolon.")],
    output: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = Format.table,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Run one SQL statement through Trino, as the analyst: reading only."""
    from infra.cli.rows import render

    typer.echo(render(_query(endpoints_for(state_dir, port_base), statement), output.value))


def history(
    asset: Annotated[str, typer.Argument(help="Asset id.")],
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="TIME", help="ISO 8601 time with zone.")] = None,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Show what was done to an asset, corrections applied, and up to which watermark that is complete."""
    import msgspec

    from infra.cli.rows import render_history

    document = _history(endpoints_for(state_dir, port_base), asset, as_of)
    typer.echo(msgspec.json.format(msgspec.json.encode(document)).decode() if as_json else render_history(document))


def ledger(
    device: Annotated[str | None, typer.Option("--device", help="One device; all without it.")] = None,
    stream: Annotated[str | None, typer.Option("--stream", help="With --relevant: the stream to judge.")] = None,
    relevant: Annotated[
        str | None, typer.Option("--relevant", metavar="SQL", help="State the filter's recall of these events.")
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the interval.")] = 0.95,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Show what became of every event that devices observed, as committed in the lake.

    With --stream and --relevant, state the filter's recall instead: of the events for which the SQL condition holds,
    how many were kept. What was not kept is judged by its random sample, so the answer has an interval.
    """
    from contracts.errors import OperatorMustActError
    from contracts.topics import is_origin
    from infra.cli.rows import render

    if device is not None and not is_origin(device):
        raise OperatorMustActError(f"--device {device!r}: expected a device id: letters, digits, '-', '_' or '.'")
    if (stream is None) != (relevant is None):
        raise OperatorMustActError("--stream and --relevant: expected both or neither")
    if stream is not None and relevant is not None:
        typer.echo(_recall(endpoints_for(state_dir, port_base), stream, relevant, device, confidence, as_json=as_json))
        return
    where = "" if device is None else f"WHERE origin = '{device}'"
    result = _query(endpoints_for(state_dir, port_base), LEDGER_SQL.format(where=where))
    typer.echo(render(result, "json" if as_json else "table"))


def _recall(
    endpoints: "Endpoints", stream: str, relevant: str, device: str | None, confidence: float, *, as_json: bool
) -> str:
    import msgspec

    from contracts.errors import OperatorMustActError
    from infra.bundles.documents import read_contracts
    from infra.cli.recall import measure, rendered

    contract = next((one for one in read_contracts() if one.id == stream), None)
    if contract is None:
        raise OperatorMustActError(f"--stream {stream!r}: expected the id of a contract, for example telemetry")
    if not 0 < confidence < 1:
        raise OperatorMustActError(f"--confidence {confidence}: expected a number between 0 and 1, for example 0.95")
    found = measure(contract, relevant, device, confidence, lambda text: tuple(_query(endpoints, text).rows[0]))
    return msgspec.json.format(msgspec.json.encode(found)).decode() if as_json else rendered(found)


def _query(endpoints: "Endpoints", statement: str) -> "Result":
    from federation.config import TrinoConfig
    from federation.trino import TrinoClient

    trino = endpoints.trino
    config = TrinoConfig(trino.host, trino.port, trino.ca_file, trino.analyst_user, trino.analyst_password)
    with TrinoClient(config) as client:
        return client.query(statement.strip().rstrip(";"))


def _history(endpoints: "Endpoints", asset: str, as_of: str | None) -> dict[str, Any]:
    import ssl
    from urllib.parse import quote

    import httpx

    from contracts.errors import OperatorMustActError, RetrySafeError

    target = endpoints.history
    try:
        answer = httpx.get(
            f"{target.url}/v1/assets/{quote(asset, safe='')}/history",
            params={} if as_of is None else {"as_of": as_of},
            headers={"Authorization": f"Bearer {target.token}"},
            verify=ssl.create_default_context(cafile=target.ca_file),
            timeout=HTTP_TIMEOUT_S,
            trust_env=False,
        )
    except httpx.TransportError as error:
        raise RetrySafeError(
            f"history endpoint {target.url}: {error}; is the stack up? see `fieldlake status`"
        ) from error
    if answer.status_code != httpx.codes.OK:
        raise OperatorMustActError(f"history of {asset!r}: {answer.json().get('detail', answer.text)}")
    document: dict[str, Any] = answer.json()
    return document
