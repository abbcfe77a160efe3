"""The commands about the CRM mirror: `crm mirror`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    from infra.launcher.endpoints import Endpoints
    from lakehouse.mirror.status import MirrorStatus

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    crm = typer.Typer(help="The current state of CRM records, for queries across sources.", no_args_is_help=True)
    # With a single command typer would drop its name; a callback keeps it.
    crm.callback()(_root)
    crm.command("mirror", epilog="Example: fieldlake crm mirror --json")(mirror)
    app.add_typer(crm, name="crm")


def mirror(as_json: AsJson = False, state_dir: StateDir = None, port_base: PortBase = None) -> None:
    """Show how far the mirror has followed the changes, what it waits for, and what it holds by object."""
    import msgspec

    found = _ask(endpoints_for(state_dir, port_base))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    typer.echo(_rendered(found))


def _root() -> None:
    """The current state of CRM records, for queries across sources."""


def _ask(endpoints: "Endpoints") -> dict[str, Any]:
    import psycopg
    from psycopg.rows import dict_row

    from contracts.errors import RetrySafeError
    from lakehouse.mirror import tables

    status = _status(endpoints)
    try:
        with psycopg.connect(endpoints.postgres.uri("crm"), row_factory=dict_row) as connection:
            objects = connection.execute(tables.overview().encode()).fetchall()
            snapshots = connection.execute(tables.OPEN_SNAPSHOTS.encode()).fetchall()
    except psycopg.Error as error:
        raise RetrySafeError(
            f"CRM mirror: {error}; the process waits for: {status.waiting_for if status else 'its start'}; "
            "see `fieldlake status`"
        ) from error
    return {"process": status, "objects": objects, "open_snapshots": snapshots}


def _status(endpoints: "Endpoints") -> "MirrorStatus | None":
    import msgspec

    from infra.launcher.parts import services
    from lakehouse.mirror.status import MirrorStatus

    path = endpoints.settings().conf_dir / services.MIRROR / f"{services.CONFIG_FILE}.status.json"
    return msgspec.json.decode(path.read_bytes(), type=MirrorStatus) if path.exists() else None


def _rendered(found: dict[str, Any]) -> str:
    status: MirrorStatus | None = found["process"]
    lines = ["the process has not started"]
    if status is not None:
        state = "follows" if status.ready else f"waits for the {status.waiting_for or 'start'}"
        refused = sum(status.dead.values())
        lines = [f"{state}; {status.lag:,} messages behind; {refused:,} refused since its start"]
        if status.last_error:
            lines.append(f"last error: {status.last_error}")
    for row in found["objects"]:
        newest = row["newest_change"].isoformat(timespec="milliseconds") if row["newest_change"] else "never"
        lines.append(
            f"{row['system']}/{row['tenant']}/{row['object']} in {row['kept_in']}: {row['live']:,} records, "
            f"{row['deleted']:,} deleted, {row['stale']:,} stale, newest change {newest}"
        )
    for row in found["open_snapshots"]:
        lines.append(
            f"snapshot {row['id']} of {row['system']}/{row['tenant']}/{row['object']}: {row['marked']:,} of "
            f"{'an unknown number of' if row['records'] is None else format(row['records'], ',')} records have arrived"
        )
    return "\n".join(lines)
