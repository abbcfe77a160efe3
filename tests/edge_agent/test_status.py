"""What `status` makes of what an agent wrote of itself."""

import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.__main__ import main
from edge_agent.core.accounts import StreamSums
from edge_agent.errors import ConfigError
from edge_agent.operating import processes
from edge_agent.operating.findings import Level
from edge_agent.operating.status import LAG_S, SILENT_S, Status, observe, text_of
from edge_agent.report import BundleReport, Health, Report, WireReport
from edge_agent.status_teller import write_status
from edge_agent.version import AGENT_VERSION
from tests.edge_agent.device_folder import DEVICE, DeviceFolder
from tests.edge_agent.plant import DAY

NOW_MS = int(datetime.datetime.now(datetime.UTC).timestamp() * 1_000)
GONE = 2**22 + 1  # no process has this number: it is above what the kernel gives


def report(health: dict[str, Any] | None = None, **changes: Any) -> Report:
    sums = StreamSums(100, 60, 20, {"rule@1|dropped_by_rule": 20}, 0, 100)
    found = Report(
        device=DEVICE,
        epoch=1,
        streams={"telemetry": sums},
        unexplained=0,
        wire=WireReport(*[0] * 9),
        batches_published=1,
        resends=0,
        pss_mb=61.5,
        link="up",
        source_at_end=False,
        drained=False,
        pending_batches=0,
        waiting_segments=0,
        held_batches=0,
        spool_bytes=0,
        ring_bytes=0,
        given_up="none",
        last_error=None,
        troubles=[],
        ack=None,
        bundle=BundleReport("7", 3, "trying", 4, looked="staged"),
        health=msgspec.structs.replace(
            Health(os.getpid(), NOW_MS - 9_000, NOW_MS - 1_000, AGENT_VERSION, 1, 0, 0, 2**24), **(health or {})
        ),
    )
    return msgspec.structs.replace(found, **changes)


@pytest.fixture
def device(tmp_path: Path) -> DeviceFolder:
    return DeviceFolder(tmp_path)


def look(device: DeviceFolder, monkeypatch: pytest.MonkeyPatch, found: Report | None, *, runs: bool = True) -> Status:
    monkeypatch.setattr(processes, "runs", lambda _pid: runs)
    config = device.written()
    if found is not None:
        write_status(Path(config.status_file), found)
    return observe(config, device.config_file, NOW_MS)


def levels(status: Status) -> dict[str, Level]:
    return {finding.check: finding.level for finding in status.findings}


def test_an_agent_that_does_its_work_is_healthy(device: DeviceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    status = look(device, monkeypatch, report())
    assert status.healthy
    assert set(levels(status).values()) == {Level.OK}
    assert status.sources == ("replay (file)",)
    text = text_of(status)
    for said in (
        DEVICE,
        "7, release 3; trying of release 4; last look: staged",
        "observed 100, kept 60, aggregated 20, dropped 20",
        "61.5 MB",
        "link        up",
    ):
        assert said in text
    assert text.endswith("\nhealthy\n")


@pytest.mark.parametrize(
    ("health", "changes", "check", "level", "said"),
    [
        ({"written_ms": NOW_MS - int(SILENT_S * 1_000) - 1}, {}, "process", Level.BAD, "has said nothing for 30 s"),
        ({}, {"link": "down", "last_error": "no route"}, "link", Level.WARNING, "down: no route"),
        ({"lag_ms": int(LAG_S * 1_000) + 1}, {}, "link", Level.BAD, "600 s behind"),
        ({}, {"unexplained": 3}, "ledger", Level.BAD, "3 events are unexplained"),
        ({}, {"held_batches": 2, "last_error": "not authorised"}, "refused", Level.BAD, "2 batches were refused"),
        ({}, {"given_up": "ring"}, "disk", Level.WARNING, "ring is given up"),
        ({}, {"given_up": "drop"}, "disk", Level.BAD, "drop is given up"),
        ({}, {"troubles": ["source 温度: gone"]}, "trouble", Level.BAD, "source 温度: gone"),
        ({}, {"pss_mb": 110.0}, "memory", Level.WARNING, "110.0 MB"),
        (
            {},
            {"streams": {"telemetry": StreamSums(10, 8, 0, {}, 2, 10)}},
            "ledger",
            Level.WARNING,
            "2 events were lost",
        ),
    ],
)
def test_each_trouble_is_named_and_only_bad_ones_make_it_unhealthy(
    device: DeviceFolder,
    monkeypatch: pytest.MonkeyPatch,
    health: dict[str, Any],
    changes: dict[str, Any],
    check: str,
    level: Level,
    said: str,
) -> None:
    status = look(device, monkeypatch, report(health, **changes))
    (finding,) = [one for one in status.findings if one.check == check]
    assert (finding.level, said in finding.found) == (level, True), finding
    assert status.healthy == (level is not Level.BAD)
    assert finding.found in text_of(status)


def test_an_agent_that_has_ended_is_healthy_only_when_the_lake_has_everything(
    device: DeviceFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not look(device, monkeypatch, report(), runs=False).healthy
    assert not look(device, monkeypatch, report(drained=True), runs=False).healthy
    device.config["until_drained"] = True
    assert look(device, monkeypatch, report(drained=True), runs=False).healthy


def test_without_a_status_it_has_never_run(device: DeviceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    status = look(device, monkeypatch, None)
    assert levels(status)["process"] is Level.BAD
    assert "NOT healthy" in text_of(status)


@pytest.mark.parametrize(
    ("ends_in", "level"), [(-DAY, Level.BAD), (DAY, Level.WARNING), (9 * DAY, Level.OK)], ids=["ended", "soon", "good"]
)
def test_the_end_of_the_certificate_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_in: datetime.timedelta, level: Level
) -> None:
    before_s = time.time()
    device = DeviceFolder(tmp_path, ends_in=ends_in)
    after_s = time.time()
    status = look(device, monkeypatch, report())
    assert levels(status)["certificate"] is level
    assert status.certificate_ends_ms is not None
    # A certificate says it in whole seconds.
    made_s = status.certificate_ends_ms / 1_000 - ends_in.total_seconds()
    assert before_s - 1 <= made_s <= after_s


def test_a_status_that_is_none_is_an_error(device: DeviceFolder) -> None:
    config = device.written()
    Path(config.status_file).write_text('{"device": 1}')
    with pytest.raises(ConfigError, match="agent's own version"):
        observe(config, device.config_file, NOW_MS)


def test_only_an_agent_counts_as_running() -> None:
    assert not processes.runs(os.getpid())
    assert not processes.runs(GONE)


def test_the_command_prints_json_and_its_exit_code_says_it(
    device: DeviceFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    config = device.written()
    write_status(Path(config.status_file), report({"pid": GONE}))
    assert main(["status", "--config", str(device.config_file), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["healthy"], said["runs"], said["report"]["bundle"]["version"]) == (False, False, "7")
    assert main(["status", "--config", str(device.folder / "nowhere.json")]) == 2
    assert "expected a readable file" in capsys.readouterr().err
