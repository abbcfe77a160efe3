"""Rendered configuration: each package parses its own with its own class; brokers and engines get what was proved."""

import re
from pathlib import Path

import bcrypt
import msgspec
import pytest
import yaml

from federation.config import FederationConfig
from flink_jobs.triggers.config import PreselectConfig, TriggersConfig
from gateway.bundles.config import BundlesConfig
from gateway.config import GatewayConfig
from gateway.enrolment.config import EnrolmentConfig
from infra.launcher.endpoints import Endpoints, endpoints_file, endpoints_of, read_endpoints, write_endpoints
from infra.launcher.errors import SettingsError
from infra.launcher.files import write_file
from infra.launcher.job_keeper import JobKeeperConfig, JobState, find_job
from infra.launcher.model import Context, Part
from infra.launcher.parts import flink, kafka, mosquitto, postgres, services, store_a, trino
from infra.launcher.parts.catalogue import all_parts
from infra.launcher.secrets import generate_secrets
from infra.launcher.settings import StackSettings
from infra.launcher.supervision import render_config
from infra.setup.paths import repo_root
from lakehouse.config import LakeConfig
from lakehouse.mirror.config import MirrorConfig
from lakehouse.quality.config import QualityConfig


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(StackSettings(tmp_path / "state", 30_000), generate_secrets())


@pytest.fixture
def parts(context: Context) -> dict[str, Part]:
    return all_parts(context)


def properties(text: str) -> dict[str, str]:
    """Parse `key=value` lines."""
    return dict(line.split("=", 1) for line in text.splitlines() if line)


def rendered(part: Part, name: str) -> str:
    """Return the text of one of a part's files."""
    return next(file.text for file in part.files if file.path.name == name)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (services.GATEWAY, GatewayConfig),
        (services.ENROLMENT, EnrolmentConfig),
        (services.INGEST, LakeConfig),
        (services.MAINTENANCE, LakeConfig),
        (services.QUALITY, QualityConfig),
        (services.MIRROR, MirrorConfig),
        (services.PRESELECT, PreselectConfig),
        (services.TRIGGER_JOB, JobKeeperConfig),
        (services.HISTORY, FederationConfig),
        (services.WARMER, FederationConfig),
        (services.BUNDLES, BundlesConfig),
    ],
)
def test_each_process_is_given_a_file_that_its_own_class_parses(
    parts: dict[str, Part], part: str, kind: type[msgspec.Struct]
) -> None:
    found = msgspec.json.decode(rendered(parts[part], "config.json"), type=kind)
    assert parts[part].command[-2:] == ("--config", str(parts[part].files[0].path))
    assert isinstance(found, kind)


def test_the_job_is_submitted_with_its_own_file(parts: dict[str, Part]) -> None:
    keeper = msgspec.json.decode(rendered(parts[services.TRIGGER_JOB], "config.json"), type=JobKeeperConfig)
    job = msgspec.json.decode(rendered(parts[services.TRIGGER_JOB], "job.json"), type=TriggersConfig)
    assert keeper.command[-1] == str(parts[services.TRIGGER_JOB].files[1].path)
    assert Path(keeper.command[-3]).is_file()
    assert job.kafka_bootstrap == "127.0.0.1:30040"
    # Flink's own environment has no launcher to import the name from, so the two are compared here.
    source = (repo_root() / "flink_jobs" / "triggers" / "job.py").read_text()
    assert f'JOB_NAME = "{keeper.job_name}"' in source


def test_every_way_into_the_broker_wants_a_certificate_and_has_rules(context: Context) -> None:
    blocks = mosquitto.broker_settings(context).split("listener ")[1:]
    ports = ("mosquitto", "mosquitto_bootstrap", "mosquitto_services")
    assert [block.splitlines()[0] for block in blocks] == [f"{context.settings.port(name)} 127.0.0.1" for name in ports]
    for block, name in zip(blocks, ports, strict=True):
        lines = block.splitlines()[1:]
        assert {"allow_anonymous false", "require_certificate true", "use_identity_as_username true"} <= set(lines)
        assert f"acl_file {context.data('mosquitto')}/acl-{name}" in lines
        by_name = name in ("mosquitto", "mosquitto_bootstrap")
        assert f"use_username_as_clientid {str(by_name).lower()}" in lines
        assert any(line.startswith("crlfile ") for line in lines) == (name == "mosquitto")


def test_the_broker_gives_out_no_session_tickets(context: Context, parts: dict[str, Part]) -> None:
    assert "NumTickets = 0" in mosquitto.tls_settings()
    assert parts["mosquitto"].environment == {"OPENSSL_CONF": str(context.data("mosquitto") / "openssl.cnf")}


def test_kafka_listens_plain_on_loopback_and_with_certificates(context: Context) -> None:
    found = properties(kafka.server_settings(context))
    expected = "PLAINTEXT://127.0.0.1:30040,TLS://127.0.0.1:30042,CONTROLLER://127.0.0.1:30041"
    assert found["listeners"] == found["advertised.listeners"] == expected
    assert found["listener.name.tls.ssl.client.auth"] == "required"
    assert found["auto.create.topics.enable"] == "false"


def test_kafka_is_formatted_with_an_id_that_begins_with_a_dash(context: Context) -> None:
    given = "-Zf0AAAAQAGAAAAAAAAAAA"
    found = Context(context.settings, msgspec.structs.replace(context.secrets, kafka_cluster_id=given))
    for file in kafka.part(found).files:
        write_file(file.path, file.text.encode())
    kafka.prepare(found)
    assert f"cluster.id={given}" in (found.data(kafka.NAME) / "log" / "meta.properties").read_text().splitlines()


def test_a_password_opens_postgres_and_nothing_else_does() -> None:
    assert postgres.access_rules() == (
        "host all fieldlake 127.0.0.1/32 scram-sha-256\nhost crm fieldlake_mirror 127.0.0.1/32 scram-sha-256\n"
    )


def test_store_a_knows_one_identity(context: Context) -> None:
    (identity,) = msgspec.json.decode(store_a.identities(context))["identities"]
    assert identity["credentials"] == [
        {"accessKey": context.secrets.store_a_key_id, "secretKey": context.secrets.store_a_secret}
    ]


def test_trino_reads_the_catalogs_that_the_writers_fill(context: Context) -> None:
    found = trino.catalogs(context)
    for written in services.lake_config(context).catalogs:
        read = found[written.name]
        assert read["iceberg.jdbc-catalog.catalog-name"] == written.name
        assert read["iceberg.jdbc-catalog.default-warehouse-dir"] == written.warehouse
        assert read["s3.endpoint"] == written.s3_endpoint
    assert found["crm"]["dynamic-filtering.wait-timeout"] == "300ms"


def test_trino_lets_nobody_in_without_tls_and_a_password(context: Context) -> None:
    found = trino.server_settings(context)
    assert found["http-server.authentication.type"] == "PASSWORD"
    assert not any("insecure" in name for name in found)
    users = dict(line.split(":", 1) for line in trino.password_file(context).splitlines())
    assert set(users) == {trino.USER, trino.ANALYST}
    assert all(value.startswith("$2y$10$") for value in users.values())
    hashed = users[trino.USER].replace("$2y$", "$2b$").encode()
    assert bcrypt.checkpw(context.secrets.trino_password.encode(), hashed)


def test_flink_keeps_the_java_options_of_the_wheel(context: Context) -> None:
    shipped = yaml.safe_dump({"env": {"java": {"opts": {"all": "--add-opens=a=b"}}}, "rest": {"port": 8081}})
    found = yaml.safe_load(flink.cluster_settings(context, shipped))
    assert found["env"]["java"]["opts"]["all"] == "--add-opens=a=b"
    assert found["rest"]["port"] == 30_050
    assert found["taskmanager"]["numberOfTaskSlots"] == flink.SLOTS
    assert found["python"]["execution-mode"] == "thread"


def test_a_job_is_unpacked_under_the_state_folder(context: Context) -> None:
    options = services.job_keeper_config(context).environment["FLINK_ENV_JAVA_OPTS_CLI"].split()
    assert f"-Djava.io.tmpdir={context.data('flink') / 'tmp'}" in options


def test_the_supervisor_starts_nothing_by_itself_and_restarts_what_dies(
    context: Context, parts: dict[str, Part]
) -> None:
    text = render_config(context.settings, parts.values())
    programs = re.findall(r"^\[program:(.+)\]$", text, re.MULTILINE)
    assert programs == list(parts)
    for line in ("autostart=false", "autorestart=true", "stopasgroup=true", "killasgroup=true"):
        assert text.count(line) == len(programs)


def test_addresses_survive_being_written_and_read(context: Context) -> None:
    written = write_endpoints(context)
    assert written == endpoints_of(context) == read_endpoints(endpoints_file(context.settings))
    assert written.settings() == context.settings
    assert written.postgres.uri("crm").endswith("@127.0.0.1:30001/crm")


def test_missing_or_foreign_addresses_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="run `fieldlake up`"):
        read_endpoints(tmp_path / "endpoints.json")
    (tmp_path / "endpoints.json").write_bytes(b'{"mqtt": 1}')
    with pytest.raises(SettingsError, match="run `fieldlake up` again"):
        read_endpoints(tmp_path / "endpoints.json")
    assert Endpoints.__struct_config__.frozen


def test_a_job_that_has_ended_is_no_job() -> None:
    def job(state: str, running: int) -> dict[str, object]:
        return {"name": "triggers", "jid": "a1", "state": state, "tasks": {"total": 3, "running": running}}

    assert find_job({"jobs": [job("FAILED", 0), {**job("RUNNING", 3), "name": "other"}]}, "triggers") is None
    assert find_job({"jobs": [job("RUNNING", 2)]}, "triggers") == JobState("a1", "RUNNING", complete=False)
    assert find_job({"jobs": [job("RUNNING", 3)]}, "triggers") == JobState("a1", "RUNNING", complete=True)
