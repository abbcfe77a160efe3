"""The repository of signed bundles in a folder: `served/` is given to devices, `keys/` never is.

    keys/                       signing keys, see `keys`
    served/metadata/            signed files, see `chain`
    served/targets/groups/G/    every file of every bundle published to group G, as `{sha256}.{name}`
    releases/G/{number}.json    the document of each release, for `show` and `revert`

One commit works in this order:

1. files      what the bundles name. Crash after: nothing refers to them.
2. release    the document's copy for `revert`. Crash after: the next publication writes the same number again.
3. metadata   groups, targets, snapshot under versions of their own. Crash after: nothing refers to them either, and the
              next commit writes the same versions again.
4. timestamp  replaced in one step: from now on devices see all of it, before nothing.
"""

import contextlib
import datetime as dt
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from securesystemslib.signer import CryptoSigner, Key

from contracts import bundle as bundles
from contracts import releases
from contracts.bundle import BUNDLE_FILE, Bundle, Release
from contracts.errors import ReleaseError
from infra.bundles import chain, keys, metadata
from infra.bundles.chain import Chain, Files, Written
from infra.bundles.errors import NoSuchReleaseError, RepositoryDamagedError, RepositoryMissingError, SigningKeyError
from infra.bundles.keys import KeyFolder

SERVED: Final = "served"

Put = Callable[[Path, bytes], None]


class Published(Struct, frozen=True):
    """What a group is to run from now on."""

    group: str
    number: int
    bundle_version: str
    files: int
    timestamp_version: int


class GroupState(Struct, frozen=True):
    """What a group is to run; `numbers` are the releases that can be gone back to."""

    group: str
    release: Release
    bundle_version: str
    files: tuple[str, ...]
    numbers: tuple[int, ...]


class RepositoryState(Struct, frozen=True):
    """What is in force. Expiries are in UTC."""

    root_version: int
    timestamp_version: int
    timestamp_expires: dt.datetime
    groups: tuple[GroupState, ...]


class _Content(Struct, frozen=True):
    document: Bundle
    files: Mapping[str, bytes]


class Repository:
    """One repository. Methods that write hold a lock on its folder, and sign with the keys in it.

    `clock` gives the time in UTC, `put` makes a file durable in one step; both are there for tests.
    """

    def __init__(self, home: Path, clock: Callable[[], dt.datetime], put: Put | None = None) -> None:
        self._home, self._clock, self._put = home, clock, put or put_durably
        self.served = home / SERVED
        self._metadata = self.served / releases.METADATA_PATH
        self._targets = self.served / releases.TARGETS_PATH
        self._keys = KeyFolder(home / "keys")

    def exists(self) -> bool:
        """Whether it was initialised."""
        return (self._metadata / chain.TIMESTAMP_FILE).exists()

    def init(self) -> None:
        """Draw the keys and sign a repository without groups. Raises RepositoryMissingError if there is one."""
        with self._locked():
            if self.exists():
                raise RepositoryMissingError(
                    f"bundle repository {self._home}: it exists; new keys would lock out every device: "
                    "to change one key, run `fieldlake bundle rotate`"
                )
            signers = {name: self._keys.make(name) for name in keys.KEYS}
            self._write(chain.first(signers, self._clock()))

    def publish(self, group: str, folder: Path, agent_version_min: str = "0") -> Published:
        """Make a folder's bundle the newest release of a group. Raises ReleaseError, ContractError."""
        with self._locked():
            return self._release({group: (_content(folder), agent_version_min)})[0]

    def ensure_published(self, group: str, folder: Path) -> Published | None:
        """Publish a folder's bundle unless it is what the group runs; None when it is."""
        with self._locked():
            content, current = _content(folder), self._current(self._chain(), group)
            if current is not None and replace(current, release=None) == replace(content.document, release=None):
                return None
            return self._release({group: (content, "0")})[0]

    def rollout(self, source: str, groups: tuple[str, ...]) -> tuple[Published, ...]:
        """Give other groups, all in one step, what a group runs, byte for byte but for group and number."""
        with self._locked():
            content, release = self._released(source, None)
            return self._release(dict.fromkeys(groups, (content, release.agent_version_min)))

    def revert(self, group: str, number: int | None = None) -> Published:
        """Publish the content of an older release (the one before, without a number) under a newer number."""
        with self._locked():
            current = self._current(self._chain(), group)
            newest = _release_of(current).number if current is not None else 0
            content, release = self._released(group, newest - 1 if number is None else number)
            return self._release({group: (content, release.agent_version_min)})[0]

    def renew(self) -> bool:
        """Sign anew what has lived half of its time; return whether there was anything."""
        with self._locked():
            found, now = self._chain(), self._clock()
            is_root_due = chain.is_due(found.root, metadata.ROOT_VALID, now)
            if is_root_due:
                self._sign_root(found, [])
            return self._commit({}, {}) or is_root_due

    def rotate(self, name: str) -> int:
        """Replace a signing key, by a root signed by the keys before and after; return the new root's version."""
        with self._locked():
            trusted = self._chain()
            old = [self._keys.load(key) for key in keys.ROOT_KEYS if self._keys.has(key)]
            if name not in keys.KEYS:
                raise SigningKeyError(f"signing key {name!r}: expected one of {', '.join(keys.KEYS)}")
            self._keys.make(name)
            version = self._sign_root(trusted, old)
            self._commit({}, {})
            return version

    def state(self) -> RepositoryState:
        """Return what is in force. Raises RepositoryMissingError, RepositoryDamagedError."""
        found = self._chain()
        groups = []
        for group in sorted(found.groups):
            document = self._current(found, group)
            assert document is not None
            names = tuple(sorted(path.rpartition("/")[2] for path in found.files(group)))
            numbers = tuple(sorted(int(file.stem) for file in (self._home / "releases" / group).glob("*.json")))
            groups.append(GroupState(group, _release_of(document), document.version, names, numbers))
        timestamp = found.timestamp.signed
        return RepositoryState(found.root.signed.version, timestamp.version, timestamp.expires, tuple(groups))

    def root(self, version: int = 1) -> bytes:
        """Return a root, which a device is given once, to trust. Raises RepositoryMissingError."""
        return self._read_metadata(chain.versioned(version, chain.ROOT))

    # Reading.

    def _chain(self) -> Chain:
        if not self.exists():
            raise RepositoryMissingError(
                f"bundle repository {self._home}: expected one, found none: run `fieldlake bundle init`"
            )
        versions = [int(file.name.partition(".")[0]) for file in self._metadata.glob("*.root.json")]
        return chain.read(self.root(max(versions, default=1)), self._read_metadata)

    def _read_metadata(self, name: str) -> bytes:
        try:
            return (self._metadata / name).read_bytes()
        except OSError as error:
            raise RepositoryDamagedError(
                f"bundle repository {self._home}: {self._metadata / name}: {error.strerror}: bring it back from a copy"
            ) from error

    def _current(self, found: Chain, group: str) -> Bundle | None:
        file = found.files(group).get(releases.manifest(group))
        if file is None:
            return None
        return bundles.decode(self._read_target(group, BUNDLE_FILE, file.hashes["sha256"]))

    def _released(self, group: str, number: int | None) -> tuple[_Content, Release]:
        if number is None:
            document = self._current(self._chain(), group)
            if document is None:
                raise NoSuchReleaseError(f"group {group!r}: nothing was published to it: publish a bundle first")
        else:
            path = self._home / "releases" / releases.check_group(group) / f"{number}.json"
            if not path.is_file():
                known = ", ".join(sorted(file.stem for file in path.parent.glob("*.json"))) or "none"
                raise NoSuchReleaseError(f"group {group!r}: no release {number}: known are {known}")
            document = bundles.decode(path.read_bytes())
        files = {f.name: self._read_target(group, f.name, f.sha256) for f in releases.files_of(document)}
        return _Content(document, files), _release_of(document)

    def _read_target(self, group: str, name: str, sha256: str) -> bytes:
        path = self._target_path(group, name, sha256)
        try:
            return path.read_bytes()
        except OSError as error:
            raise RepositoryDamagedError(
                f"bundle repository: {path}: {error.strerror}: bring it back from a copy, or publish the bundle again"
            ) from error

    def _target_path(self, group: str, name: str, sha256: str) -> Path:
        folder, _, file = releases.target(group, name).rpartition("/")
        return self._targets / folder / f"{sha256}.{file}"

    # Writing.

    def _release(self, wanted: Mapping[str, tuple[_Content, str]]) -> tuple[Published, ...]:
        found = self._chain()
        changed: dict[str, Files] = {}
        stored: dict[Path, bytes] = {}
        published = []
        for group, (content, agent_version_min) in wanted.items():
            releases.version_order(agent_version_min)
            current = self._current(found, group)
            number = _release_of(current).number + 1 if current is not None else 1
            document = replace(content.document, release=Release(group, number, agent_version_min))
            files = {**content.files, BUNDLE_FILE: bundles.encode(document)}
            named = {name: metadata.target_file(releases.target(group, name), data) for name, data in files.items()}
            for name, file in named.items():
                stored[self._target_path(group, name, file.hashes["sha256"])] = files[name]
            stored[self._home / "releases" / group / f"{number}.json"] = files[BUNDLE_FILE]
            changed[group] = {file.path: file for file in named.values()}
            version = found.timestamp.signed.version + 1
            published.append(Published(group, number, document.version, len(content.files), version))
        self._commit(changed, stored)
        return tuple(published)

    def _commit(self, changed: Mapping[str, Files], stored: Mapping[Path, bytes]) -> bool:
        """Follow the steps in the module's docstring; return whether anything was signed."""
        for path, data in stored.items():  # Steps 1 and 2.
            if not path.exists() or path.is_relative_to(self._home / "releases"):
                self._put(path, data)
        found, signers = self._chain(), self._signers()
        chain.check_trusted(found, signers)
        written = chain.next_files(found, changed, signers, self._clock())
        self._write(written)  # Steps 3 and 4: the timestamp is the last of them.
        return bool(written)

    def _sign_root(self, found: Chain, old: list[CryptoSigner]) -> int:
        """Publish a root with the keys at hand, signed by these and the older ones; return its version.

        A root key that is away stays trusted. Raises SigningKeyError when devices would not believe the new root.
        """
        version = found.root.signed.version + 1
        signers = self._signers()
        before = found.root.signed
        kept = [before.keys[keyid] for keyid in before.roles[chain.ROOT].keyids]
        public: dict[str, Key] = dict(zip(keys.ROOT_KEYS, kept, strict=True))
        public |= {name: signer.public_key for name, signer in signers.items()}
        signing = [*old, *(signers[name] for name in keys.ROOT_KEYS if name in signers)]
        root = metadata.root(version, public, signing, self._clock())
        chain.check_successor(found, root)
        self._write([Written(chain.versioned(version, chain.ROOT), root.data)])
        return version

    def _write(self, files: list[Written]) -> None:
        for file in files:
            self._put(self._metadata / file.name, file.data)

    def _signers(self) -> dict[str, CryptoSigner]:
        """Return the keys that are at hand; root keys need not be."""
        return {name: self._keys.load(name) for name in keys.KEYS if name not in keys.ROOT_KEYS or self._keys.has(name)}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._home, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def put_durably(path: Path, data: bytes) -> None:
    """Replace a file in one step; after a power cut the old or the new content is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _content(folder: Path) -> _Content:
    """Read a bundle and its files from a folder, each checked. Raises ReleaseError, ContractError."""
    try:
        document = bundles.decode((folder / BUNDLE_FILE).read_bytes())
        files = {file.name: (folder / file.name).read_bytes() for file in releases.files_of(document)}
    except OSError as error:
        raise ReleaseError(f"bundle {folder}: {error.filename}: {error.strerror}: build the bundle again") from error
    for file in releases.files_of(document):
        found = metadata.target_file(file.name, files[file.name])
        if found.hashes["sha256"] != file.sha256 or found.length > releases.FILE_BYTES_MAX:
            raise ReleaseError(
                f"bundle {folder}: {file.name}: expected SHA-256 {file.sha256} and at most {releases.FILE_BYTES_MAX} "
                f"bytes, found {found.hashes['sha256']} and {found.length}: build the bundle again"
            )
    return _Content(document, files)


def _release_of(document: Bundle) -> Release:
    if document.release is None:
        raise RepositoryDamagedError(f"bundle {document.version}: published without its release: publish it again")
    return document.release
