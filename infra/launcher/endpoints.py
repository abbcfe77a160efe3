"""How to reach a running copy of the stack: one document, written at start, read by everything outside of it."""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from infra.launcher.certificates import LAUNCHER_NAME, OPERATOR_NAME
from infra.launcher.errors import SettingsError
from infra.launcher.files import write_file
from infra.launcher.model import Context
from infra.launcher.parts import flink, kafka, postgres, store_a, store_b, trino
from infra.launcher.parts.buckets import REGION, Bucket
from infra.launcher.settings import HOST, StackSettings

ENDPOINTS_VARIABLE: Final = "FIELDLAKE_TEST_ENDPOINTS"  # path of an endpoints.json whose stack tests shall use


class TlsFiles(Struct, frozen=True, forbid_unknown_fields=True):
    """Paths of PEM files: the authority, and one client's certificate and key."""

    ca_file: str
    cert_file: str
    key_file: str


class MqttEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """The broker: `port` for devices, `bootstrap_port` for devices to be, `services_port` for whom `operator` names."""

    host: str
    port: int
    bootstrap_port: int
    services_port: int
    ca_file: str
    operator: TlsFiles


class KafkaEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """The log: plain on loopback, and the production listener for clients with a certificate."""

    bootstrap: str
    bootstrap_tls: str
    tls: TlsFiles


class PostgresEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """PostgreSQL; databases `lake` (Iceberg catalogs) and `crm`."""

    host: str
    port: int
    user: str
    password: str

    def uri(self, database: str, driver: str = "postgresql") -> str:
        """Return the address of a database, with its password, for a driver such as `postgresql+psycopg2`."""
        return f"{driver}://{self.user}:{self.password}@{self.host}:{self.port}/{database}"


class StoreEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """An object store, and the Iceberg catalog whose files it holds."""

    catalog: str
    catalog_uri: str
    warehouse: str
    endpoint_url: str
    bucket: str
    region: str
    key_id: str
    secret: str


class TrinoEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """Trino over TLS. `user` may write, `analyst_user` only reads."""

    host: str
    port: int
    ca_file: str
    user: str
    password: str
    analyst_user: str
    analyst_password: str


class HistoryEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """The query API over TLS; send the token as `Authorization: Bearer`."""

    url: str
    ca_file: str
    token: str


class BundlesEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle server, for devices with their certificates, and the root that they are given to trust."""

    url: str
    ca_file: str
    root_file: str


class Endpoints(Struct, frozen=True, forbid_unknown_fields=True):
    """Every address of one copy of the stack, with what opens it. Holds passwords: the file has mode 0600."""

    state_dir: str
    port_base: int
    mqtt: MqttEndpoint
    kafka: KafkaEndpoint
    postgres: PostgresEndpoint
    store_a: StoreEndpoint
    store_b: StoreEndpoint
    trino: TrinoEndpoint
    history: HistoryEndpoint
    bundles: BundlesEndpoint
    flink_url: str

    def settings(self) -> StackSettings:
        """Return the settings of this copy, for what only the launcher can do (certificates, restarts)."""
        return StackSettings(state_dir=Path(self.state_dir), port_base=self.port_base)


def endpoints_file(settings: StackSettings) -> Path:
    """Return where the document lies."""
    return settings.conf_dir / "endpoints.json"


def write_endpoints(context: Context) -> Endpoints:
    """Write the document and return what it says."""
    endpoints = endpoints_of(context)
    write_file(endpoints_file(context.settings), msgspec.json.format(msgspec.json.encode(endpoints)))
    return endpoints


def read_endpoints(path: Path) -> Endpoints:
    """Read the document of a stack that was started; raises SettingsError when there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Endpoints)
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: expected the addresses of a running stack, found no file; run `fieldlake up`"
        ) from None
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{path}: not the addresses of this version ({error}); run `fieldlake up` again") from None


def endpoints_of(context: Context) -> Endpoints:
    """Return every address that follows from settings and secrets."""
    settings, secrets = context.settings, context.secrets
    database = PostgresEndpoint(
        host=HOST, port=settings.port("postgres"), user=postgres.USER, password=secrets.postgres_password
    )
    ca_file = str(context.certificate(LAUNCHER_NAME).ca_file)
    return Endpoints(
        state_dir=str(settings.state_dir),
        port_base=settings.port_base,
        mqtt=MqttEndpoint(
            host=HOST,
            port=settings.port("mosquitto"),
            bootstrap_port=settings.port("mosquitto_bootstrap"),
            services_port=settings.port("mosquitto_services"),
            ca_file=ca_file,
            operator=_tls_files(context, OPERATOR_NAME),
        ),
        kafka=KafkaEndpoint(kafka.bootstrap(context), kafka.bootstrap_tls(context), _tls_files(context, LAUNCHER_NAME)),
        postgres=database,
        store_a=_store("lake_a", database, store_a.bucket(context)),
        store_b=_store("lake_b", database, store_b.bucket(context)),
        trino=TrinoEndpoint(
            host=HOST,
            port=settings.port("trino"),
            ca_file=ca_file,
            user=trino.USER,
            password=secrets.trino_password,
            analyst_user=trino.ANALYST,
            analyst_password=secrets.trino_analyst_password,
        ),
        history=HistoryEndpoint(f"https://{HOST}:{settings.port('history')}", ca_file, secrets.history_token),
        bundles=BundlesEndpoint(
            f"https://{HOST}:{settings.port('bundles')}",
            ca_file,
            str(settings.data_dir / "bundles" / "served" / "metadata" / "1.root.json"),
        ),
        flink_url=flink.rest_url(context),
    )


def _store(catalog: str, database: PostgresEndpoint, bucket: Bucket) -> StoreEndpoint:
    return StoreEndpoint(
        catalog=catalog,
        catalog_uri=database.uri("lake", "postgresql+psycopg2"),
        warehouse=f"s3://{bucket.name}/wh",
        endpoint_url=bucket.endpoint_url,
        bucket=bucket.name,
        region=REGION,
        key_id=bucket.key_id,
        secret=bucket.secret,
    )


def _tls_files(context: Context, name: str) -> TlsFiles:
    paths = context.certificate(name)
    return TlsFiles(str(paths.ca_file), str(paths.certificate_file), str(paths.key_file))
