"""Every listener of the running stack lets its own clients in, and nobody else."""

import socket
import ssl
import threading
from pathlib import Path

import psycopg
import pytest
import requests
from confluent_kafka.admin import AdminClient
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from pyarrow import fs

from contracts import topics
from federation.config import TrinoConfig
from federation.errors import LoginRefusedError, QueryRefusedError
from federation.trino import TrinoClient
from infra.fleet.identity import ensure_identity
from infra.launcher.endpoints import Endpoints, StoreEndpoint

pytestmark = pytest.mark.stack

WAIT_S = 20.0


def test_the_log_takes_a_client_with_a_certificate_and_has_every_topic(stack: Endpoints) -> None:
    tls = stack.kafka.tls
    client = AdminClient(
        {
            "bootstrap.servers": stack.kafka.bootstrap_tls,
            "security.protocol": "ssl",
            "ssl.ca.location": tls.ca_file,
            "ssl.certificate.location": tls.cert_file,
            "ssl.key.location": tls.key_file,
            "log_level": 0,
        }
    )
    found = client.list_topics(timeout=WAIT_S).topics
    assert {topic.name: topic.partitions for topic in topics.KAFKA_TOPICS} == {
        topic.name: len(found[topic.name].partitions) for topic in topics.KAFKA_TOPICS
    }


def test_the_log_refuses_a_client_without_a_certificate(stack: Endpoints) -> None:
    host, port = stack.kafka.bootstrap_tls.rsplit(":", 1)
    # A Kafka request: length, then the key of ApiVersions and zeros.
    assert_refused_without_certificate(host, int(port), stack.kafka.tls.ca_file, b"\x00\x00\x00\x0a\x00\x12" + bytes(8))


def test_the_broker_refuses_a_client_without_a_certificate(stack: Endpoints) -> None:
    connect = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc"
    assert_refused_without_certificate(stack.mqtt.host, stack.mqtt.port, stack.mqtt.ca_file, connect)


def assert_refused_without_certificate(host: str, port: int, ca_file: str, request: bytes) -> None:
    """Send a request over TLS as nobody; the answer must be a refusal of the handshake, or a closed connection."""
    context = ssl.create_default_context(cafile=ca_file)
    answer = b""
    try:
        with (
            socket.create_connection((host, port), WAIT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            # With TLS 1.3 the refusal comes after the client's own end of the handshake: with the first read.
            connection.sendall(request)
            answer = connection.recv(1)
    except (ssl.SSLError, ConnectionError):
        answer = b""
    assert answer == b""


def test_a_device_is_heard_under_its_own_name_only(stack: Endpoints) -> None:
    own = ensure_identity(stack, "listener-test")
    results: dict[int, int] = {}
    connected, answered = threading.Event(), threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener-test", protocol=mqtt.MQTTv5)
    client.tls_set(stack.mqtt.ca_file, own.cert_file, own.key_file)
    client.on_connect = lambda *_: connected.set()

    def on_publish(_client: object, _data: object, number: int, reason: object, _properties: object) -> None:
        results[number] = reason.value  # type: ignore[attr-defined]
        if len(results) == 2:
            answered.set()

    client.on_publish = on_publish
    client.connect(stack.mqtt.host, stack.mqtt.port)
    client.loop_start()
    try:
        assert connected.wait(WAIT_S)
        theirs = client.publish(topics.state("press-99"), b"x", qos=1).mid
        mine = client.publish(topics.state("listener-test"), b"x", qos=1).mid
        assert answered.wait(WAIT_S)
    finally:
        client.disconnect()
        client.loop_stop()
    assert results[theirs] == 0x87  # not authorized
    assert results[mine] < 0x80


@pytest.mark.parametrize("name", ["store_a", "store_b"])
def test_a_store_refuses_a_wrong_key(stack: Endpoints, name: str) -> None:
    store: StoreEndpoint = getattr(stack, name)

    def client(secret: str) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            access_key=store.key_id,
            secret_key=secret,
            endpoint_override=store.endpoint_url,
            region=store.region,
            request_timeout=WAIT_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )

    assert client(store.secret).get_file_info(f"{store.bucket}/launcher/probe").type == fs.FileType.File
    with pytest.raises(OSError, match=r"ACCESS_DENIED|403|SIGNATURE"):
        client("wrong").get_file_info(f"{store.bucket}/launcher/probe")
    assert requests.get(f"{store.endpoint_url}/{store.bucket}", timeout=WAIT_S).status_code == 403


def test_postgres_refuses_a_wrong_password(stack: Endpoints) -> None:
    with psycopg.connect(stack.postgres.uri("crm")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    wrong = stack.postgres.uri("crm").replace(stack.postgres.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_trino_refuses_a_wrong_password_and_an_analyst_who_writes(stack: Endpoints) -> None:
    trino = stack.trino

    def client(user: str, password: str) -> TrinoClient:
        return TrinoClient(TrinoConfig(trino.host, trino.port, trino.ca_file, user, password))

    with client(trino.user, trino.password) as platform:
        catalogs = {row[0] for row in platform.query("SHOW CATALOGS").rows}
    assert {"lake_a", "lake_b", "crm"} <= catalogs
    with client(trino.user, "wrong") as stranger, pytest.raises(LoginRefusedError):
        stranger.query("SELECT 1")
    with client(trino.analyst_user, trino.analyst_password) as analyst:
        assert analyst.query("SELECT 1").rows == [(1,)]
        with pytest.raises(QueryRefusedError, match="Access Denied"):
            analyst.query("CREATE TABLE crm.public.mine (a integer)")


def test_the_endpoints_file_is_private(stack: Endpoints) -> None:
    path = Path(stack.state_dir) / "conf" / "endpoints.json"
    assert path.stat().st_mode & 0o777 == 0o600
