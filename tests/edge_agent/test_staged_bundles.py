"""How a device comes to a bundle: what it fetches, keeps and removes, and that no crash on the way costs it one."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from contracts import bundle as bundles
from contracts.bundle import BUNDLE_FILE
from edge_agent.adapters import bundle_versions
from edge_agent.adapters.bundle_versions import Refusal
from edge_agent.core.updates.updates import Verdict
from edge_agent.updating import loading
from edge_agent.version import AGENT_VERSION
from tests.edge_agent.plant import ROOT
from tests.edge_agent.supply import Device, FolderFetcher, Supply

SAMPLES = [bytes([number % 7, number % 11, number % 13] * 20) for number in range(200)]


def trained(number: int) -> bytes:
    """Return a zstd dictionary with this id."""
    return zstandard.train_dictionary(2_000, SAMPLES, dict_id=number).as_bytes()


FILES = {"telemetry.zdict": trained(40_001), "clicks.zdict": trained(40_002)}


class Crash(BaseException):
    """The power is gone."""


@pytest.fixture
def supply(tmp_path: Path) -> Supply:
    supply = Supply(tmp_path)
    supply.publish("1", FILES)
    return supply


@pytest.fixture
def device(supply: Supply, tmp_path: Path) -> Device:
    return Device(tmp_path / "device", "https://repository", supply.repository.root())


def update(supply: Supply, device: Device) -> Verdict:
    return device.update(fetcher=FolderFetcher(supply.served))


def assert_whole(device: Device) -> None:
    """Assert that whatever bears a number, and what is active, would load."""
    for number in bundle_versions.numbers(device.bundles_dir):
        loading.check(bundle_versions.folder_of(device.bundles_dir, number), "d")
    if bundle_versions.active(device.bundles_dir) is not None:
        loading.check(device.bundles_dir / "active", "d")


def test_the_first_bundle_is_activated_and_every_other_one_waits_for_its_trial(supply: Supply, device: Device) -> None:
    assert update(supply, device).outcome == "activated"
    assert update(supply, device).outcome == "current"
    supply.publish("2", FILES)
    verdict = update(supply, device)
    assert (verdict.outcome, verdict.release, verdict.active) == ("staged", 2, 1)
    assert update(supply, device).outcome == "staged"
    bundle_versions.activate(device.bundles_dir, 2)
    verdict = update(supply, device)
    assert (verdict.outcome, verdict.release, verdict.active) == ("current", 2, 2)
    assert_whole(device)


def test_only_what_changed_is_fetched(supply: Supply, device: Device) -> None:
    update(supply, device)
    supply.publish("2", FILES | {"clicks.zdict": trained(40_003)})
    fetcher = FolderFetcher(supply.served)
    assert device.update(fetcher=fetcher).outcome == "staged"
    one, two = (bundle_versions.folder_of(device.bundles_dir, number) for number in (1, 2))
    assert (one / "telemetry.zdict").samefile(two / "telemetry.zdict")
    assert not (one / "clicks.zdict").samefile(two / "clicks.zdict")
    document = (two / BUNDLE_FILE).stat().st_size
    # Timestamp, snapshot and the group's role are the rest.
    assert fetcher.fetched_bytes - document - len(trained(40_003)) < 4_000


def test_nothing_new_costs_a_kilobyte(supply: Supply, device: Device) -> None:
    update(supply, device)
    assert update(supply, device).fetched_bytes < 1_000


def test_an_older_content_comes_back_without_being_fetched(supply: Supply, device: Device) -> None:
    update(supply, device)
    supply.publish("2", {"telemetry.zdict": trained(50_000)})
    update(supply, device)
    bundle_versions.activate(device.bundles_dir, 2)
    assert supply.repository.revert("default").number == 3
    verdict = update(supply, device)
    assert (verdict.outcome, verdict.release) == ("staged", 3)
    document = bundles.decode((device.bundles_dir / "3" / BUNDLE_FILE).read_bytes())
    assert document.version == "1"
    assert verdict.fetched_bytes < (device.bundles_dir / "3" / BUNDLE_FILE).stat().st_size + 4_000


def test_two_older_releases_are_kept_and_files_that_nobody_needs_are_not(supply: Supply, device: Device) -> None:
    update(supply, device)
    for number in range(2, 7):
        supply.publish(str(number), {"telemetry.zdict": trained(41_000 + number)})
        assert update(supply, device).outcome == "staged"
        bundle_versions.activate(device.bundles_dir, number)
    update(supply, device)
    assert bundle_versions.numbers(device.bundles_dir) == (4, 5, 6)
    held = {file.name for file in (device.bundles_dir / "files").iterdir()}
    needed = {
        hashlib.sha256(file.read_bytes()).hexdigest()
        for number in (4, 5, 6)
        for file in bundle_versions.folder_of(device.bundles_dir, number).iterdir()
    }
    assert held == needed


def test_a_release_that_the_agent_refused_is_not_staged_again(supply: Supply, device: Device) -> None:
    update(supply, device)
    supply.publish("2", FILES)
    update(supply, device)
    bundle_versions.refuse(device.bundles_dir, Refusal(2, AGENT_VERSION, "disagreement", "0.3 of 1,000 events"))
    verdict = update(supply, device)
    assert (verdict.outcome, verdict.reason, verdict.detail) == ("refused", "disagreement", "0.3 of 1,000 events")
    supply.publish("2", FILES)
    assert update(supply, device).outcome == "staged"


def test_refusals_are_bounded_and_a_damaged_register_is_an_empty_one(tmp_path: Path) -> None:
    for number in range(bundle_versions.REFUSALS_MAX + 5):
        bundle_versions.refuse(tmp_path, Refusal(number, "1", "unusable", "x"))
    assert bundle_versions.refusal_of(tmp_path, 4, "1") is None
    assert bundle_versions.refusal_of(tmp_path, 5, "1") is not None
    assert bundle_versions.refusal_of(tmp_path, 5, "2") is None
    (tmp_path / "refused.json").write_bytes(b"[{")
    assert bundle_versions.refusal_of(tmp_path, 5, "1") is None


def test_a_group_without_a_bundle_is_asked_for_again(supply: Supply, device: Device) -> None:
    device.config = msgspec.structs.replace(device.config, group="other")
    verdict = update(supply, device)
    assert (verdict.outcome, verdict.reason) == ("failed", "nothing_published")


def test_a_file_that_rotted_on_the_disk_is_fetched_again(supply: Supply, device: Device) -> None:
    update(supply, device)
    digest = hashlib.sha256(FILES["clicks.zdict"]).hexdigest()
    (device.bundles_dir / "files" / digest).write_bytes(b"rotten")
    supply.publish("2", FILES)
    assert update(supply, device).outcome == "staged"
    loading.check(bundle_versions.folder_of(device.bundles_dir, 2), "d")


def test_a_full_disk_is_a_failure_that_passes(supply: Supply, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    update(supply, device)
    supply.publish("2", FILES)
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", _full)
        verdict = update(supply, device)
    assert (verdict.outcome, verdict.reason, verdict.active) == ("failed", "disk", 1)
    assert update(supply, device).outcome == "staged"


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_two_runs_at_a_time_are_one_too_many(supply: Supply, device: Device) -> None:
    inner: list[Verdict] = []

    class Meanwhile(FolderFetcher):
        def _fetch(self, url: str) -> Iterator[bytes]:
            if not inner:
                inner.append(update(supply, device))
            return super()._fetch(url)

    assert device.update(fetcher=Meanwhile(supply.served)).outcome == "activated"
    assert (inner[0].outcome, inner[0].reason) == ("failed", "busy")


CHANGING = ("rename", "replace", "link", "symlink", "mkdir", "unlink", "fsync")


def crashing(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Let the power go before the change number `at` of the disk; the function returned tells how many there were."""
    count = 0

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > at:
                raise Crash
            return real(*args, **options)

        return call

    for name in CHANGING:
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))
    return lambda: count


def test_a_crash_at_any_change_of_the_disk_costs_nothing_but_the_run(
    supply: Supply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = supply.repository.root()
    older = supply.copy()
    supply.publish("2", FILES | {"clicks.zdict": trained(40_009)})
    at, crashed = 0, True
    while crashed:
        device = Device(tmp_path / f"device-{at}", "https://repository", root)
        outcomes = []
        for served in (older, supply.served):
            fetcher = FolderFetcher(served)
            with monkeypatch.context() as patched:
                crashing(patched, at)
                try:
                    device.update(fetcher=fetcher)
                    crashed = False
                except Crash:
                    crashed = True
            assert_whole(device)
            outcomes.append(device.update(fetcher=FolderFetcher(served)).outcome)
            assert_whole(device)
        assert outcomes[0] in ("activated", "current")
        assert outcomes[1] == "staged"
        assert bundle_versions.active(device.bundles_dir) == 1
        assert bundle_versions.numbers(device.bundles_dir) == (1, 2)
        assert not (device.bundles_dir / "staging").exists()
        at += 1
    assert at > 20


def test_a_crash_while_activating_or_pruning_leaves_one_whole_active_release(
    supply: Supply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = supply.repository.root()
    states = [supply.copy()]
    for number in (2, 3, 4, 5):
        supply.publish(str(number), {"telemetry.zdict": trained(41_000 + number)})
        states.append(supply.copy())
    at, crashed = 0, True
    while crashed:
        device = Device(tmp_path / f"device-{at}", "https://repository", root)
        for served in states[:-1]:
            number = device.update(fetcher=FolderFetcher(served)).release
            bundle_versions.activate(device.bundles_dir, number or 0)
        device.update(fetcher=FolderFetcher(states[-1]))
        with monkeypatch.context() as patched:
            crashing(patched, at)
            try:
                bundle_versions.activate(device.bundles_dir, 5)
                bundle_versions.prune(device.bundles_dir)
                crashed = False
            except Crash:
                assert bundle_versions.active(device.bundles_dir) in (4, 5)
        assert_whole(device)
        bundle_versions.activate(device.bundles_dir, 5)
        assert device.update(fetcher=FolderFetcher(states[-1])).outcome == "current"
        assert bundle_versions.numbers(device.bundles_dir) == (3, 4, 5)
        at += 1
    assert at > 3


@pytest.mark.parametrize(
    "step", ["_trust", "_read", "_check", "_fetch", "_stage", "_verify", "_seal", "_activate_first"]
)
def test_a_crash_after_each_step_of_the_protocol_is_mended_by_the_next_run(
    supply: Supply, device: Device, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from edge_agent.updating.run import Updating

    update(supply, device)
    supply.publish("2", FILES | {"clicks.zdict": trained(40_009)})
    real = getattr(Updating, step)

    def crash_after(*args: Any) -> None:
        real(*args)
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Updating, step, crash_after)
        with pytest.raises(Crash):
            update(supply, device)
    assert bundle_versions.active(device.bundles_dir) == 1
    assert_whole(device)
    assert update(supply, device).outcome == "staged"
    assert_whole(device)


def test_the_version_is_the_one_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{AGENT_VERSION}"\n' in text
