"""What `fieldlake crm mirror` says."""

from datetime import UTC, datetime
from typing import Any

from infra.cli.crm import _rendered
from infra.cli.main import run
from lakehouse.mirror.status import MirrorStatus

OBJECT = {
    "kept_in": "accounts", "system": "salesforce", "tenant": "租户", "object": "Account", "live": 12_000, "deleted": 3,
    "stale": 1, "newest_change": datetime(2026, 11, 22, 10, 0, 0, 123_456, UTC),
}  # fmt: skip
SNAPSHOT = {"system": "zoho", "tenant": "t", "object": "Deals", "id": "s1", "marked": 10, "records": None}


def said(status: MirrorStatus | None, **more: Any) -> list[str]:
    return _rendered({"process": status, "objects": (), "open_snapshots": ()} | more).splitlines()


def test_an_outage_and_what_it_waits_for_are_said() -> None:
    waiting = MirrorStatus(pid=1, waiting_for="database", lag=1_234, dead={"malformed": 2}, last_error="server at x")
    assert said(waiting) == [
        "waits for the database; 1,234 messages behind; 2 refused since its start",
        "last error: server at x",
    ]
    assert said(MirrorStatus(pid=1, ready=True)) == ["follows; 0 messages behind; 0 refused since its start"]
    assert said(None) == ["the process has not started"]


def test_objects_and_open_snapshots_are_a_line_each() -> None:
    empty = {**OBJECT, "newest_change": None}
    found = said(None, objects=(OBJECT, empty), open_snapshots=(SNAPSHOT, SNAPSHOT | {"records": 2_000}))
    assert found[1:] == [
        "salesforce/租户/Account in accounts: 12,000 records, 3 deleted, 1 stale, "
        "newest change 2026-11-22T10:00:00.123+00:00",
        "salesforce/租户/Account in accounts: 12,000 records, 3 deleted, 1 stale, newest change never",
        "snapshot s1 of zoho/t/Deals: 10 of an unknown number of records have arrived",
        "snapshot s1 of zoho/t/Deals: 10 of 2,000 records have arrived",
    ]


def test_without_a_stack_it_is_one_line(tmp_path: Any, capsys: Any) -> None:
    assert run(["crm", "mirror", "--state-dir", str(tmp_path)]) == 1
    assert "run `fieldlake up`" in capsys.readouterr().err
