"""The command `erase`: a subject's rows leave the lake, and what is left of them is said."""

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import PortBase, StateDir
from infra.cli.running import endpoints_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from infra.launcher.endpoints import Endpoints, StoreEndpoint
    from lakehouse.catalog import LakeCatalog
    from lakehouse.maintenance.erasure import Erased
    from lakehouse.maintenance.subjects import Subject

UNREACHED = (
    "not reached: the log (topics fieldlake.batches, candidates, decisions and dead) until its retention removes it, "
    "the state of running jobs, the CRM and its mirror, devices that are offline, backups, and what was copied out of "
    "the lake; repeat the command for what arrives later"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fieldlake erase --subject customer=客户-陈 --dry-run")(erase)


def erase(
    subject: Annotated[
        str, typer.Option("--subject", metavar="KIND=ID", help="Whom: kind as contracts say it, and id.")
    ],
    table: Annotated[
        str | None, typer.Option("--table", metavar="NAME", help="Only this table, CATALOG.NAMESPACE.TABLE.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the rows, change nothing.")] = False,
    actor: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who asks, for the table of removals [default: you].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a table.")] = False,
    state_dir: StateDir = None,
    port_base: PortBase = None,
) -> None:
    """Remove a subject's rows from tables, old snapshots and files, verify it, and note it in ops.removals.

    Queries that read an older snapshot fail: the right comes first. A repeat finds what arrived later, and finishes
    what was interrupted. Exit code 1: something was found afterwards, the output says what.
    """
    whom = parse_subject(subject)
    catalogs = open_catalogs(endpoints_for(state_dir, port_base))
    try:
        done = list(erase_all(catalogs, whom, table, dry_run, actor or getpass.getuser()))
    finally:
        for catalog in catalogs:
            catalog.engine.dispose()
    for found in done:
        typer.echo(_json(found) if as_json else "\n".join(lines(found, dry_run)))
    if not as_json:
        typer.echo(f"{len(done)} tables searched; {UNREACHED}")
    if not dry_run and not all(found.verified for found in done):
        raise typer.Exit(1)


def parse_subject(text: str) -> "Subject":
    """Parse KIND=ID; the id may hold further equals signs. Raises UsageError."""
    from lakehouse.maintenance.subjects import Subject

    kind, equals, subject_id = text.partition("=")
    if not equals or not kind or not subject_id:
        raise typer.BadParameter(f"expected KIND=ID such as customer=C-17, found {text!r}", param_hint="--subject")
    return Subject(kind, subject_id)


def open_catalogs(endpoints: "Endpoints") -> "list[LakeCatalog]":
    """Return both catalogs of a stack; the caller disposes of their engines."""
    from lakehouse.catalog import open_catalog
    from lakehouse.config import CatalogConfig

    def config(store: "StoreEndpoint") -> CatalogConfig:
        return CatalogConfig(
            name=store.catalog,
            uri=store.catalog_uri,
            warehouse=store.warehouse,
            s3_endpoint=store.endpoint_url,
            s3_access_key=store.key_id,
            s3_secret_key=store.secret,
            s3_region=store.region,
        )

    return [open_catalog(config(store)) for store in (endpoints.store_a, endpoints.store_b)]


def erase_all(
    catalogs: "Iterable[LakeCatalog]", subject: "Subject", only: str | None, dry_run: bool, actor: str
) -> "Iterable[Erased]":
    """Yield what was done in each table that may have the subject. Raises OperatorMustActError for an unknown table."""
    from contracts.errors import OperatorMustActError
    from lakehouse.maintenance.erasure import erase as erase_table
    from lakehouse.maintenance.erasure import find, tables_of
    from lakehouse.process import WallClock

    catalog_name, _, table_name = (only or "").partition(".")
    searched = False
    for catalog in catalogs:
        if only is not None and catalog.name != catalog_name:
            continue
        for table, rule in tables_of(catalog, subject, table_name or None):
            searched = True
            yield (find(catalog, table, rule) if dry_run else erase_table(catalog, table, rule, actor, WallClock()))
    if only is not None and not searched:
        raise OperatorMustActError(
            f"table {only}: expected a table of the lake that may have a {subject.kind}, CATALOG.NAMESPACE.TABLE: "
            "leave --table out to search all of them"
        )


def lines(found: "Erased", dry_run: bool) -> list[str]:
    """Return what to say of one table."""
    if dry_run:
        return [f"{found.table}: {found.rows} rows in {found.files} files would be removed"]
    verdict = "verified: nothing is left" if found.verified else "NOT finished"
    told = [
        f"{found.table}: {found.rows} rows removed, {found.rewritten} files written again, {found.snapshots} snapshots "
        f"dropped, {found.files_removed} files deleted; {verdict}"
    ]
    told += [f"  still there: {place}" for place in found.remaining]
    told += [f"  a writer may still commit it, repeat in ten minutes: {place}" for place in found.pending]
    told += [f"  stays: {place}" for place in found.kept]
    return told


def _json(found: "Erased") -> str:
    import msgspec

    return msgspec.json.encode({**msgspec.structs.asdict(found), "verified": found.verified}).decode()
