"""Sources in the configuration file: what is refused, and in which words."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent import config
from edge_agent.config import FileSource, HttpSource, MqttSource, SocketSource, Subscription, is_topic_filter
from edge_agent.errors import ConfigError

FILE = {"kind": "file", "name": "log", "file": "events.csv", "contract": "purchases", "follow": True}
SOCKET = {"kind": "socket", "name": "apps", "path": "/run/agent.sock", "contracts": ["clicks"], "uids": [1000]}
HTTP = {"kind": "http", "name": "web", "port": 8640, "contracts": ["clicks"], "token_file": "token"}
TOPIC = {"topic": "halle/+", "contract": "telemetry", "number_field": "n", "producer_field": "boot"}
MQTT = {
    "kind": "mqtt",
    "name": "传感器-1".encode().hex(),
    "host": "localhost",
    "client_id": "a",
    "subscriptions": [TOPIC],
}


def load(folder: Path, *sources: dict[str, Any]) -> tuple[config.AnySource, ...]:
    broker = {"host": "h", "port": 1, "ca_file": "", "cert_file": "", "key_file": ""}
    path = folder / "agent.json"
    path.write_bytes(
        msgspec.json.encode({
            "device": "d", "shard": 0, "mqtt": broker, "bundle_dir": "", "spool_dir": "", "status_file": "",
            "sources": sources,
        })
    )  # fmt: skip
    return config.load(path).sources


def test_each_kind_is_parsed_into_its_own_values(tmp_path: Path) -> None:
    found = load(tmp_path, FILE, SOCKET, HTTP, MQTT)
    assert found == (
        FileSource("log", "events.csv", "purchases", follow=True),
        SocketSource("apps", "/run/agent.sock", ("clicks",), (1000,)),
        HttpSource("web", 8640, ("clicks",), "token"),
        MqttSource(str(MQTT["name"]), "localhost", "a", (Subscription("halle/+", "telemetry", "n", "boot"),)),
    )


def without(source: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in source.items() if name != key}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (FILE | {"kind": "ftp"}, "ftp"),
        (without(FILE, "kind"), "kind"),
        (FILE | {"colour": "red"}, "colour"),
        (FILE | {"name": "a/b"}, "name"),
        (FILE | {"rate_events_per_s": -1}, "rate_events_per_s"),
        (FILE | {"file": "events.jsonl.gz"}, "cannot be followed"),
        (SOCKET | {"path": "agent.sock"}, "absolute path"),
        (SOCKET | {"path": "/" + "设" * 40}, "107 bytes"),
        (SOCKET | {"contracts": []}, "contracts"),
        (SOCKET | {"uids": [-1]}, "uids"),
        (SOCKET | {"uids": ["root"]}, "int"),
        (HTTP | {"port": 0}, "port"),
        (HTTP | {"port": 65_536}, "port"),
        (HTTP | {"contracts": [""]}, "contracts"),
        (without(HTTP, "token_file"), "token_file"),
        (MQTT | {"subscriptions": []}, "subscription"),
        (MQTT | {"client_id": ""}, "client_id"),
        (MQTT | {"host": "broker.example"}, "TLS is required"),
        (MQTT | {"host": "127.0.0.1.example"}, "TLS is required"),
        (MQTT | {"ca_file": "ca", "cert_file": "c"}, "cert_file and key_file together"),
        (MQTT | {"cert_file": "c", "key_file": "k"}, "beside a ca_file"),
        (MQTT | {"password_file": "p"}, "username"),
        (MQTT | {"subscriptions": [TOPIC | {"topic": "$share/g/a"}]}, "not a shared one"),
        (MQTT | {"subscriptions": [TOPIC | {"topic": "a#"}]}, "topic filter"),
        (MQTT | {"subscriptions": [without(TOPIC, "number_field")]}, "number_field"),
        (MQTT | {"subscriptions": [TOPIC, TOPIC | {"topic": "halle/7"}]}, "no topic matches two"),
        (MQTT | {"subscriptions": [TOPIC, TOPIC | {"topic": "halle/7/#"}]}, "no topic matches two"),
        (MQTT | {"subscriptions": [TOPIC, TOPIC | {"topic": "#"}]}, "no topic matches two"),
    ],
)
def test_a_source_that_cannot_be_is_one_sentence(source: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        load(tmp_path, source)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("other", ["halle", "halle/7/x", "werk/+", "halle/+/x", "+"])
def test_filters_that_no_topic_matches_both_stand_beside_each_other(other: str, tmp_path: Path) -> None:
    assert len(load(tmp_path, MQTT | {"subscriptions": [TOPIC, TOPIC | {"topic": other}]})) == 1


def test_sources_have_different_names_and_are_not_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="different names"):
        load(tmp_path, FILE, SOCKET | {"name": "log"})
    with pytest.raises(ConfigError, match="up to 16"):
        load(tmp_path, *(SOCKET | {"name": f"log-{number}"} for number in range(17)))


def test_hosts_of_this_machine_may_go_without_tls(tmp_path: Path) -> None:
    for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1"):
        assert load(tmp_path, MQTT | {"host": host})
    assert load(tmp_path, MQTT | {"host": "10.0.0.7", "ca_file": "ca.pem"})


def test_topic_filters_are_those_of_the_standard() -> None:
    good = ["a", "a/b", "+", "#", "a/#", "+/+/#", "/", "/a", "设备/+", "a b"]
    bad = ["", "a/#/b", "a+", "+a/b", "a/b#", "#/", "$SYS/x", "a\0b", "x" * 1_025]
    assert [topic for topic in good if not is_topic_filter(topic)] == []
    assert [topic for topic in bad if is_topic_filter(topic)] == []
