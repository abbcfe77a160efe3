"""One run of the updating process.

1. trust      root, timestamp, snapshot, targets and the group's role are verified and kept. Crash after: the next run
              begins with them, and nothing older is trusted any more.
2. read       the group's document is fetched and read; a release for another group or a newer agent ends here.
3. fetch      files that no release on the disk has, each under its hash. Crash after: the next run has fewer to fetch.
4. stage      document and links to the files in `staging/`. Crash after: the next run empties it.
5. verify     it loads as the agent would load it.
6. seal       `staging/` is renamed to the release's number. Crash after: the next run finds it and says "staged".
7. activate   only the first bundle of a device; every other one is tried by the agent on live events before.
8. prune      what nobody goes back to. Crash after or before: the next run does it.

Only this order never activates what was not verified, and never leaves a device without the bundle it had.
"""

import datetime as dt
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tuf.api.metadata import TargetFile

from contracts import bundle as bundles
from contracts import releases
from contracts.bundle import BUNDLE_FILE, Bundle
from contracts.errors import ContractError, ReleaseError
from edge_agent.adapters import bundle_versions
from edge_agent.adapters.bundle_versions import Refusal
from edge_agent.core.updates.updates import Outcome, Verdict
from edge_agent.updating.config import UpdatingConfig
from edge_agent.updating.errors import (
    AgentTooOldError,
    BusyError,
    DiskError,
    FailedError,
    ForeignGroupError,
    RefusedError,
    ReleaseRefusedError,
    RollbackError,
    UnsafeNameError,
    UnusableBundleError,
    UpdatingConfigError,
)
from edge_agent.updating.fetching import DeviceFetcher
from edge_agent.updating.trust import Trust, Trusted
from edge_agent.version import AGENT_VERSION

NEW: Final = ".new"  # begins the name of a file that is not verified to its end


class Updating:
    """One run over a device's folder of bundles. `now` is the wall clock, which may be wrong."""

    def __init__(
        self, config: UpdatingConfig, fetcher: DeviceFetcher, now: dt.datetime, agent_version: str = AGENT_VERSION
    ) -> None:
        self._config, self._fetcher, self._now, self._agent_version = config, fetcher, now, agent_version
        self._folder = Path(config.bundles_dir)
        self._files = self._folder / bundle_versions.FILES
        self._staging = self._folder / bundle_versions.STAGING
        self._timestamp_version = 0
        self._release: int | None = None

    def run(self, announced: int = 0) -> Verdict:
        """Bring the folder up to what the repository says; `announced` is the timestamp version that it must have."""
        try:
            with self._locked():
                return self._update(announced)
        except ReleaseRefusedError as error:
            self._remember(error)
            return self._verdict("refused", error.reason, str(error))
        except (RefusedError, UpdatingConfigError) as error:
            return self._verdict("refused", error.reason, str(error))
        except FailedError as error:
            return self._verdict("failed", error.reason, str(error))
        except OSError as error:
            return self._verdict("failed", DiskError.reason, f"bundles in {self._folder}: {error}")

    def _update(self, announced: int) -> Verdict:
        bundle_versions.clear_staging(self._folder)
        trust = self._trust()
        trusted = trust.refresh(self._config.group, self._now, announced)  # Step 1.
        self._timestamp_version = trusted.timestamp_version
        document = self._read(trust, trusted)  # Step 2.
        number = self._check(document)
        outcome: Outcome = "current"
        if number != bundle_versions.active(self._folder):
            if (refusal := bundle_versions.refusal_of(self._folder, number, self._agent_version)) is not None:
                return self._verdict("refused", refusal.reason, refusal.detail)
            if not self._is_sealed(number, trusted):
                self._fetch(trust, document)  # Step 3.
                self._stage(document, trusted)  # Step 4.
                self._verify()  # Step 5.
                self._seal(number)  # Step 6.
            outcome = self._activate_first(number)  # Step 7.
        bundle_versions.prune(self._folder)  # Step 8.
        return self._verdict(outcome)

    def _trust(self) -> Trust:
        path = Path(self._config.root_file)
        try:
            root = path.read_bytes()
        except OSError as error:
            raise UpdatingConfigError(
                f"root_file {path}: {error.strerror}: give the device the repository's root when it is set up"
            ) from error
        return Trust(self._folder / bundle_versions.METADATA, self._config.url, root, self._fetcher)

    def _read(self, trust: Trust, trusted: Trusted) -> Bundle:
        """Return the group's document, which is kept like any other file, under its hash."""
        self._files.mkdir(mode=0o700, exist_ok=True)
        path = self._hold(trust, trusted.manifest, _sha256(trusted))
        try:
            document = bundles.decode(path.read_bytes())
        except ContractError as error:
            raise UnusableBundleError(f"{trusted.manifest.path}: {error}") from error
        self._release = document.release.number if document.release is not None else None
        return document

    def _check(self, document: Bundle) -> int:
        """Return the release's number; raise unless it is one for this device and this agent."""
        release, group = document.release, self._config.group
        if release is None:
            raise UnusableBundleError(
                f"bundle of group {group}: expected its release in it, found none: publish it anew"
            )
        if release.group != group:
            raise ForeignGroupError(
                f"bundle of group {group}: it is made for group {release.group!r}: publish the right one"
            )
        try:
            releases.files_of(document)
            is_old = releases.version_order(release.agent_version_min) > releases.version_order(self._agent_version)
        except ReleaseError as error:
            raise UnsafeNameError(f"release {release.number}: {error}") from error
        if is_old:
            raise AgentTooOldError(
                f"release {release.number}: expected an agent of version {release.agent_version_min} or newer, "
                f"this is {self._agent_version}: update the agent first"
            )
        active = bundle_versions.active(self._folder)
        if active is not None and release.number < active:
            raise RollbackError(
                f"release {release.number}: older than the active release {active}: publish it under a newer number"
            )
        return release.number

    def _fetch(self, trust: Trust, document: Bundle) -> None:
        for file in releases.files_of(document):
            self._hold(trust, trust.named(self._config.group, file.name, file.sha256), file.sha256)

    def _stage(self, document: Bundle, trusted: Trusted) -> None:
        self._staging.mkdir(mode=0o700)
        os.link(self._files / _sha256(trusted), self._staging / BUNDLE_FILE)
        for file in releases.files_of(document):
            os.link(self._files / file.sha256, self._staging / file.name)
        bundle_versions.sync_folder(self._staging)

    def _verify(self) -> None:
        # The loader brings numpy and ONNX Runtime, 50 MB that a run without anything new does not need.
        from edge_agent.updating import loading

        loading.check(self._staging, self._config.device, self._config.profile)

    def _seal(self, number: int) -> None:
        self._staging.rename(bundle_versions.folder_of(self._folder, number))
        bundle_versions.sync_folder(self._folder)

    def _activate_first(self, number: int) -> Outcome:
        if bundle_versions.active(self._folder) is not None:
            return "staged"
        bundle_versions.activate(self._folder, number)
        return "activated"

    # What the steps need.

    def _hold(self, trust: Trust, target: TargetFile, sha256: str) -> Path:
        """Return the path of a file under its hash, fetched unless it is there."""
        path = self._files / sha256
        if _is_whole(path, sha256):
            return path
        partial = self._files / f"{NEW}{sha256}"
        trust.download(target, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        bundle_versions.sync_folder(self._files)
        return path

    def _is_sealed(self, number: int, trusted: Trusted) -> bool:
        """Whether the release lies there; one of the same number and other content is put away."""
        folder = bundle_versions.folder_of(self._folder, number)
        if not folder.is_dir():
            return False
        if _is_whole(folder / BUNDLE_FILE, _sha256(trusted)):
            return True
        folder.rename(self._staging)
        bundle_versions.clear_staging(self._folder)
        return False

    def _remember(self, error: ReleaseRefusedError) -> None:
        if self._release is not None:
            refusal = Refusal(self._release, self._agent_version, error.reason, str(error))
            bundle_versions.refuse(self._folder, refusal)

    def _verdict(self, outcome: Outcome, reason: str = "", detail: str = "") -> Verdict:
        return Verdict(
            outcome=outcome,
            release=self._release,
            active=bundle_versions.active(self._folder),
            timestamp_version=self._timestamp_version,
            fetched_bytes=self._fetcher.fetched_bytes,
            reason=reason,
            detail=detail,
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(f"bundles in {self._folder}: another process updates them: let it end") from None
            yield
        finally:
            os.close(descriptor)


def _sha256(trusted: Trusted) -> str:
    return str(trusted.manifest.hashes["sha256"])


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False
