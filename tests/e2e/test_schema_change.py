"""A contract changes on the running stack while batches of its versions flow; Trino and DuckDB see every row right."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer

from contracts.contract import Contract
from contracts.odcs import contract_of
from contracts.topics import BATCHES, ORIGIN_HEADER
from federation.config import TrinoConfig
from federation.errors import QueryRefusedError
from federation.trino import TrinoClient
from infra.cli.main import run
from infra.demo.tables import LakeReader
from infra.launcher.endpoints import Endpoints
from lakehouse.publish import publish_contracts
from tests.lakehouse.frames import CONTRACTS, frame
from tests.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.stack

TABLE = "lake_a.field.press_changes"
ROWS = 20  # of a batch
EVERY_S = 0.01  # s between two rounds of batches, one of each version


def properties(*fields: tuple[int, str, str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "logicalType": "string",
            "physicalType": kind,
            "customProperties": [{"property": "fieldId", "value": at}]
            + [{"property": key, "value": value} for key, value in custom.items()],
        }
        for at, name, kind, custom in fields
    ]


def document(version: str, *fields: tuple[int, str, str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "v3.1.0", "kind": "DataContract", "id": "press_changes", "name": "Press", "version": version,
        "status": "active", "description": {"purpose": "Tests."}, "team": {"name": "tests"},
        "slaProperties": [{"property": "retention", "value": 30, "unit": "d"}],
        "customProperties": [
            {"property": "catalog", "value": "lake_a"}, {"property": "namespace", "value": "field"},
        ],
        "schema": [{"name": "press_changes", "properties": properties(*fields)}],
    }  # fmt: skip


SECONDS = {"unit": "s"}
MILLIS = {"unit": "ms", "conversions": [{"unit": "s", "factor": 1000}]}
DOCUMENTS = {
    "1.0.0": document(
        "1.0.0", (1, "pressure", "int", {}), (2, "took", "double", SECONDS), (3, "note", "string", {}),
    ),
    "1.1.0": document(
        "1.1.0", (4, "remark", "string", {}), (1, "pressure", "long", {}), (2, "duration", "double", SECONDS),
    ),
    "2.0.0": document(
        "2.0.0", (4, "remark", "string", {}), (1, "pressure", "string", {}), (2, "duration", "double", MILLIS),
    ),
}  # fmt: skip
VERSIONS: dict[str, Contract] = {version: contract_of(text) for version, text in DOCUMENTS.items()}


def rows(version: str, seqs: range) -> list[dict[str, Any]]:
    made: dict[str, Any] = {
        "1.0.0": lambda n: {"pressure": n, "took": n / 4, "note": "记"},
        "1.1.0": lambda n: {"pressure": n, "duration": n / 4, "remark": "备注"},
        "2.0.0": lambda n: {"pressure": f"{n} bar", "duration": n * 250.0, "remark": "备注"},
    }
    return [made[version](seq) | {"seq": seq} for seq in seqs]


class Feed:
    """Sends batches of every version that has begun, each as an origin of its own, until it is stopped."""

    def __init__(self, bootstrap: str) -> None:
        self.sent: dict[str, int] = {}
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._begun: dict[str, Iterator[int]] = {}
        self._thread.start()

    def begin(self, version: str) -> None:
        self._begun[version] = itertools.count(0, ROWS)

    def stop(self) -> dict[str, int]:
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(DEADLINE_S) == 0
        return self.sent

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            for version, first in list(self._begun.items()):
                at = next(first)
                batch = frame(VERSIONS[version], rows(version, range(at, at + ROWS)))
                origin = f"press-{version}"
                self._producer.produce(BATCHES, batch, origin, headers=[(ORIGIN_HEADER, origin.encode())])
                self._producer.poll(0)
                self.sent[version] = at + ROWS


@pytest.fixture
def analyst(stack: Endpoints) -> Iterator[TrinoClient]:
    trino = stack.trino
    config = TrinoConfig(trino.host, trino.port, trino.ca_file, trino.analyst_user, trino.analyst_password)
    with TrinoClient(config) as client:
        yield client


def contract(stack: Endpoints, *words: str) -> int:
    return run(["contract", *words, "--state-dir", stack.state_dir, "--port-base", str(stack.port_base)])


def count(analyst: TrinoClient, condition: str = "true") -> int:
    """How many rows hold, 0 while the table or a column is not there."""
    try:
        ((found,),) = analyst.query(f"SELECT count(*) FROM {TABLE} WHERE {condition}").rows
    except QueryRefusedError:
        return 0
    return int(found)


def test_versions_change_under_load_and_every_value_is_where_it_belongs(
    stack: Endpoints, analyst: TrinoClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {}
    for version, text in DOCUMENTS.items():
        files[version] = str(tmp_path / f"press-{version}.odcs.yaml")
        Path(files[version]).write_text(yaml.safe_dump(text, allow_unicode=True), encoding="utf-8")
    publish_contracts(stack.kafka.bootstrap, (CONTRACTS["quarantine"],), {})
    feed = Feed(stack.kafka.bootstrap)
    try:
        assert contract(stack, "publish", files["1.0.0"]) == 0
        feed.begin("1.0.0")
        eventually(lambda: count(analyst) > 0, "rows of 1.0.0")
        assert contract(stack, "publish", files["1.1.0"]) == 1
        assert "dropped note" in capsys.readouterr().err
        assert contract(stack, "publish", files["1.1.0"], "--accept", "dropped") == 0
        feed.begin("1.1.0")
        eventually(lambda: count(analyst, "remark = '备注'") > 0, "rows of 1.1.0")
        took_over = count(analyst, "contract_version = '1.0.0'")
        eventually(lambda: count(analyst, "contract_version = '1.0.0'") > took_over, "1.0.0 flows beside it")
        accepted = ("--accept", "retyped", "--accept", "converted")
        assert contract(stack, "publish", files["2.0.0"], *accepted) == 0
        feed.begin("2.0.0")
        eventually(lambda: count(analyst, "pressure LIKE '% bar'") > 0, "rows of 2.0.0")
        took_over = count(analyst, "contract_version = '1.1.0'")
        eventually(lambda: count(analyst, "contract_version = '1.1.0'") > took_over, "1.1.0 flows beside it")
    finally:
        sent = feed.stop()
    eventually(lambda: count(analyst) >= sum(sent.values()), f"all of {sent}")
    columns = [name for (name, *_) in analyst.query(f"SHOW COLUMNS FROM {TABLE}").rows]
    assert columns[5:] == ["remark", "pressure", "duration", "pressure__v1", "duration__v1"]
    assert {
        version: (found, different, top)
        for version, found, different, top in analyst.query(
            f"SELECT contract_version, count(*), count(DISTINCT seq), max(seq) FROM {TABLE} GROUP BY 1"
        ).rows
    } == {version: (rows, rows, rows - 1) for version, rows in sent.items()}
    wrong = [
        # What was sent is in the column of its meaning, and of late rows what becomes of it in the newest one too.
        "contract_version < '2' AND (pressure__v1 IS NULL OR pressure__v1 <> seq OR duration__v1 <> seq / 4e0)",
        "contract_version < '2' AND pressure <> cast(seq AS varchar)",
        "contract_version < '2' AND duration <> seq * 250",
        "contract_version = '2.0.0' AND (pressure <> concat(cast(seq AS varchar), ' bar') OR duration <> seq * 250)",
        "contract_version = '2.0.0' AND (pressure IS NULL OR duration IS NULL OR pressure__v1 IS NOT NULL)",
        "(remark IS NOT NULL) <> (contract_version > '1.0.0')",
    ]
    assert {condition: count(analyst, condition) for condition in wrong} == dict.fromkeys(wrong, 0)
    assert count(analyst, "contract_version = '1.0.0' AND pressure = cast(seq AS varchar)") > 0
    top = sent["1.0.0"]
    assert count(analyst, f"contract_version = '1.0.0' AND pressure__v1 >= {top - 5}") == 5  # int and long files
    with LakeReader(stack) as duck:
        read = duck.read("lake_a", "field.press_changes", "contract_version, seq, pressure__v1, duration__v1, duration")
    old = [row for row in read.to_pylist() if row["contract_version"] < "2"]
    assert len(read) == sum(sent.values())
    assert all((row["pressure__v1"], row["duration__v1"]) == (row["seq"], row["seq"] / 4) for row in old)
    capsys.readouterr()
    assert contract(stack, "history", "press_changes") == 0
    said = [line.split("  ", 1)[1].split() for line in capsys.readouterr().out.splitlines()]
    assert [words[0] for words in said] == list(DOCUMENTS)
    assert "renames took to duration" in " ".join(said[1])
    assert contract(stack, "diff", files["2.0.0"]) == 0
    assert "nothing changes" in capsys.readouterr().out
