"""Settings, ports and secrets of one copy of the stack."""

import random
import socket
import stat
from pathlib import Path

import msgspec
import pytest

from infra.launcher.errors import PortInUseError, SettingsError
from infra.launcher.model import Context
from infra.launcher.parts.catalogue import all_parts
from infra.launcher.ports import find_clashes, free_port_base, refuse_clashes
from infra.launcher.secrets import generate_secrets, load_secrets
from infra.launcher.settings import (
    PORT_OFFSETS,
    PORTS_SPAN,
    SOCKET_PATH_BYTES_MAX,
    StackSettings,
    load_settings,
)


def test_options_beat_the_environment_and_that_the_defaults(tmp_path: Path) -> None:
    environment = {"FIELDLAKE_STATE_DIR": str(tmp_path / "env"), "FIELDLAKE_PORT_BASE": "30000"}
    assert load_settings(environment) == StackSettings(tmp_path / "env", 30_000)
    assert load_settings(environment, tmp_path, 31_000) == StackSettings(tmp_path, 31_000)
    assert load_settings({}).state_dir.name == ".fieldlake"


@pytest.mark.parametrize("text", ["", "port", "80", "70000"])
def test_a_base_that_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"FIELDLAKE_PORT_BASE: expected a port"):
        load_settings({"FIELDLAKE_PORT_BASE": text})


def test_the_number_of_ingest_workers_comes_from_the_environment(tmp_path: Path) -> None:
    assert load_settings({}).ingest_workers == 1
    settings = load_settings({"FIELDLAKE_INGEST_WORKERS": "3"}, tmp_path)
    parts = all_parts(Context(settings, generate_secrets()))
    assert [name for name in parts if name.startswith("ingest")] == ["ingest", "ingest-2", "ingest-3"]
    configs = [msgspec.json.decode(parts[name].files[0].text)["worker"] for name in ("ingest", "ingest-2", "ingest-3")]
    assert configs == ["ingest-1", "ingest-2", "ingest-3"]


@pytest.mark.parametrize("text", ["", "two", "0", "5", "-1"])
def test_a_number_of_ingest_workers_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"FIELDLAKE_INGEST_WORKERS: expected 1 to 4"):
        load_settings({"FIELDLAKE_INGEST_WORKERS": text})


def test_no_two_ports_of_a_copy_or_of_two_copies_are_the_same(tmp_path: Path) -> None:
    assert len(set(PORT_OFFSETS.values())) == len(PORT_OFFSETS)
    assert all(0 <= offset < PORTS_SPAN for offset in PORT_OFFSETS.values())
    assert StackSettings(tmp_path, 25_000).port("kafka") == 25_000 + PORT_OFFSETS["kafka"]


def test_every_port_belongs_to_one_part_only(tmp_path: Path) -> None:
    parts = all_parts(Context(StackSettings(tmp_path), generate_secrets())).values()
    taken = [name for part in parts for name in part.ports]
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(PORT_OFFSETS)


def test_a_socket_path_stays_short_and_differs_between_copies(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 5)
    paths = {StackSettings(folder).socket_path("supervisor") for folder in (deep / "one", deep / "two", Path("/s"))}
    assert len(paths) == 3
    assert all(len(str(path)) <= SOCKET_PATH_BYTES_MAX for path in paths)


def test_a_clash_names_part_port_holder_and_setting(tmp_path: Path) -> None:
    settings = StackSettings(tmp_path, free_port_base(random.Random(1)))
    parts = all_parts(Context(settings, generate_secrets())).values()
    assert find_clashes(settings, parts) == []
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", settings.port("kafka")))
        holder.listen()
        clashes = find_clashes(settings, parts)
        assert [(clash.part, clash.port) for clash in clashes] == [("kafka", settings.port("kafka"))]
        expected = rf"port {settings.port('kafka')} \(kafka of part kafka\).*held by pid \d+ .*FIELDLAKE_PORT_BASE"
        with pytest.raises(PortInUseError, match=expected):
            refuse_clashes(settings, clashes)


def test_secrets_are_drawn_once_and_private(tmp_path: Path) -> None:
    settings = StackSettings(tmp_path)
    drawn = load_secrets(settings)
    assert load_secrets(settings) == drawn
    path = settings.conf_dir / "secrets.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert generate_secrets() != drawn
    assert len(drawn.kafka_cluster_id) == 22


def test_damaged_secrets_say_what_to_remove(tmp_path: Path) -> None:
    settings = StackSettings(tmp_path)
    settings.conf_dir.mkdir()
    (settings.conf_dir / "secrets.json").write_text("{}")
    with pytest.raises(SettingsError, match="remove the state folder"):
        load_secrets(settings)
