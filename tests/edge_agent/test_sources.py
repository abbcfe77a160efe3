"""Files become lines of events, every one of them, whatever is in them."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent import config
from edge_agent.adapters import source_files
from edge_agent.adapters.source_files import open_source
from edge_agent.core.refusal import EVENT_BYTES_MAX
from edge_agent.errors import ConfigError, SourceError


def all_of(path: Path, at_once: int = 7, skip: int = 0) -> list[bytes]:
    source = open_source(path, follow=False)
    source.skip(skip)
    found: list[bytes] = []
    while part := source.read(at_once):
        found += part
    assert source.at_end
    source.close()
    return found


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200).map(lambda b: b.replace(b"a", b"\n")), block=st.integers(1, 50), at=st.integers(1, 9)
)
def test_lines_are_those_of_the_file(data: bytes, block: int, at: int, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(data)
    expected = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_files, "BLOCK_BYTES", block)
        assert all_of(path, at) == expected
        assert all_of(path, at, skip=3) == expected[3:]


def test_an_endless_line_is_one_event_and_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * 2_000_000 + b"\n{}\n" + b"y" * 1_000_000)
    first, second, third = all_of(path)
    assert (len(first), second, len(third)) == (EVENT_BYTES_MAX + 1, b"{}", EVENT_BYTES_MAX + 1)


def test_a_followed_file_hands_out_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":')
    source = open_source(path, follow=True)
    assert source.read(10) == [b'{"a":1}']
    with path.open("ab") as file:
        file.write(b"2}\n")
    assert source.read(10) == [b'{"a":2}']
    assert source.read(10) == []
    assert not source.at_end
    source.close()


def test_csv_records_become_events_and_broken_ones_stay_events(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text('a,b\n1,"two\nlines"\n3,\n4,5,6\n', encoding="utf-8")
    lines = [json.loads(line) for line in all_of(path)]
    assert lines == [{"a": "1", "b": "two\nlines"}, {"a": "3"}, ["4", "5", "6"]]
    assert [json.loads(line) for line in all_of(path, skip=2)] == lines[2:]


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a readable file"):
        open_source(tmp_path / "none", follow=False)


FILE = {"kind": "file", "name": "f", "file": "f", "contract": "c"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "a/b"}, "device 'a/b'"),
        ({"shard": -1}, "shard"),
        ({"flush_interval_ms": 0}, "flush_interval_ms"),
        ({"colour": "red"}, "colour"),
        ({"shard": "x"}, "int"),
        ({"mqtt": {"host": "h", "port": 1, "ca_file": ""}}, "identity_dir"),
        ({"mqtt": {"host": "h", "port": 1, "ca_file": "", "cert_file": "c", "identity_dir": "d"}}, "identity_dir"),
        ({"sources": []}, "at least one"),
        ({"sources": [FILE, FILE | {"name": "g"}]}, "of no other source"),
        ({"sources": [FILE | {"follow": True}], "until_drained": True}, "never end"),
        ({"spool": {"ring_hours": -1}}, "ring_hours"),
        ({"spool": {"quota_bytes": 1}}, "quota_bytes"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(change: dict[str, object], said: str, tmp_path: Path) -> None:
    mqtt = {"host": "h", "port": 1, "ca_file": "", "cert_file": "", "key_file": ""}
    good = {
        "device": "d", "shard": 0, "mqtt": mqtt, "bundle_dir": "", "spool_dir": "", "status_file": "",
        "sources": [FILE],
    }  # fmt: skip
    path = tmp_path / "agent.json"
    path.write_bytes(msgspec.json.encode(good))
    assert config.load(path).flush_interval_ms == config.FLUSH_INTERVAL_MS
    path.write_bytes(msgspec.json.encode(good | change))
    with pytest.raises(ConfigError, match=said):
        config.load(path)
