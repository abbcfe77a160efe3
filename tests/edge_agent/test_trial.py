"""`try` says of a sample what the agent itself would do with it, event by event."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.bundle import Bundle, Stream, Windows
from contracts.edge_rules import Compare, Deduplicate, Drop, EdgeRule, IsNull, Keep, Sample
from contracts.errors import ContractError
from contracts.ledger import Fate
from edge_agent.__main__ import main
from edge_agent.adapters import bundle_files
from edge_agent.core.intake import Intake
from edge_agent.errors import BundleError, ConfigError, SourceError
from edge_agent.operating import trial, trial_text
from edge_agent.operating.trial import Comparison, Trial
from infra.cli import edge
from tests.edge_agent.device_folder import DEVICE, DeviceFolder
from tests.edge_agent.plant import CONTRACTS, SENSORS, WINDOW_MS, Json, lines_of, reading

RULES = (
    EdgeRule("double", 1, Deduplicate(("asset_id",), 1_000)),
    EdgeRule("hot", 1, Keep(), Compare("f1", "ge", 90)),
    EdgeRule("bench", 3, Drop(), Compare("asset_id", "eq", "压机-2")),
    EdgeRule("some", 1, Sample(0.4), Compare("f3", "lt", 50)),
    EdgeRule("never", 9, Drop(), IsNull("asset_id")),
)


def bundle(*rules: EdgeRule, version: str = "8", **changes: Any) -> Bundle:
    windows = (Windows("telemetry_windows", WINDOW_MS, SENSORS),)
    return Bundle(version, tuple(CONTRACTS.values()), (Stream("telemetry", rules=rules, windows=windows, **changes),))


@pytest.fixture
def device(tmp_path: Path) -> DeviceFolder:
    return DeviceFolder(tmp_path, bundle(*RULES, otherwise="aggregate"))


def events(count: int) -> list[Json]:
    found = [reading(seq, asset_id=f"压机-{seq % 3}") for seq in range(count)]
    found[7]["f4"] = "warm"
    return found


def sampled(device: DeviceFolder, found: list[Json]) -> None:
    device.sample.write_bytes(b"\n".join(lines_of(found)) + b"\n")


def run(device: DeviceFolder, **options: Any) -> Trial:
    found = trial.run(device.written(), device.sample, **options)
    assert isinstance(found, Trial)
    return found


def agents_ledger(device: DeviceFolder, lines: list[bytes], flush: int) -> tuple[dict[tuple[str, str, str], int], int]:
    """Return what an agent would count, and the bytes of its packets."""
    config = device.written()
    folder = Path(config.bundle_dir)
    plan = bundle_files.plan_of(
        bundle_files.load(folder), folder, device=DEVICE, shard=0, epoch=0, streams={"telemetry": False}, stores=True
    )
    intake, said, size_bytes = Intake(plan, None), dict[tuple[str, str, str], int](), 0
    for first in [*range(0, len(lines), flush), None]:
        part = lines[first : first + flush] if first is not None else []
        at_ms = ((first or 0) // flush + 1) * config.flush_interval_ms if first is not None else 10**9
        final = ("telemetry",) if first is None else ()
        group = intake.take({"telemetry": part}, at_ms, final=final, ends=first is None)
        if group is not None:
            size_bytes += group.meta.wire.all_packet_bytes
            for count in group.meta.counts:
                if count.stream == "telemetry":
                    key = (count.fate, count.rule, count.reason)
                    said[key] = said.get(key, 0) + count.count
    return said, size_bytes


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(8, 150), st.integers(1, 60))
def test_it_counts_what_the_agents_own_ledger_would(device: DeviceFolder, count: int, flush: int) -> None:
    sampled(device, events(count))
    found = run(device, flush_events=flush)
    ledger, _ = agents_ledger(device, lines_of(events(count)), flush)
    said: dict[tuple[str, str, str], int] = {}
    for why in found.whys:
        # The ledger does not say by which rule an event was kept.
        key = (why.fate, "", "") if why.fate == Fate.KEPT.value else (why.fate, why.rule, why.reason)
        said[key] = said.get(key, 0) + why.count
    assert said == ledger
    assert found.observed == count


def test_it_weighs_what_the_agent_would_send(device: DeviceFolder) -> None:
    sampled(device, events(150))
    found = run(device, flush_events=50)
    _, size_bytes = agents_ledger(device, lines_of(events(150)), 50)
    # The clock of a trial begins at 0 and the other's end is later: a digit more or less in the ledger's batch.
    assert found.packet_bytes == pytest.approx(size_bytes, abs=16)
    assert found.json_bytes == device.sample.stat().st_size
    assert found.packet_bytes > sum(sent.payload_bytes for sent in found.sent)
    assert {sent.contract for sent in found.sent} >= {"telemetry", "telemetry_windows", "ledger", "quarantine"}


def test_examples_show_why_and_are_few(device: DeviceFolder) -> None:
    sampled(device, events(120))
    found = run(device, examples=2)
    assert all(1 <= len(why.examples) <= 2 for why in found.whys)
    (refused,) = [why for why in found.whys if why.reason == "f4.type"]
    assert (refused.fate, refused.rule, refused.count, refused.examples[0].number) == (
        "dropped",
        "telemetry@1.0.0",
        1,
        7,
    )
    assert json.loads(refused.examples[0].line)["asset_id"] == "压机-1"
    bench = next(why for why in found.whys if why.rule == "bench@3")
    assert bench.fate == "dropped"
    assert all(json.loads(one.line)["asset_id"] == "压机-2" for one in bench.examples)
    assert found.silent_rules == ("never@9",)
    assert all(why.examples == () for why in run(device, examples=0).whys)


def test_text_says_each_reason_and_what_would_travel(device: DeviceFolder) -> None:
    sampled(device, events(120))
    text = trial_text.text_of(run(device))
    for said in (
        "bundle 8, 120 events of telemetry",
        "dropped dropped_by_rule by bench@3",
        "rule never@9 decided about no event",
        "would travel",
        "telemetry_windows",
    ):
        assert said in text
    assert "\x1b" not in text


def test_two_bundles_are_compared_event_by_event(device: DeviceFolder) -> None:
    sampled(device, events(120))
    other = device.give(
        bundle(*(rule for rule in RULES if rule.id != "hot"), version="9", otherwise="aggregate"), "other"
    )
    found = trial.run(device.written(), device.sample, other_bundle=other)
    assert isinstance(found, Comparison)
    assert (found.before.bundle_version, found.after.bundle_version) == ("8", "9")
    assert found.before == run(device)
    hot = sum(why.count for why in found.before.whys if why.rule == "hot@1")
    changed = [change for change in found.changes if change.before.rule == "hot@1"]
    assert sum(change.count for change in changed) == hot > 0
    assert all(change.after.rule != "hot@1" and change.examples for change in changed)
    assert "events are treated otherwise" in trial_text.text_of(found)


def test_a_bundle_beside_itself_changes_nothing(device: DeviceFolder) -> None:
    found = trial.run(device.written(), device.sample, other_bundle=device.bundle_dir)
    assert isinstance(found, Comparison)
    assert found.changes == ()
    assert found.before == found.after


def test_a_device_without_numpy_would_do_the_same(device: DeviceFolder) -> None:
    sampled(device, events(120))
    full = run(device)
    device.config["profile"] = "lite"
    assert run(device) == full


def test_a_table_is_read_as_the_agent_reads_it(device: DeviceFolder) -> None:
    table = device.folder / "sample.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, reading(0).keys())
        writer.writeheader()
        writer.writerows(reading(seq, asset_id=f"压机-{seq % 3}") for seq in range(50))
    found = trial.run(device.written(), table)
    assert isinstance(found, Trial)
    assert found.observed == 50
    assert all(not why.rule.startswith("telemetry@") for why in found.whys)


def test_nothing_is_written_but_the_answer(device: DeviceFolder) -> None:
    device.written()
    before = sorted(path.name for path in device.folder.rglob("*"))
    run(device)
    assert sorted(path.name for path in device.folder.rglob("*")) == before


def test_what_cannot_be_tried_is_said(device: DeviceFolder, tmp_path: Path) -> None:
    config = device.written()
    with pytest.raises(SourceError):
        trial.run(config, tmp_path / "gone.jsonl")
    with pytest.raises(ContractError, match="bundle 8 has only"):
        trial.run(config, device.sample, contract="clickz")
    with pytest.raises(BundleError):
        trial.run(config, device.sample, other_bundle=tmp_path / "gone")
    device.config["sources"].append(
        {"kind": "socket", "name": "apps", "path": str(tmp_path / "s"), "contracts": ["clicks"]}
    )
    with pytest.raises(ConfigError, match="--contract"):
        trial.run(device.written(), device.sample)


def test_the_command_prints_json(device: DeviceFolder, capsys: pytest.CaptureFixture[str]) -> None:
    device.written()
    words = ["try", "--config", str(device.config_file), "--sample", str(device.sample), "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["observed"] == 100 == sum(why["count"] for why in said["whys"])
    assert main([*words, "--diff", str(device.bundle_dir)]) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == []
    with pytest.raises(SystemExit):
        main([*words, "--flush-events", "0"])


def test_both_command_lines_have_the_same_defaults() -> None:
    assert (edge.EXAMPLES, edge.FLUSH_EVENTS) == (trial.EXAMPLES_MAX, trial.FLUSH_EVENTS)
