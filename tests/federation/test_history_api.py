"""The history endpoint over a real table: answers, refusals, and following new commits."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from federation.errors import HistoryTableError, StoreUnavailableError
from federation.history.api import ASSET_ID_CHARS_MAX, create_app
from federation.history.follower import HistoryFollower
from federation.history.iceberg import NAMESPACE, TABLE, IcebergHistoryTable
from tests.federation.tables import FolderLake

TOKEN = "a-token-of-this-test"
LOGIN = {"Authorization": f"Bearer {TOKEN}"}
WITHIN_S = 20.0
DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)
ASSET = "A-0007"
URL = f"/v1/assets/{ASSET}/history"


def row(entry_id: str, day: int, seq: int, asset_id: str = ASSET, **more: Any) -> dict[str, Any]:
    return {
        "entry_id": entry_id,
        "asset_id": asset_id,
        "occurred_at": DAY_0 + timedelta(days=day),
        "seq": seq,
        **more,
    }


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[FolderLake]:
    lake = FolderLake(tmp_path)
    yield lake
    lake.close()


@pytest.fixture
def table(lake: FolderLake) -> Iterator[IcebergHistoryTable]:
    table = IcebergHistoryTable(lake.config)
    yield table
    table.close()


@pytest.fixture
def follower(table: IcebergHistoryTable) -> HistoryFollower:
    return HistoryFollower(table)


@pytest.fixture
def client(follower: HistoryFollower) -> Iterator[TestClient[Litestar]]:
    with TestClient(create_app(follower, TOKEN)) as client:
        yield client


def ask(client: TestClient[Litestar], url: str = URL, **parameters: str) -> httpx.Response:
    return client.get(url, headers=LOGIN, params=parameters)


def test_the_record_with_corrections_applied_and_what_it_is_complete_up_to(
    lake: FolderLake, follower: HistoryFollower, client: TestClient[Litestar]
) -> None:
    lake.create()
    lake.append([row("a", 0, 0), row("b", 1, 1), row("x", 1, 2, asset_id="A-0008")])
    snapshot = lake.append([row("c", 2, 0, supersedes="a", origin="tablet-02")])
    assert follower.refresh()
    found = ask(client)
    assert found.status_code == 200
    body = found.json()
    assert [(e["entry_id"], e["corrects"]) for e in body["entries"]] == [("b", []), ("c", ["a"])]
    assert body["entries"][0]["note"] == "已更换密封圈，试运行正常"
    assert "已更换密封圈" in found.content.decode("utf-8")
    assert body["complete_up_to"]["snapshot_id"] == snapshot
    marks = {mark["origin"]: mark for mark in body["complete_up_to"]["origins"]}
    assert marks["tablet-01"] == {"origin": "tablet-01", "epoch": 1, "upto": 3, "committed": [[0, 3]]}
    assert marks["tablet-02"]["upto"] == 1


def test_as_of_hides_what_had_not_happened(
    lake: FolderLake, follower: HistoryFollower, client: TestClient[Litestar]
) -> None:
    lake.create()
    lake.append([row("a", 0, 0), row("b", 2, 1, supersedes="a")])
    follower.refresh()
    body = ask(client, as_of="2026-01-02T08:00:00+08:00").json()
    assert [e["entry_id"] for e in body["entries"]] == ["a"]
    assert body["as_of"] == "2026-01-02T00:00:00Z"
    before_all = ask(client, as_of="2020-01-01T00:00:00Z")
    assert (before_all.status_code, before_all.json()["entries"]) == (200, [])


def test_new_commits_are_followed_and_only_their_files_are_read(
    lake: FolderLake, follower: HistoryFollower, client: TestClient[Litestar]
) -> None:
    lake.create()
    for seq in range(5):
        lake.append([row(f"e{seq}", seq, seq)])
        assert follower.refresh()
        assert not follower.refresh()
    assert [e["entry_id"] for e in ask(client).json()["entries"]] == [f"e{seq}" for seq in range(5)]
    assert follower.status().segment_misses == 5


def test_a_rewrite_without_state_keeps_the_marks_and_forgets_old_files(
    lake: FolderLake, follower: HistoryFollower, client: TestClient[Litestar]
) -> None:
    lake.create()
    for seq in range(3):
        lake.append([row(f"e{seq}", seq, seq)])
    follower.refresh()
    rewritten = lake.catalog.load_table(f"{NAMESPACE}.{TABLE}")
    rewritten.overwrite(rewritten.scan().to_arrow())
    assert follower.refresh()
    body = ask(client).json()
    assert len(body["entries"]) == 3
    assert body["complete_up_to"]["origins"][0]["upto"] == 3
    assert follower.status().files == 1


def test_without_a_table_or_rows_every_asset_is_unknown_and_the_endpoint_is_ready(
    lake: FolderLake, follower: HistoryFollower, client: TestClient[Litestar]
) -> None:
    assert client.get("/ready").status_code == 503
    assert ask(client).status_code == 503
    for create in (lambda: None, lake.create):
        create()
        assert not follower.refresh()
        assert client.get("/ready").json() == {"ready": True, "snapshot_id": None, "current": True}
        assert ask(client).status_code == 404


def test_an_unknown_asset_is_one_clear_sentence(
    lake: FolderLake, follower: HistoryFollower, client: TestClient[Litestar]
) -> None:
    lake.create()
    lake.append([row("a", 0, 0)])
    follower.refresh()
    found = ask(client, "/v1/assets/A-9999/history")
    assert found.status_code == 404
    assert found.json() == {"detail": "asset 'A-9999' has no entry in the service history"}


@pytest.mark.parametrize(
    ("as_of", "complaint"),
    [
        ("yesterday", "found 'yesterday'"),
        ("2026-01-01", "without an offset"),
        ("2026-01-01T00:00:00 00:00", "must be sent as %2B"),
        ("0001-01-01T00:00:00+14:00", "outside the years"),
    ],
)
def test_a_wrong_time_says_what_was_expected(client: TestClient[Litestar], as_of: str, complaint: str) -> None:
    found = ask(client, as_of=as_of)
    assert found.status_code == 400
    assert "expected a time with its offset from UTC such as" in found.json()["detail"]
    assert complaint in found.json()["detail"]


def test_an_endless_asset_id_is_refused(client: TestClient[Litestar]) -> None:
    found = ask(client, f"/v1/assets/{'x' * (ASSET_ID_CHARS_MAX + 1)}/history")
    assert found.status_code == 400
    assert "at most 64 characters" in found.json()["detail"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", TOKEN, f"bearer {TOKEN}", "Bearer töken"])
@pytest.mark.parametrize("path", [URL, "/metrics"])
def test_without_the_token_there_is_no_answer(client: TestClient[Litestar], path: str, header: str | None) -> None:
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    found = client.get(path, headers=headers)
    assert found.status_code == 401
    assert found.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in found.json()["detail"]


def test_metrics_count_answers(lake: FolderLake, follower: HistoryFollower, client: TestClient[Litestar]) -> None:
    lake.create()
    lake.append([row("a", 0, 0)])
    follower.refresh()
    ask(client)
    ask(client, "/v1/assets/none/history")
    text = client.get("/metrics", headers=LOGIN).text
    assert 'fieldlake_history_answers_total{status="200"} 1' in text
    assert 'fieldlake_history_answers_total{status="404"} 1' in text
    assert "fieldlake_history_files 1" in text


def test_every_answer_says_how_long_the_server_took(lake: FolderLake, client: TestClient[Litestar]) -> None:
    began_s = time.perf_counter()
    answer = ask(client)
    name, _, duration_ms = answer.headers["server-timing"].partition(";dur=")
    assert name == "app"
    assert 0 < float(duration_ms) < (time.perf_counter() - began_s) * 1_000


def test_the_schema_describes_the_endpoint(client: TestClient[Litestar]) -> None:
    assert "/v1/assets/{asset_id}/history" in client.get("/schema/openapi.json").json()["paths"]


def test_a_store_that_fails_leaves_the_last_version_in_use(
    lake: FolderLake, follower: HistoryFollower, client: TestClient[Litestar], tmp_path: Path
) -> None:
    lake.create()
    lake.append([row("a", 0, 0)])
    follower.refresh()
    lake.append([row("b", 1, 1)])
    for file in (tmp_path / "wh").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(StoreUnavailableError):
        follower.refresh()
    assert [e["entry_id"] for e in ask(client).json()["entries"]] == ["a"]


def test_a_table_without_the_columns_of_the_record_needs_a_person(lake: FolderLake, follower: HistoryFollower) -> None:
    created = lake.create()
    with created.update_schema() as update:
        update.rename_column("note", "remark")
    lake.catalog.load_table(f"{NAMESPACE}.{TABLE}").append(
        lake.catalog.load_table(f"{NAMESPACE}.{TABLE}").schema().as_arrow().empty_table()
    )
    with pytest.raises(HistoryTableError, match="found no \\['note'\\]"):
        follower.refresh()


def test_the_follower_says_once_that_there_is_trouble_and_once_that_it_ended(
    lake: FolderLake, follower: HistoryFollower, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lake.create()
    snapshot = lake.append([row("a", 0, 0)])
    (data,) = (tmp_path / "wh").rglob("*.parquet")
    hidden = data.with_suffix(".away")
    data.rename(hidden)
    stop, pause = threading.Event(), threading.Event()
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    try:
        poll(lambda: "history: trouble" in caplog.text, pause)
        hidden.rename(data)
        poll(lambda: f"history: following: snapshot {snapshot}" in caplog.text, pause)
    finally:
        stop.set()
        thread.join(WITHIN_S)
    assert caplog.text.count("history: trouble") == 1
    assert follower.status().trouble is None


def poll(condition: Callable[[], bool], pause: threading.Event) -> None:
    """Wait until the condition holds, at most WITHIN_S."""
    for _ in range(int(WITHIN_S / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    pytest.fail(f"did not happen within {WITHIN_S} s")
