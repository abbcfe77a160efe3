"""The commands of tables: `table read`, `table history`, `table register`, `table rebuild`."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import urlparse

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.query import Format
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    import pyarrow as pa

    from infra.launcher.endpoints import Endpoints, StoreEndpoint
    from lakehouse.catalog import LakeCatalog
    from lakehouse.config import CatalogConfig

ROWS_SHOWN = 20  # rows; what a person looks at, `--limit` asks for more

TableName = Annotated[str, typer.Argument(metavar="TABLE", help="catalog.namespace.table, as in SQL.")]


class _Name(NamedTuple):
    catalog: str
    table: str


def register(app: typer.Typer) -> None:
    """Add the commands."""
    tables = typer.Typer(
        help="Tables: read those of others, go back in time, and bring back what was lost.", no_args_is_help=True
    )
    tables.command("read", epilog="Example: fieldlake table read /data/warehouse/sales.db/orders --limit 5")(read)
    tables.command("history", epilog="Example: fieldlake table history lake_a.field.telemetry")(history)
    tables.command("register", epilog="Example: fieldlake table register lake_a.field.telemetry")(enter)
    tables.command("rebuild", epilog="Example: fieldlake table rebuild lake_a.field.telemetry --from-files")(rebuild)
    app.add_typer(tables, name="table")


def read(
    location: Annotated[str, typer.Argument(help="Folder of an Iceberg table, or one of its metadata files.")],
    root: Annotated[str, typer.Option("--root", help="Folder that the table's relative paths are below.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows to show.")] = ROWS_SHOWN,
    output: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = Format.table,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Show rows of an Iceberg table that no catalog here knows: right ones, or what is not supported and where.

    A location `s3://BUCKET/...` is looked for in the running stack's stores.
    """
    from infra.cli.rows import render
    from lakehouse.foreign import open_foreign

    properties: dict[str, str] = {}
    if location.startswith("s3://"):
        properties = _store_properties(endpoints_for(state_dir, port_base), location)
    elif not location.startswith("file:") and not root:
        location = str(Path(location).resolve())
    table = open_foreign(location, properties, root)
    rows: list[dict[str, Any]] = []
    for part in table.tables():
        rows.extend(_records(part, limit - len(rows)))
        if len(rows) >= limit:
            break
    typer.echo(render(_result(tuple(table.schema.names), rows), output.value))


def history(
    table: TableName,
    output: Annotated[Format, typer.Option("--format", help="How to print the snapshots.")] = Format.table,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """List the snapshots that a table still has, oldest first; `FOR VERSION AS OF` in SQL reads one of them."""
    from pyiceberg.exceptions import NoSuchTableError

    from contracts.errors import OperatorMustActError
    from infra.cli.rows import render

    name = _parsed(table)
    catalog = _catalog(endpoints_for(state_dir, port_base), name.catalog)
    try:
        metadata = catalog.load_table(name.table).metadata
    except NoSuchTableError as error:
        raise OperatorMustActError(
            f"table {table}: the catalog does not know it; `fieldlake table register`?"
        ) from error
    rows = [
        {
            "snapshot": one.snapshot_id,
            "committed_at": dt.datetime.fromtimestamp(one.timestamp_ms / 1_000, dt.UTC),
            "operation": one.summary.operation.value if one.summary else "",
            "rows": (one.summary.get("total-records") or "") if one.summary else "",
            "current": "yes" if one.snapshot_id == metadata.current_snapshot_id else "",
        }
        for one in sorted(metadata.snapshots, key=lambda one: one.sequence_number or 0)
    ]
    columns = ("snapshot", "committed_at", "operation", "rows", "current")
    typer.echo(render(_result(columns, rows), output.value))


def enter(
    table: TableName,
    location: Annotated[
        str | None, typer.Option("--from", metavar="LOCATION", help="Folder or metadata file [default: the usual one].")
    ] = None,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Enter a table into a catalog that has lost it, from its newest metadata file.

    Of several newest ones the one is taken whose snapshot was acknowledged to a device; if none was, --from decides.
    """
    from lakehouse import register as registering

    name, endpoints = _parsed(table), endpoints_for(state_dir, port_base)
    done = registering.register(_catalog(endpoints, name.catalog), name.table, location, _acknowledged(endpoints))
    for left in done.unreadable:
        typer.echo(f"left aside, not readable: {left}", err=True)
    typer.echo(f"{table} is {done.metadata_location}, snapshot {done.snapshot_id}")


def rebuild(
    table: TableName,
    from_log: Annotated[
        bool,
        typer.Option("--from-log/--from-files", help="The log alone, or the files first and then the log."),
    ],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on where the log does not reach back to all events.")
    ] = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Make a contract's table anew; readers see the old one or the new one, and ingest goes on from it."""
    from lakehouse.kafka.log import KafkaLog
    from lakehouse.process import WallClock
    from lakehouse.rebuild import Rebuild, Source

    name, endpoints = _parsed(table), endpoints_for(state_dir, port_base)
    log = KafkaLog(endpoints.kafka.bootstrap)
    work = Rebuild(_catalog(endpoints, name.catalog), log, WallClock(), name.table.rpartition(".")[2])
    try:
        done = work.run(Source.LOG if from_log else Source.FILES, accept_loss)
    finally:
        work.close()
    for reason in done.broken:
        typer.echo(f"not read: {reason}", err=True)
    for origin, count in sorted(done.unexplained.items()):
        typer.echo(f"{origin}: {count} events were accounted for and are in no file and no batch", err=True)
    if done.rows_erased:
        typer.echo(f"{done.rows_erased} rows left out: their subjects were erased", err=True)
    counts = f"{done.rows_from_files} rows from files, {done.rows_from_log} from the log"
    typer.echo(f"{table} is {done.metadata_location}: {counts}")


def _parsed(table: str) -> _Name:
    from contracts.errors import OperatorMustActError

    catalog, _, rest = table.partition(".")
    if not all((catalog, *rest.partition("."))) or rest.count(".") != 1:
        raise OperatorMustActError(f"table {table!r}: expected catalog.namespace.table, as lake_a.field.telemetry")
    return _Name(catalog, rest)


def _catalog(endpoints: "Endpoints", name: str) -> "LakeCatalog":
    from contracts.errors import OperatorMustActError
    from lakehouse.catalog import open_catalog

    for store in (endpoints.store_a, endpoints.store_b):
        if store.catalog == name:
            return open_catalog(_config(store))
    raise OperatorMustActError(f"catalog {name!r}: expected {endpoints.store_a.catalog} or {endpoints.store_b.catalog}")


def _config(store: "StoreEndpoint") -> "CatalogConfig":
    from lakehouse.config import CatalogConfig

    return CatalogConfig(
        name=store.catalog,
        uri=store.catalog_uri,
        warehouse=store.warehouse,
        s3_endpoint=store.endpoint_url,
        s3_access_key=store.key_id,
        s3_secret_key=store.secret,
        s3_region=store.region,
    )


def _store_properties(endpoints: "Endpoints", location: str) -> dict[str, str]:
    from contracts.errors import OperatorMustActError
    from lakehouse.catalog import store_properties

    bucket = urlparse(location).netloc
    for store in (endpoints.store_a, endpoints.store_b):
        if store.bucket == bucket:
            return store_properties(_config(store))
    raise OperatorMustActError(
        f"bucket {bucket!r}: expected one of the stack's, {endpoints.store_a.bucket} or {endpoints.store_b.bucket}"
    )


def _acknowledged(endpoints: "Endpoints") -> frozenset[int]:
    """Return the snapshots that devices were told of; none when the log is lost too."""
    from contracts.errors import RetrySafeError
    from contracts.topics import WATERMARKS
    from contracts.watermark import decode_watermark
    from lakehouse.kafka.log import KafkaLog

    topic = KafkaLog(endpoints.kafka.bootstrap).follow(WATERMARKS)
    try:
        topic.rewind({})
        return frozenset(decode_watermark(m.value).snapshot_id for m in topic.catch_up() if m.value)
    except RetrySafeError:
        return frozenset()
    finally:
        topic.close()


def _records(part: "pa.Table", count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = part.slice(0, count).to_pylist()
    return found


def _result(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> Any:
    from federation.trino import Result

    return Result(columns, [tuple(row[name] for name in columns) for row in rows])
