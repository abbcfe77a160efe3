"""What the repository has signed for this device's group, verified by the library; every refusal as a typed error.

The library follows the client workflow of The Update Framework (specification 1.0, section 5). On top of it stands
one check of ours: a device without a clock believes to live in 1970, where nothing ever expires. So no moment counts
that is earlier than the one at which the newest timestamp that the device has trusted was signed.
"""

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from tuf.api import exceptions
from tuf.api.metadata import Metadata, TargetFile, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from contracts import releases
from edge_agent.updating.errors import (
    BehindError,
    FrozenError,
    MetadataError,
    MixedError,
    NothingPublishedError,
    OversizedError,
    RollbackError,
    SignatureError,
    SlowServerError,
    UnreachableError,
)

# What metadata may weigh: a hostile server must not fill the device's disk or memory.
ROOT_BYTES_MAX: Final = 32_768  # ten times what seven keys need
TIMESTAMP_BYTES_MAX: Final = 8_192
LIST_BYTES_MAX: Final = 1_000_000  # a snapshot of 5,000 groups
ROOT_ROTATIONS_MAX: Final = 100  # per run; keys change once a year
DELEGATIONS_MAX: Final = 2  # `targets` and the group's own role
MANIFEST_BYTES_MAX: Final = 2_000_000  # a hundred contracts


class Trusted(Struct, frozen=True):
    """What one run trusts: the version of the timestamp, and the group's document as the repository names it."""

    timestamp_version: int
    manifest: TargetFile


class Trust:
    """The repository as this device has come to know it. Every method may raise what `errors` draws below its roots."""

    def __init__(self, folder: Path, url: str, root: bytes, fetcher: FetcherInterface) -> None:
        self._folder = folder
        config = UpdaterConfig(
            max_root_rotations=ROOT_ROTATIONS_MAX,
            max_delegations=DELEGATIONS_MAX,
            root_max_length=ROOT_BYTES_MAX,
            timestamp_max_length=TIMESTAMP_BYTES_MAX,
            snapshot_max_length=LIST_BYTES_MAX,
            targets_max_length=LIST_BYTES_MAX,
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._floor = self._signed_at()
        base = url.rstrip("/")
        with _typed("metadata of the repository"):
            self._updater = Updater(
                str(folder), f"{base}/{releases.METADATA_PATH}/", str(folder), f"{base}/{releases.TARGETS_PATH}/",
                fetcher, config, bootstrap=root,
            )  # fmt: skip

    def refresh(self, group: str, now: dt.datetime, announced: int) -> Trusted:
        """Verify the newest metadata, which is kept as it is verified, and find the group's document in it."""
        with _typed("metadata of the repository"):
            self._updater.refresh()
        version = self._timestamp().signed.version
        if version < announced:
            raise BehindError(
                f"timestamp version {announced} was announced, the server has {version}: it lags, or keeps it back"
            )
        path = releases.manifest(group)
        with _typed(f"metadata of group {group}"):
            found = self._updater.get_targetinfo(path)
        self._check_expiry(group, max(now, self._floor, self._signed_at()))
        if found is None:
            raise NothingPublishedError(f"group {group!r}: the repository has no bundle for it: publish one")
        if found.length > MANIFEST_BYTES_MAX:
            raise OversizedError(
                f"{path}: expected at most {MANIFEST_BYTES_MAX} bytes, the repository says {found.length}"
            )
        return Trusted(version, found)

    def named(self, group: str, name: str, sha256: str) -> TargetFile:
        """Return a file that the group's document names, as the repository names it; both must mean the same."""
        path = releases.target(group, name)
        with _typed(f"metadata of group {group}"):
            found = self._updater.get_targetinfo(path)
        if found is None or found.hashes.get("sha256") != sha256:
            signed = found.hashes.get("sha256") if found is not None else "nothing"
            raise MixedError(f"{path}: the bundle names SHA-256 {sha256}, the repository has signed {signed}")
        if found.length > releases.FILE_BYTES_MAX:
            raise OversizedError(f"{path}: expected at most {releases.FILE_BYTES_MAX} bytes, signed are {found.length}")
        return found

    def download(self, target: TargetFile, path: Path) -> None:
        """Fetch a file; it lies at `path` only if it is the signed one."""
        with _typed(target.path):
            self._updater.download_target(target, str(path))

    def _timestamp(self) -> Metadata[Timestamp]:
        return Metadata[Timestamp].from_bytes((self._folder / "timestamp.json").read_bytes())

    def _signed_at(self) -> dt.datetime:
        """Return when the newest timestamp on the disk, which was verified before it came there, was signed."""
        try:
            said = self._timestamp().signed.unrecognized_fields.get(releases.SIGNED_AT, 0)
        except (exceptions.RepositoryError, OSError):
            said = 0  # none yet; a damaged one is fetched again
        return dt.datetime.fromtimestamp(said if isinstance(said, int) and 0 <= said < 2**35 else 0, dt.UTC)

    def _check_expiry(self, group: str, now: dt.datetime) -> None:
        for name in ("root", "timestamp", "snapshot", "targets", releases.role(group)):
            path = self._folder / f"{name}.json"
            if not path.exists():
                continue  # a group that is not published to has no role
            document: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
            if document.signed.is_expired(now):
                raise FrozenError(
                    f"{path.name}: expired at {document.signed.expires}, it is at least {now}: sign it anew"
                )


@contextlib.contextmanager
def _typed(what: str) -> Iterator[None]:
    """Turn the library's errors into ours."""
    try:
        yield
    except exceptions.ExpiredMetadataError as error:
        raise FrozenError(f"{what}: {error}: sign it anew, or set the device's clock") from error
    except exceptions.BadVersionNumberError as error:
        raise RollbackError(f"{what}: {error}: the server gives older metadata than this device has seen") from error
    except exceptions.UnsignedMetadataError as error:
        raise SignatureError(f"{what}: {error}") from error
    except exceptions.LengthOrHashMismatchError as error:
        raise MixedError(f"{what}: not what was signed: {error}") from error
    except exceptions.RepositoryError as error:
        raise MetadataError(f"{what}: {type(error).__name__}: {error}") from error
    except exceptions.DownloadLengthMismatchError as error:
        raise OversizedError(f"{what}: {error}") from error
    except exceptions.SlowRetrievalError as error:
        raise SlowServerError(f"{what}: {error}") from error
    except exceptions.DownloadHTTPError as error:
        raise UnreachableError(f"{what}: {error}: check the device's group and the server") from error
    except exceptions.DownloadError as error:
        raise UnreachableError(f"{what}: {error}") from error
