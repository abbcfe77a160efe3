"""How an agent with bundles from a repository begins, and what its parts for swaps do by themselves."""

import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from contracts.bundle import BUNDLE_FILE
from edge_agent import bundle_start, config
from edge_agent.adapters import bundle_files, bundle_versions
from edge_agent.adapters.bundle_loading import BundleLoading
from edge_agent.adapters.bundle_shelf import ROLLOUT, BundleShelf
from edge_agent.adapters.bundle_worker import ThreadWorker
from edge_agent.bundle_updates import BundleUpdates
from edge_agent.core.codec.sealing import Sealer
from edge_agent.core.plan import Plan
from edge_agent.core.spool.replay import Replayed
from edge_agent.core.updates import rollout as rollouts
from edge_agent.core.updates.rollout import Begun, Decision, Limits, Rollout, Staged, State, Step
from edge_agent.core.updates.updates import Verdict
from edge_agent.errors import BundleError, ConfigError
from tests.edge_agent.plant import CONTRACTS, ROOT
from tests.edge_agent.simulated import World
from tests.edge_agent.swapping import WIDER, Looks, dropping, release_of, write_release
from tests.waiting import eventually

REPOSITORY = {
    "kind": "repository", "url": "https://bundles.example", "root_file": "root.json", "bundles_dir": "bundles",
}  # fmt: skip
AGENT: dict[str, Any] = {
    "device": "d", "shard": 0, "mqtt": {"host": "h", "port": 1, "ca_file": "", "cert_file": "", "key_file": ""},
    "spool_dir": "", "status_file": "",
    "sources": [{"kind": "file", "name": "log", "file": "events.csv", "contract": "purchases"}],
}  # fmt: skip


def plan_of(bundle: Any, folder: Path) -> Plan:
    return bundle_files.plan_of(bundle, folder, device="d", shard=0, epoch=1, streams={"telemetry": False}, stores=True)


@pytest.fixture
def shelf(tmp_path: Path) -> BundleShelf:
    for bundle in (release_of(1), release_of(2, (dropping(5),), telemetry=WIDER)):
        write_release(tmp_path, bundle)
    shelf = BundleShelf(tmp_path)
    shelf.activate(1)
    return shelf


@pytest.fixture
def loading(shelf: BundleShelf) -> BundleLoading:
    return BundleLoading(shelf.folder, ("telemetry",), plan_of)


def on_probation() -> Rollout:
    shadow = rollouts.apply(rollouts.apply(Rollout(), Staged(2, 1)), Begun(0.0))
    return rollouts.conclude(shadow, Decision(Step.PROMOTE, "good"), 0.0)


def shadow() -> Rollout:
    return rollouts.apply(rollouts.apply(Rollout(), Staged(2, 1)), Begun(0.0))


@pytest.mark.parametrize("noted", [rollouts.apply(Rollout(), Staged(2, 1)), shadow()])
def test_a_swap_that_was_recorded_has_happened(shelf: BundleShelf, loading: BundleLoading, noted: Rollout) -> None:
    shelf.note(noted)
    begun = bundle_start.begin(shelf, loading, 2, 5.0)
    assert (begun.plan.release, begun.before, shelf.active()) == (2, None, 2)
    assert (begun.rollout.state, begun.rollout.previous, begun.rollout.restarts) == (State.ACTIVE, 1, 1)
    assert shelf.rollout() == begun.rollout


def test_a_link_that_no_record_follows_is_put_back(shelf: BundleShelf, loading: BundleLoading) -> None:
    shelf.note(on_probation())
    shelf.activate(2)
    begun = bundle_start.begin(shelf, loading, 1, 5.0)
    assert (begun.plan.release, shelf.active()) == (1, 1)
    assert begun.rollout == Rollout()  # the release may be staged again


def test_a_refusal_is_carried_out_and_the_windows_of_the_release_can_end(
    shelf: BundleShelf, loading: BundleLoading
) -> None:
    shelf.note(on_probation())
    shelf.activate(2)
    shelf.refuse(2, "release 2 refused: 太慢")
    begun = bundle_start.begin(shelf, loading, 2, 5.0)
    assert (begun.plan.release, shelf.active()) == (1, 1)
    assert begun.before is not None
    assert (begun.before.release, begun.before.streams[0].source) == (2, WIDER)
    assert begun.before.streams[0].filter.horizon_ms == 0
    assert (begun.rollout.state, rollouts.is_refused(begun.rollout, 2)) == (State.ROLLED_BACK, True)
    assert "太慢" in begun.rollout.why


def test_one_that_was_put_in_force_by_hand_stays(shelf: BundleShelf, loading: BundleLoading) -> None:
    write_release(shelf.folder, release_of(3))
    shelf.note(on_probation())
    shelf.activate(3)
    begun = bundle_start.begin(shelf, loading, 0, 5.0)
    assert (begun.plan.release, begun.rollout) == (3, Rollout())


def test_a_rollout_that_cannot_be_read_is_forgotten_and_the_bundle_stays(
    shelf: BundleShelf, loading: BundleLoading
) -> None:
    (shelf.folder / ROLLOUT).write_bytes(b'{"state": "flying"}')
    begun = bundle_start.begin(shelf, loading, 1, 5.0)
    assert (begun.plan.release, begun.rollout) == (1, Rollout(since_s=5.0))


def test_without_a_release_or_with_one_that_is_no_good_an_operator_must_act(tmp_path: Path) -> None:
    shelf = BundleShelf(tmp_path)
    loading = BundleLoading(tmp_path, ("telemetry",), plan_of)
    with pytest.raises(BundleError, match="no release is in force"):
        bundle_start.begin(shelf, loading, 0, 0.0)
    write_release(tmp_path, release_of(1))
    (tmp_path / "1" / BUNDLE_FILE).unlink()
    shelf.activate(1)
    with pytest.raises(BundleError, match="expected a readable file"):
        bundle_start.begin(shelf, loading, 0, 0.0)


def test_a_disk_that_takes_no_writes_stops_no_start(
    shelf: BundleShelf, loading: BundleLoading, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("note", "activate", "refuse"):
        monkeypatch.setattr(shelf, name, full)
    assert bundle_start.begin(shelf, loading, 2, 5.0).plan.release == 2


def test_a_device_waits_for_its_first_release_until_it_is_told_to_stop(tmp_path: Path) -> None:
    shelf = BundleShelf(tmp_path)
    world = World(1, [])
    looks = Looks(shelf)
    updates = BundleUpdates(looks, lambda: 0.0, 0.0)
    waits: list[float] = []

    def wait(pause_s: float) -> bool:
        waits.append(pause_s)
        world.now_s += pause_s
        if len(waits) == 3:
            write_release(tmp_path, release_of(1))
            shelf.activate(1)
        return True

    assert bundle_start.await_first(updates, shelf, world, wait)
    assert len(waits) == 3
    (tmp_path / "active").unlink()
    assert not bundle_start.await_first(updates, shelf, world, lambda _: False)


def test_rows_of_earlier_forms_are_read_as_the_present_one(shelf: BundleShelf, loading: BundleLoading) -> None:
    plan = loading.plan(2)
    assert {form.contract.version for form in plan.earlier["telemetry"]} == {CONTRACTS["telemetry"].version}
    assert loading.plan(1).earlier["telemetry"][0].contract == WIDER
    parts = loading.parts(2)
    sealer = Sealer(CONTRACTS["telemetry"], 1)
    columns: dict[str, Any] = {"asset_id": ["press-1", "press-2"], "occurred_at": [1, 2]}
    columns |= {f"f{n}": [n, n + 1] for n in range(1, 10)}
    batch = sealer.seal(0, 2, [0, 1], columns, 0)[0]
    events, kept, _ = parts.unsealers["telemetry"].events(Replayed("telemetry", 0, 2, (batch.data,)))
    assert (events.columns["operator_note"], list(kept)) == ([None, None], [True, True])
    assert list(events.columns["asset_id"]) == ["press-1", "press-2"]
    back, _, _ = loading.parts(1).unsealers["telemetry"].events(Replayed("telemetry", 0, 2, (batch.data,)))
    assert "operator_note" not in back.columns
    stranger = Sealer(replace(WIDER, fields=WIDER.fields[:-2]), 1).seal(0, 2, [0, 1], columns, 0)[0]
    none, _, _ = parts.unsealers["telemetry"].events(Replayed("telemetry", 0, 2, (stranger.data,)))
    assert len(none) == 0  # no bundle here has that form: left out, like what has rotted


def test_the_worker_does_one_job_after_the_other_and_tells_their_errors() -> None:
    woken, going = threading.Event(), threading.Event()
    worker = ThreadWorker(woken.set)
    assert not worker.works
    assert worker.take() is None

    def job() -> None:
        assert going.wait(30.0)
        raise OSError(5, "I/O error")

    worker.begin(job)
    assert worker.works
    assert worker.take() is None
    going.set()
    assert woken.wait(30.0)
    done = worker.take()
    assert done is not None
    assert isinstance(done.error, OSError)
    assert not worker.works
    worker.begin(going.clear)  # type: ignore[arg-type]
    assert eventually(worker.take, "the second job is done").error is None


def test_limits_are_of_one_kind() -> None:
    """A stall breaks a limit however short the trial is, and so does what is missed on probation."""
    stalled = rollouts.apply(shadow(), rollouts.Compared(10, 1, 0, 0, 0.0, 0.6, 0.0))
    decision = rollouts.decide(stalled, 1.0)
    assert decision is not None
    assert decision.why.endswith("600 ms for one chunk, limit 500")
    missing = rollouts.apply(on_probation(), rollouts.Ran(2_000, 0.0, 0.0, 0.0, kept=200, missed=50))
    decision = rollouts.decide(missing, 1.0, Limits())
    assert decision is not None
    assert decision.step is Step.REFUSE
    assert "25.0% of the kept events missed" in decision.why
    assert Verdict("staged").release is None


@pytest.mark.parametrize("seed", range(15))
def test_the_release_to_go_back_to_is_never_cleared_away(tmp_path: Path, seed: int) -> None:
    """Releases come, are refused, put in force and taken back in any order; each arrival clears the folder."""
    rng, shelf = random.Random(seed), BundleShelf(tmp_path)
    (tmp_path / "1").mkdir()
    shelf.activate(1)
    rollout, number = Rollout(), 1
    for _ in range(30):
        if rng.random() < 0.6:
            number += 1
            (tmp_path / str(number)).mkdir()
            bundle_versions.prune(tmp_path)
            active = shelf.active()
            assert active is not None
            rollout = rollouts.apply(rollout, Staged(number, active))
        elif rollout.state is State.STAGED:
            assert rollout.release is not None
            assert shelf.has(rollout.release)
            rollout = rollouts.apply(rollout, Begun(0.0))
            happened = Step.PROMOTE if rng.random() < 0.5 else Step.REFUSE
            if happened is Step.PROMOTE:
                shelf.activate(rollout.release or 0)
            rollout = rollouts.conclude(rollout, Decision(happened, ""), 0.0)
        elif rollout.state is State.ACTIVE:
            assert rollout.previous is not None
            assert shelf.has(rollout.previous)
            happened = Step.SETTLE if rng.random() < 0.5 else Step.REFUSE
            if happened is Step.REFUSE:
                shelf.activate(rollout.previous)
            rollout = rollouts.conclude(rollout, Decision(happened, ""), 0.0)


def test_what_swaps_bundles_brings_no_heavy_module() -> None:
    code = (
        "import sys, edge_agent.bundle_wiring; print([name for name in "
        "('numpy', 'onnxruntime', 'tuf', 'cryptography', 'asyncio', 'subprocess') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_a_bundle_is_of_a_folder_or_of_a_repository(tmp_path: Path) -> None:
    def load(**changes: Any) -> config.AgentConfig:
        path = tmp_path / "agent.json"
        path.write_bytes(msgspec.json.encode(AGENT | changes))
        return config.load(path)

    assert load(bundle_dir="bundle").bundles is None
    found = load(bundles=REPOSITORY).bundles
    assert found == config.RepositoryBundles("https://bundles.example", "root.json", "bundles")
    assert found is not None
    assert found.group == "default"
    for changes, said in (
        ({}, "either bundle_dir or bundles, found none"),
        ({"bundle_dir": "b", "bundles": REPOSITORY}, "found both"),
        ({"bundles": REPOSITORY | {"url": "http://bundles.example"}}, "expected an https:// url"),
        ({"bundles": REPOSITORY | {"group": "Halle 7"}}, "group 'Halle 7'"),
        ({"bundles": REPOSITORY | {"kind": "folder"}}, "kind"),
    ):
        with pytest.raises(ConfigError, match=said):
            load(**changes)
