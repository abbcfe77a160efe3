"""`doctor` names what is wrong with a device, what to do about it, and touches nothing."""

import datetime
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts import bundle as bundles
from contracts.bundle import Release
from edge_agent.__main__ import main
from edge_agent.adapters.cipher import open_cipher
from edge_agent.adapters.disk import FolderDisk
from edge_agent.app import KEY_FILE
from edge_agent.core.intake import Intake
from edge_agent.core.spool.identity import FORMAT, Identity, open_spool
from edge_agent.environment import AGENT_ENVIRONMENT
from edge_agent.operating import device_checks, doctor, processes, source_check
from edge_agent.operating.findings import Finding, Level, lines_of
from edge_agent.operating.patient import Patient
from tests.edge_agent.device_folder import DEVICE, DeviceFolder
from tests.edge_agent.plant import HOST, bundle_of, reading
from tests.edge_agent.plant import lines_of as lines_of_events
from tests.edge_agent.simulated import plan_of

NOW_MS = int(datetime.datetime.now(datetime.UTC).timestamp() * 1_000)


@pytest.fixture
def device(tmp_path: Path) -> DeviceFolder:
    return DeviceFolder(tmp_path)


def findings(device: DeviceFolder, now_ms: int = NOW_MS) -> dict[str, list[Finding]]:
    """Return what the doctor finds, by check; the broker is left alone."""
    device.written()
    found: dict[str, list[Finding]] = {}
    for finding in doctor.examine(device.config_file, now_ms, offline=True).findings:
        found.setdefault(finding.check, []).append(finding)
    return found


def only(found: dict[str, list[Finding]], check: str) -> Finding:
    (finding,) = found[check]
    return finding


def fill(device: DeviceFolder, *, groups: int = 4, now_ms: int = NOW_MS) -> Path:
    """Fill the device's spool as an agent would, and leave it; return its folder."""
    folder = Path(device.config["spool_dir"])
    disk = FolderDisk(folder)
    spool = open_spool(disk, Identity(DEVICE, 100, {}, FORMAT), open_cipher(folder / KEY_FILE))
    intake = Intake(msgspec.structs.replace(plan_of(100), device=DEVICE), None)
    for number in range(groups):
        events = lines_of_events([reading(seq) for seq in range(number * 20, number * 20 + 20)])
        group = intake.take({"telemetry": events}, now_ms)
        assert group is not None
        spool.append(group)
    disk.close()
    return folder


def state(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Return content, mode and time of every file."""
    return {
        str(path): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


def test_a_device_that_lacks_nothing_is_healthy(device: DeviceFolder) -> None:
    fill(device)
    found = findings(device)
    assert {check for check, all_of in found.items() for one in all_of if one.level is Level.BAD} == set()
    assert only(found, "spool").level is Level.OK
    assert "lack" not in only(found, "bundle").found
    assert only(found, "broker").level is Level.SKIPPED
    assert only(found, "identity").found.startswith(f"{DEVICE}, good for 90")
    named = {"configuration", "process", "folders", "room", "key", "spool", "identity", "clock", "broker", "bundle"}
    assert named | {"source replay", "memory", "malloc"} == found.keys()


def test_nothing_is_touched(device: DeviceFolder) -> None:
    segment = next(fill(device).glob("segment-*.log"))
    segment.write_bytes(segment.read_bytes()[:-7])  # what a start would cut off
    device.written()
    before = state(device.folder)
    doctor.examine(device.config_file, NOW_MS, offline=True)
    assert state(device.folder) == before


def test_every_trouble_has_a_remedy_or_says_it_itself(device: DeviceFolder) -> None:
    device.config["sources"].append(
        {"kind": "socket", "name": "apps", "path": str(device.folder / "no" / "s"), "contracts": ["clicks"]}
    )
    device.sample.unlink()
    for finding in (one for all_of in findings(device).values() for one in all_of):
        assert finding.level in (Level.OK, Level.SKIPPED) or finding.remedy or "expected" in finding.found, finding


def test_a_configuration_that_is_none_ends_it(device: DeviceFolder) -> None:
    device.config_file.write_text('{"devise": 1}')
    diagnosis = doctor.examine(device.config_file, NOW_MS)
    assert [one.check for one in diagnosis.findings] == ["configuration"]
    assert not diagnosis.healthy


def test_a_torn_tail_is_no_damage(device: DeviceFolder) -> None:
    folder = fill(device)
    (segment,), (index,) = folder.glob("segment-*.log"), folder.glob("segment-*.idx")
    with segment.open("ab") as file:
        file.write(b"FLRC half a record")
    assert index.exists()
    finding = only(findings(device), "spool")
    assert finding.level is Level.OK
    assert "18 torn bytes" in finding.found


def test_rot_is_found_wherever_it_is(device: DeviceFolder) -> None:
    folder = fill(device)
    (segment,) = folder.glob("segment-*.log")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    finding = only(findings(device), "spool")
    assert finding.level is Level.BAD
    assert "rotted" in finding.found or "missing" in finding.found


def test_a_segment_that_has_gone_is_missed(device: DeviceFolder) -> None:
    folder = fill(device)
    disk = FolderDisk(folder)
    spool = open_spool(disk, Identity(DEVICE, 100, {}, FORMAT), open_cipher(folder / KEY_FILE))
    spool.finish()
    disk.close()
    for path in folder.glob("segment-*.log"):
        path.unlink()
    assert only(findings(device), "spool").level is Level.BAD


@pytest.mark.parametrize(
    ("spoil", "check", "said"),
    [
        (lambda d: (Path(d.config["spool_dir"]) / KEY_FILE).unlink(), "key", "is not there"),
        (lambda d: (Path(d.config["spool_dir"]) / KEY_FILE).write_bytes(b"x"), "key", "has 1 bytes"),
        (lambda d: (Path(d.config["spool_dir"]) / KEY_FILE).chmod(0o644), "key", "mode 644"),
        (lambda d: (Path(d.config["spool_dir"]) / "spool.json").write_text("{"), "spool", "cannot be read"),
        (lambda d: Path(d.config["mqtt"]["key_file"]).chmod(0o640), "identity", "mode 640"),
        (lambda d: Path(d.config["mqtt"]["cert_file"]).write_text("none"), "identity", "PEM form"),
        (lambda d: d.config.update(device="press-02"), "identity", "is of 'press-01'"),
        (lambda d: (d.bundle_dir / "bundle.json").unlink(), "bundle", "expected a readable file"),
        (lambda d: d.config["sources"][0].update(contract="clickz"), "bundle", "has only"),
        (lambda d: d.sample.unlink(), "source replay", "No such file"),
        (lambda d: d.config.update(status_file=str(d.folder / "no" / "status.json")), "folders", "cannot be written"),
    ],
)
def test_each_trouble_is_named(device: DeviceFolder, spoil: Any, check: str, said: str) -> None:
    fill(device)
    spoil(device)
    bad = [one for one in findings(device).get(check, []) if one.level is Level.BAD]
    assert [said in one.found for one in bad] == [True], bad


def test_an_old_agent_is_told_that_the_bundle_is_not_for_it(tmp_path: Path) -> None:
    bundle = msgspec.structs.replace(bundle_of(), release=Release("default", 3, "99.0"))
    device = DeviceFolder(tmp_path, bundle)
    finding = only(findings(device), "bundle")
    assert (finding.level, finding.remedy) == (Level.BAD, "install agent 99.0 or newer")


def test_a_file_of_the_bundle_that_was_changed_is_named(device: DeviceFolder) -> None:
    dictionary = bundles.Dictionary(1, "telemetry", "t.zdict", hashlib.sha256(b"right").hexdigest())
    device.config["bundle_dir"] = str(
        device.give(msgspec.structs.replace(bundle_of(), dictionaries=(dictionary,)), "other")
    )
    (device.folder / "other" / "t.zdict").write_bytes(b"wrong")
    finding = only(findings(device), "bundle")
    assert finding.level is Level.BAD
    assert "fetch it again" in finding.found


def test_a_certificate_that_has_ended_or_is_not_good_yet(device: DeviceFolder) -> None:
    day_ms = 86_400_000
    assert "ended" in only(findings(device, NOW_MS + 100 * day_ms), "identity").found
    assert "not good yet" in only(findings(device, NOW_MS - 100 * day_ms), "identity").found


def test_a_clock_that_went_back_is_noticed(device: DeviceFolder) -> None:
    fill(device, now_ms=NOW_MS + 3_600_000)
    bad = [one for one in findings(device)["clock"] if one.level is Level.BAD]
    assert ["3600 s behind the newest record" in one.found for one in bad] == [True]


def test_little_room_is_noticed(device: DeviceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(device.folder)
    fields = list(found)
    fields[4] = 10_000_000 // found.f_frsize  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(fields))
    assert only(findings(device), "room").level is Level.BAD
    fields[4] = 80_000_000 // found.f_frsize
    device.config["spool"]["ring_bytes"] = 10**9
    assert only(findings(device), "room").level is Level.WARNING


@pytest.fixture
def listening() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize("runs", [False, True])
def test_a_port_is_free_before_and_taken_while_the_agent_runs(device: DeviceFolder, listening: int, runs: bool) -> None:
    token = device.folder / "token"
    token.write_text("a" * 32)
    token.chmod(0o600)
    device.config["sources"] = [
        {"kind": "http", "name": "web", "port": listening, "contracts": ["clicks"], "token_file": str(token)}
    ]
    (finding,) = source_check.look(device.written().sources[0], runs=runs)
    assert finding.level is (Level.OK if runs else Level.BAD)
    token.chmod(0o644)
    (finding,) = source_check.look(device.written().sources[0], runs=runs)
    assert "chmod o=" in finding.found


@pytest.mark.parametrize("there", [False, True])
def test_a_local_broker_answers_or_not(device: DeviceFolder, listening: int, there: bool) -> None:
    device.config["sources"] = [
        {
            "kind": "mqtt",
            "name": "sensors",
            "host": HOST,
            "port": listening if there else 1,
            "client_id": "agent",
            "subscriptions": [{"topic": "a/#", "contract": "telemetry"}],
        }
    ]
    (finding,) = source_check.look(device.written().sources[0], runs=False)
    assert finding.level is (Level.OK if there else Level.BAD)


def test_a_socket_is_missed_only_while_the_agent_runs(device: DeviceFolder) -> None:
    device.config["sources"] = [
        {"kind": "socket", "name": "apps", "path": str(device.folder / "s"), "contracts": ["clicks"]}
    ]
    config = device.written().sources[0]
    assert [one.level for runs in (False, True) for one in source_check.look(config, runs=runs)] == [
        Level.OK,
        Level.BAD,
    ]


def test_a_followed_file_may_come_later(device: DeviceFolder) -> None:
    device.config["sources"][0] |= {"follow": True, "file": str(device.folder / "later.jsonl")}
    assert only(findings(device), "source replay").level is Level.WARNING


def test_a_broker_that_is_not_there_is_bad(device: DeviceFolder) -> None:
    device.written()
    diagnosis = doctor.examine(device.config_file, NOW_MS)
    (finding,) = [one for one in diagnosis.findings if one.check == "broker"]
    assert finding.level is Level.BAD
    assert not diagnosis.healthy
    assert finding.remedy in "\n".join(lines_of(diagnosis.findings))


def test_what_proc_says_of_memory_and_environment(tmp_path: Path) -> None:
    own = tmp_path / "7"
    own.mkdir()
    (own / "environ").write_bytes(b"MALLOC_ARENA_MAX=1\0NAME=a=b\0")
    (own / "cgroup").write_text("0::/system.slice/fieldlake-edge.service\n")
    (own / "cmdline").write_bytes(b"/usr/bin/python3\0-m\0edge_agent\0--config\0x\0")
    group = tmp_path / "cgroups" / "system.slice" / "fieldlake-edge.service"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("134217728\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    1024 kB\n")
    assert processes.environment(7, tmp_path) == {"MALLOC_ARENA_MAX": "1", "NAME": "a=b"}
    assert processes.memory_limit_bytes(7, tmp_path, tmp_path / "cgroups") == 134_217_728
    assert processes.available_bytes(tmp_path) == 1_048_576
    assert processes.runs(7, tmp_path)
    (group / "memory.max").write_text("max\n")
    assert processes.memory_limit_bytes(7, tmp_path, tmp_path / "cgroups") is None
    assert processes.environment(8, tmp_path) is None


def test_the_command_prints_json_and_its_exit_code_says_it(
    device: DeviceFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    device.written()
    words = ["doctor", "--config", str(device.config_file), "--offline", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["healthy"] is True
    device.sample.unlink()
    assert main(words[:-1]) == 1
    assert "NOT healthy" in capsys.readouterr().out


def test_a_device_that_follows_a_repository_is_judged_by_the_release_in_force(device: DeviceFolder) -> None:
    folder = device.folder / "bundles"
    folder.mkdir()
    device.config["bundles"] = {
        "kind": "repository",
        "url": "https://127.0.0.1:1",
        "root_file": str(device.folder / "root.json"),
        "bundles_dir": str(folder),
    }
    del device.config["bundle_dir"]
    finding = only(findings(device), "bundle")
    assert finding.level is Level.BAD
    assert "no release is in force" in finding.found
    device.give(msgspec.structs.replace(bundle_of(), release=Release("default", 3)), "bundles/3")
    (folder / "active").symlink_to("3")
    finding = only(findings(device), "bundle")
    assert finding.level is Level.OK
    assert "release 3 of group default" in finding.found


def test_an_agent_without_a_status_is_found_by_its_lock(device: DeviceFolder) -> None:
    disk = FolderDisk(fill(device))
    try:
        assert only(findings(device), "process").found == f"runs as {os.getpid()}"
        assert only(findings(device), "spool").level is Level.SKIPPED
    finally:
        disk.close()
    assert only(findings(device), "process").found == "does not run"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"PYTHONOPTIMIZE": ""}, ""),
        ({"MALLOC_ARENA_MAX": "8"}, "MALLOC_ARENA_MAX"),
        ({"PYTHONDONTWRITEBYTECODE": "1"}, "PYTHONDONT"),
    ],
)
def test_an_agent_that_was_started_in_another_environment_is_found(
    device: DeviceFolder, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str
) -> None:
    started_in = {name: value for name, value in AGENT_ENVIRONMENT.items() if value} | changes
    monkeypatch.setattr(processes, "environment", lambda _pid: started_in)
    (finding,) = device_checks.malloc(Patient(device.written(), os.getpid(), NOW_MS))
    assert finding.level is (Level.WARNING if said else Level.OK)
    assert said in finding.found
