"""Our own processes: each takes one JSON file, and makes `FILE.ready` once it does its work."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import requests
from msgspec import Struct

from federation import config as federation_config
from flink_jobs.triggers.config import PreselectConfig, TriggersConfig
from gateway.bundles.config import BundlesConfig
from gateway.config import GatewayConfig, MqttConfig
from gateway.enrolment.authority import DEVICES, public_dir
from gateway.enrolment.config import EnrolmentConfig
from infra.launcher.certificates import ENROLMENT_NAME, GATEWAY_NAME, OPERATOR_NAME, SERVER_NAME
from infra.launcher.errors import NotReadyError
from infra.launcher.job_keeper import JobKeeperConfig
from infra.launcher.model import ConfigFile, Context, Part
from infra.launcher.parts import flink, kafka, mosquitto, postgres, store_a, store_b, trino
from infra.launcher.parts.buckets import REGION, Bucket
from infra.launcher.settings import HOST
from infra.launcher.supervision import Supervisor
from infra.setup.paths import flink_home, lake_python, quality_env, repo_root, site_packages
from lakehouse.config import CatalogConfig, LakeConfig
from lakehouse.mirror.config import DatabaseConfig, MirrorConfig
from lakehouse.quality.config import EngineConfig, QualityConfig

GATEWAY: Final = "gateway"
ENROLMENT: Final = "enrolment"
INGEST: Final = "ingest"
MAINTENANCE: Final = "maintenance"
QUALITY: Final = "quality"
MIRROR: Final = "crm-mirror"
PRESELECT: Final = "preselect"
TRIGGER_JOB: Final = "trigger-job"
HISTORY: Final = "history"
BUNDLES: Final = "bundles"
WARMER: Final = "trino-warmer"

CONFIG_FILE: Final = "config.json"
READY_FILE: Final = f"{CONFIG_FILE}.ready"
TRIGGER_JOB_NAME: Final = "fieldlake-triggers"  # under which Flink runs the job
REACH_TIMEOUT_S: Final = 2.0
JOB_READY_WITHIN_S: Final = 300  # `flink run` takes 9 to 23 s on an idle machine, and waits for a slot before


def parts(context: Context) -> tuple[Part, ...]:
    """Return all of them."""
    stores = (kafka.NAME, postgres.NAME, store_a.NAME, store_b.NAME)
    broker = f"{HOST}:{context.settings.port('mosquitto_services')} -> {kafka.bootstrap(context)}"
    return (
        _service(
            context, GATEWAY, "MQTT gateway", "gateway", gateway_config(context), (mosquitto.NAME, kafka.NAME), broker
        ),
        _service(
            context,
            ENROLMENT,
            "Enrolment",
            "gateway.enrolment",
            enrolment_config(context),
            (mosquitto.NAME,),
            f"{HOST}:{context.settings.port('mosquitto_services')}",
        ),
        *(_ingest(context, number, stores) for number in range(1, context.settings.ingest_workers + 1)),
        _service(context, MAINTENANCE, "Table maintenance", "lakehouse.maintenance", lake_config(context), (INGEST,)),
        _quality(context),
        _service(
            context, MIRROR, "CRM mirror", "lakehouse.mirror", mirror_config(context), (kafka.NAME, postgres.NAME)
        ),
        _service(
            context,
            PRESELECT,
            "Preselector",
            "flink_jobs.triggers.preselect",
            PreselectConfig(kafka_bootstrap=kafka.bootstrap(context)),
            (kafka.NAME,),
        ),
        _trigger_job(context),
        _history(context),
        _warmer(context),
        _bundles(context),
    )


def config_path(context: Context, name: str) -> Path:
    """Return where the configuration of one of our processes lies."""
    return context.conf(name) / CONFIG_FILE


def ready_path(context: Context, name: str) -> Path:
    """Return the file that the process makes when it does its work."""
    return context.conf(name) / READY_FILE


def ingest_name(number: int) -> str:
    """Return the part's name of an ingest worker; they are counted from 1."""
    return INGEST if number == 1 else f"{INGEST}-{number}"


def _ingest(context: Context, number: int, needs: tuple[str, ...]) -> Part:
    config = msgspec.structs.replace(lake_config(context), worker=f"{INGEST}-{number}")
    return _service(context, ingest_name(number), "Ingest", "lakehouse", config, needs)


def gateway_config(context: Context) -> GatewayConfig:
    """Return the gateway's configuration."""
    return GatewayConfig(
        kafka_bootstrap=kafka.bootstrap(context), mqtt=mqtt_config(context, GATEWAY_NAME, "mosquitto_services")
    )


def enrolment_config(context: Context) -> EnrolmentConfig:
    """Return the configuration of the enrolment service."""
    return EnrolmentConfig(
        mqtt=mqtt_config(context, ENROLMENT_NAME, "mosquitto_services"),
        folder=str(mosquitto.identity_dir(context)),
        operators=(OPERATOR_NAME,),
    )


def mqtt_config(context: Context, name: str, listener: str) -> MqttConfig:
    """Return how one of our own identities reaches a listener of the broker."""
    own = context.certificate(name)
    return MqttConfig(
        host=HOST,
        port=context.settings.port(listener),
        ca_file=str(own.ca_file),
        cert_file=str(own.certificate_file),
        key_file=str(own.key_file),
    )


def lake_config(context: Context) -> LakeConfig:
    """Return the configuration of ingest and maintenance."""
    catalogs = tuple(
        CatalogConfig(
            name=name,
            uri=postgres.uri(context, "lake"),
            warehouse=warehouse(bucket),
            s3_endpoint=bucket.endpoint_url,
            s3_access_key=bucket.key_id,
            s3_secret_key=bucket.secret,
            s3_region=REGION,
        )
        for name, bucket in (("lake_a", store_a.bucket(context)), ("lake_b", store_b.bucket(context)))
    )
    return LakeConfig(kafka_bootstrap=kafka.bootstrap(context), catalogs=catalogs)


def quality_config(context: Context) -> QualityConfig:
    """Return the configuration of the quality process."""
    lake, engine = lake_config(context), trino.client_config(context)
    return QualityConfig(
        kafka_bootstrap=lake.kafka_bootstrap,
        catalogs=lake.catalogs,
        expectations_dir=str(expectations_dir(context)),
        report_dir=str(report_dir(context)),
        engine=EngineConfig(engine.host, engine.port, engine.ca_file, engine.user, engine.password),
    )


def expectations_dir(context: Context) -> Path:
    """Return the folder in which analysts put their expectations."""
    return context.conf(QUALITY) / "expectations"


def report_dir(context: Context) -> Path:
    """Return where the pages on data quality go: beside the state folder, since they outlive it."""
    return context.settings.state_dir.parent / "out" / "quality"


def mirror_config(context: Context) -> MirrorConfig:
    """Return the configuration of the CRM mirror."""
    database = DatabaseConfig(
        host=HOST,
        port=context.settings.port("postgres"),
        database="crm",
        user=postgres.MIRROR_USER,
        password=context.secrets.postgres_mirror_password,
    )
    return MirrorConfig(kafka_bootstrap=kafka.bootstrap(context), database=database)


def history_config(context: Context) -> federation_config.FederationConfig:
    """Return the configuration of the query API and the warmer."""
    bucket, server = store_a.bucket(context), context.certificate(SERVER_NAME)
    return federation_config.FederationConfig(
        catalog=federation_config.CatalogConfig(
            name="lake_a",
            uri=postgres.uri(context, "lake"),
            warehouse=warehouse(bucket),
            s3_endpoint=bucket.endpoint_url,
            s3_access_key=bucket.key_id,
            s3_secret_key=bucket.secret,
            s3_region=REGION,
        ),
        trino=trino.client_config(context),
        host=HOST,
        port=context.settings.port("history"),
        tls_cert_file=str(server.certificate_file),
        tls_key_file=str(server.key_file),
        token_file=str(_token_file(context)),
    )


def bundles_config(context: Context) -> BundlesConfig:
    """Return the configuration of the bundle server."""
    server, home = context.certificate(SERVER_NAME), context.data(BUNDLES)
    return BundlesConfig(
        host=HOST,
        port=context.settings.port("bundles"),
        tls_cert_file=str(server.certificate_file),
        tls_key_file=str(server.key_file),
        client_ca_file=str(public_dir(mosquitto.identity_dir(context)) / f"{DEVICES}.pem"),
        served_dir=str(home / "served"),
        groups_file=str(home / "groups.json"),
        seen_file=str(home / "seen.json"),
        mqtt=gateway_config(context).mqtt,
    )


def warehouse(bucket: Bucket) -> str:
    """Return where a catalog's tables lie in its bucket."""
    return f"s3://{bucket.name}/wh"


def job_keeper_config(context: Context) -> JobKeeperConfig:
    """Return what keeps the trigger job submitted."""
    job = repo_root() / "flink_jobs" / "triggers" / "job.py"
    job_config = str(context.conf(TRIGGER_JOB) / "job.json")
    return JobKeeperConfig(
        rest_url=flink.rest_url(context),
        job_name=TRIGGER_JOB_NAME,
        command=(str(flink_home() / "bin" / "flink"), "run", "-d", "-py", str(job), "--config", job_config),
        environment={
            **flink.environment(context),
            # The client unpacks the job there; the machine's own folder belongs to the first user who did so.
            "FLINK_ENV_JAVA_OPTS_CLI": "-Xmx192m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "
            f"-Djava.io.tmpdir={flink.temporary(context)}",
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
        },
        ready_file=str(ready_path(context, TRIGGER_JOB)),
    )


def _trigger_job(context: Context) -> Part:
    checkpoints = context.data(flink.CONF) / "checkpoints" / TRIGGER_JOB
    job_config = TriggersConfig(kafka_bootstrap=kafka.bootstrap(context), checkpoint_dir=str(checkpoints))
    needs = (kafka.NAME, flink.JOB_MANAGER, flink.TASK_MANAGER)
    keeper = _service(
        context, TRIGGER_JOB, "Trigger job", "infra.launcher.job_keeper", job_keeper_config(context), needs,
        flink.rest_url(context),
    )  # fmt: skip
    job_file = _json_file(context.conf(TRIGGER_JOB) / "job.json", job_config)
    return msgspec.structs.replace(keeper, files=(*keeper.files, job_file), ready_within_s=JOB_READY_WITHIN_S)


def _history(context: Context) -> Part:
    service = _service(
        context, HISTORY, "History API", "federation", history_config(context), (postgres.NAME, store_a.NAME),
        f"https://{HOST}:{context.settings.port('history')}",
    )  # fmt: skip
    token = ConfigFile(_token_file(context), context.secrets.history_token)
    return msgspec.structs.replace(service, files=(*service.files, token), ports=("history",), probe=_probe_history)


def _quality(context: Context) -> Part:
    """It needs the tables only; the engine is asked when it answers."""
    service = _service(
        context, QUALITY, "Data quality", "lakehouse.quality", quality_config(context), (INGEST,),
        str(report_dir(context)),
    )  # fmt: skip
    return msgspec.structs.replace(
        service,
        environment={"PYTHONPATH": str(site_packages(quality_env()))},
        owned=(*service.owned, expectations_dir(context)),
    )


def _warmer(context: Context) -> Part:
    """It says ready once all canned queries have run, which needs data: for the stack it is enough that it tries."""
    service = _service(
        context, WARMER, "Trino warmer", "federation.warmup", history_config(context), (trino.NAME, INGEST),
        f"https://{HOST}:{context.settings.port('trino')}",
    )  # fmt: skip
    return msgspec.structs.replace(service, probe=_probe_of(WARMER, f"{CONFIG_FILE}.status.json"))


def _bundles(context: Context) -> Part:
    service = _service(
        context, BUNDLES, "Bundle server", "gateway.bundles", bundles_config(context), (mosquitto.NAME,),
        f"https://{HOST}:{context.settings.port('bundles')}",
    )  # fmt: skip
    owned = (*service.owned, context.data(BUNDLES))
    return msgspec.structs.replace(service, ports=("bundles",), owned=owned, prepare=_prepare_bundles)


def _prepare_bundles(context: Context) -> None:
    """Make or renew the repository. What signs is imported here only: most commands never need it."""
    from infra.bundles.local import ensure_repository

    ensure_repository(context.settings)


def _service(
    context: Context,
    name: str,
    title: str,
    module: str,
    config: Struct,
    needs: tuple[str, ...],
    address: str = "",
) -> Part:
    path = config_path(context, name)
    return Part(
        name=name,
        title=title,
        command=(str(lake_python()), "-m", module, "--config", str(path)),
        address=address or kafka.bootstrap(context),
        probe=_probe_of(name),
        needs=needs,
        files=(_json_file(path, config),),
        directory=context.conf(name),
        owned=(context.conf(name),),
    )


def _json_file(path: Path, value: Struct) -> ConfigFile:
    return ConfigFile(path, msgspec.json.format(msgspec.json.encode(value)).decode())


def _token_file(context: Context) -> Path:
    return context.conf(HISTORY) / "token"


def _probe_of(name: str, file_name: str = READY_FILE) -> Callable[[Context], None]:
    def probe(context: Context) -> None:
        """Compare times: a killed process leaves its file behind, and only the next one's is newer than that one."""
        state = Supervisor(context.settings).states()[name]
        try:
            made_at_s = (context.conf(name) / file_name).stat().st_mtime
        except FileNotFoundError:
            raise NotReadyError(f"{name}: has not said that it is ready") from None
        if state.pid == 0 or made_at_s < state.started_at_s:
            raise NotReadyError(f"{name}: is starting again")

    return probe


def _probe_history(context: Context) -> None:
    """Ask it over TLS."""
    url = f"https://{HOST}:{context.settings.port('history')}/ready"
    headers = {"Authorization": f"Bearer {context.secrets.history_token}"}
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(
                url, headers=headers, timeout=REACH_TIMEOUT_S, verify=str(context.certificate(SERVER_NAME).ca_file)
            )
        except requests.RequestException as error:
            raise NotReadyError(f"{HISTORY}: {error}") from None
    if answer.status_code != requests.codes.ok:
        raise NotReadyError(f"{HISTORY}: {url} answered {answer.status_code}")
