"""Trino: SQL over both stores and PostgreSQL; clients come in by TLS and password."""

from collections.abc import Mapping
from typing import Final

import bcrypt
import requests

from federation.access import ANALYST_USER, PLATFORM_USER, access_rules
from federation.config import TrinoConfig
from infra.launcher.certificates import LAUNCHER_NAME, SERVER_NAME
from infra.launcher.errors import NotReadyError, PartFailedError
from infra.launcher.files import write_file
from infra.launcher.model import ConfigFile, Context, Part
from infra.launcher.parts import postgres, store_a, store_b
from infra.launcher.parts.buckets import REGION, Bucket
from infra.launcher.settings import HOST
from infra.setup.paths import java_25_home, trino_home

NAME: Final = "trino"
USER: Final = PLATFORM_USER
ANALYST: Final = ANALYST_USER
BCRYPT_ROUNDS: Final = 10  # Trino refuses less than 8; more is paid at every login that its cache has forgotten
# How often Trino reads its password file anew. It then forgets whom it knows, and each user's next request pays for the
# hash again: at 5 s that was 4 % of a warming engine's time. A changed password is in force that much later.
PASSWORDS_READ: Final = "10m"
REACH_TIMEOUT_S: Final = 2.0

# Distributed, so it fails until the node has joined itself; touches no source, so it needs no other part.
PROBE_QUERY: Final = "SELECT count(*) FROM tpch.tiny.nation"

JVM_OPTIONS: Final = (
    "-server",
    # Each new literal makes new classes, so the optimising compiler never ends: decision 20.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseParallelGC",
    "-XX:ReservedCodeCacheSize=256M",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-OmitStackTraceInFastThrow",
    "-Djdk.attach.allowAttachSelf=true",
    "-Djol.skipDynamicAttach=true",
    "-Djdk.nio.maxCachedBufferSize=2000000",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

SMALL_SERVER: Final = {
    # A line for every request, those of the node to itself among them.
    "http-server.log.enabled": "false",
    "query.max-memory": "300MB",
    "query.max-memory-per-node": "300MB",
    "memory.heap-headroom-per-node": "200MB",
    # The default keeps so many finished queries that the collector runs without end in a small heap.
    "query.max-history": "20",
    "query.min-expire-age": "5s",
    "task.concurrency": "1",
    "task.max-worker-threads": "4",
    "task.min-drivers": "4",
    "query.executor-pool-size": "50",
    "task.http-response-threads": "10",
    "exchange.client-threads": "4",
    "http-server.threads.max": "50",
    "optimizer.join-reordering-strategy": "NONE",
    "join-distribution-type": "BROADCAST",
}


def part(context: Context) -> Part:
    """Return the part."""
    conf = context.conf(NAME)
    settings = context.settings
    return Part(
        name=NAME,
        title="Trino",
        command=(
            str(java_25_home() / "bin" / "java"),
            f"@{conf / 'jvm.config'}",
            *(f"-D{key}={value}" for key, value in node_settings(context).items()),
            f"-Dconfig={conf / 'etc' / 'config.properties'}",
            f"-Dlog.levels-file={conf / 'etc' / 'log.properties'}",
            "-cp",
            str(trino_home() / "lib" / "*"),
            "io.trino.server.TrinoServer",
        ),
        address=f"https://{HOST}:{settings.port('trino')}",
        probe=probe,
        needs=(postgres.NAME,),
        files=(
            ConfigFile(conf / "jvm.config", jvm_settings(context)),
            ConfigFile(conf / "etc" / "config.properties", _properties(server_settings(context))),
            ConfigFile(
                conf / "etc" / "log.properties",
                "Bootstrap=WARN\nio.trino=WARN\nio.airlift=WARN\nio.trino.server.Server=INFO\n",
            ),
            ConfigFile(conf / "etc" / "password-authenticator.properties", _properties(login_settings(context))),
            ConfigFile(conf / "etc" / "access-control.properties", _properties(access_settings(context))),
            ConfigFile(conf / "etc" / "rules.json", access_rules((*CATALOG_BUCKETS, "crm")).decode()),
            *(
                ConfigFile(conf / "etc" / "catalog" / f"{name}.properties", _properties(values))
                for name, values in catalogs(context).items()
            ),
        ),
        # Relative names in its configuration start from here.
        directory=conf,
        ports=("trino", "trino_internal"),
        owned=(context.data(NAME), conf),
        prepare=prepare,
        stop_wait_s=20,
        ready_within_s=240,
    )


CATALOG_BUCKETS: Final = {"lake_a": store_a.bucket, "lake_b": store_b.bucket}


def client_config(context: Context) -> TrinoConfig:
    """Return how the platform's own user reaches it."""
    return TrinoConfig(
        host=HOST,
        port=context.settings.port("trino"),
        ca_file=str(context.certificate(LAUNCHER_NAME).ca_file),
        user=USER,
        password=context.secrets.trino_password,
    )


def node_settings(context: Context) -> dict[str, object]:
    """Return what Trino's own launcher reads from `node.properties`."""
    return {
        "node.environment": "fieldlake",
        "node.id": f"local-{context.settings.instance}",
        "node.data-dir": context.data(NAME),
        "node.internal-address": HOST,
        "node.bind-ip": HOST,
    }


def jvm_settings(context: Context) -> str:
    """Render `jvm.config`, one option a line."""
    heap = context.settings.memory.trino_heap_mib
    return "\n".join((JVM_OPTIONS[0], f"-Xms{heap}M", f"-Xmx{heap}M", *JVM_OPTIONS[1:])) + "\n"


def server_settings(context: Context) -> dict[str, object]:
    """Return `config.properties`: HTTP carries only the node's talk with itself, by shared secret."""
    settings = context.settings
    internal = settings.port("trino_internal")
    return {
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        "http-server.http.port": internal,
        "discovery.uri": f"http://{HOST}:{internal}",
        "http-server.https.enabled": "true",
        "http-server.https.port": settings.port("trino"),
        "http-server.https.keystore.path": context.certificate(SERVER_NAME).chain_file,
        "http-server.authentication.type": "PASSWORD",
        "internal-communication.shared-secret": context.secrets.trino_shared_secret,
        "plugin.dir": trino_home() / "plugin",
        **SMALL_SERVER,
    }


def login_settings(context: Context) -> dict[str, object]:
    """Return `password-authenticator.properties`."""
    return {
        "password-authenticator.name": "file",
        "file.password-file": context.conf(NAME) / "etc" / "password.db",
        "file.refresh-period": PASSWORDS_READ,
    }


def access_settings(context: Context) -> dict[str, object]:
    """Return `access-control.properties`."""
    return {
        "access-control.name": "file",
        "security.config-file": context.conf(NAME) / "etc" / "rules.json",
        "security.refresh-period": "1s",
    }


def catalogs(context: Context) -> dict[str, dict[str, object]]:
    """Return the properties of every catalog by name."""
    found = {name: _iceberg(context, name, bucket(context)) for name, bucket in CATALOG_BUCKETS.items()}
    found["crm"] = {
        "connector.name": "postgresql",
        "connection-url": _jdbc_url(context, "crm"),
        "connection-user": postgres.USER,
        "connection-password": context.secrets.postgres_password,
        "dynamic-filtering.wait-timeout": "300ms",  # the default waits 20 s
        "statistics.enabled": "false",
        "metadata.cache-ttl": "60s",
        "metadata.cache-missing": "true",
    }
    found["tpch"] = {"connector.name": "tpch", "tpch.splits-per-node": "1"}
    return found


def password_file(context: Context) -> str:
    """Render the users with their bcrypt hashes; new salts at every call."""
    users = {USER: context.secrets.trino_password, ANALYST: context.secrets.trino_analyst_password}
    return "".join(f"{user}:{_hash(password)}\n" for user, password in users.items())


def prepare(context: Context) -> None:
    """Write the users once; their file is read anew by a running server."""
    if not any((trino_home() / "lib").glob("*.jar")):
        raise PartFailedError(f"trino: no jars in {trino_home() / 'lib'}; run `make setup`")
    path = context.conf(NAME) / "etc" / "password.db"
    if not path.exists():
        write_file(path, password_file(context).encode())


def probe(context: Context) -> None:
    """Run a distributed query as the platform's user."""
    from contracts.errors import FieldlakeError
    from federation.trino import TrinoClient

    _refuse_while_closed(context)
    try:
        with TrinoClient(client_config(context)) as client:
            client.query(PROBE_QUERY)
    except FieldlakeError as error:
        raise NotReadyError(f"trino: {error}") from None


def _refuse_while_closed(context: Context) -> None:
    """Ask the server's own state first: a statement to a half-started server is answered late."""
    url = f"http://{HOST}:{context.settings.port('trino_internal')}/v1/info"
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(url, timeout=REACH_TIMEOUT_S).json()
        except (requests.RequestException, ValueError) as error:
            raise NotReadyError(f"trino: {error}") from None
    if answer.get("starting", True):
        raise NotReadyError("trino: still starting")


def _iceberg(context: Context, name: str, bucket: Bucket) -> dict[str, object]:
    return {
        "connector.name": "iceberg",
        "iceberg.catalog.type": "jdbc",
        "iceberg.jdbc-catalog.driver-class": "org.postgresql.Driver",
        "iceberg.jdbc-catalog.connection-url": _jdbc_url(context, "lake"),
        "iceberg.jdbc-catalog.connection-user": postgres.USER,
        "iceberg.jdbc-catalog.connection-password": context.secrets.postgres_password,
        # A name other than PyIceberg's shows a second, silently empty catalog.
        "iceberg.jdbc-catalog.catalog-name": name,
        "iceberg.jdbc-catalog.default-warehouse-dir": f"s3://{bucket.name}/wh",
        "iceberg.jdbc-catalog.schema-version": "V1",
        "iceberg.dynamic-filtering.wait-timeout": "300ms",
        "iceberg.table-statistics-enabled": "false",
        # File rules do not cover `ALTER TABLE ... EXECUTE`: without this an analyst could expire snapshots.
        "iceberg.security": "read_only",
        "iceberg.metadata-cache.enabled": "true",
        "fs.native-s3.enabled": "true",
        "fs.memory-cache.max-size": "64MB",
        "fs.memory-cache.ttl": "1h",
        "s3.endpoint": bucket.endpoint_url,
        "s3.region": REGION,
        "s3.path-style-access": "true",
        "s3.aws-access-key": bucket.key_id,
        "s3.aws-secret-key": bucket.secret,
    }


def _jdbc_url(context: Context, database: str) -> str:
    return f"jdbc:postgresql://{HOST}:{context.settings.port('postgres')}/{database}"


def _hash(password: str) -> str:
    # The same algorithm; Trino knows it only by the prefix of another implementation.
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode().replace("$2b$", "$2y$", 1)


def _properties(values: Mapping[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())
