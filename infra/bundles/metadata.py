"""What the repository signs: values in, signed bytes out. No clock and no files.

Roles and their keys: `root` (2 of 3 keys) names all keys; `targets` says which groups there are and delegates
`groups/{group}/*` to `group-{group}`; that one lists the files of the group's bundle; `snapshot` lists the versions of
all of these; `timestamp` names the one snapshot in force.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from contracts import releases
from infra.bundles import keys

# How long each kind of metadata is believed. A thief of a key, or whoever keeps devices from the newest state, has
# until then; renewing costs one command. The announcement shows a frozen server earlier.
ROOT_VALID: Final = dt.timedelta(days=730)
TARGETS_VALID: Final = dt.timedelta(days=365)
SNAPSHOT_VALID: Final = dt.timedelta(days=30)
TIMESTAMP_VALID: Final = dt.timedelta(days=14)
ONE_KEY: Final = 1
COMPACT: Final = JSONSerializer(compact=True)  # a third less to fetch


class Document(Struct, frozen=True):
    """One signed file: its version and its bytes."""

    version: int
    data: bytes

    def meta(self) -> MetaFile:
        """Return how a role above this one names it: by version, length and hash, so that nothing can be mixed."""
        return MetaFile.from_data(self.version, self.data, ["sha256"])


def root(version: int, trusted: Mapping[str, Key], signers: Iterable[CryptoSigner], now: dt.datetime) -> Document:
    """Return a root that trusts the given keys, by their names in `keys.KEYS`."""
    roles = {
        Root.type: Role([trusted[name].keyid for name in keys.ROOT_KEYS], keys.ROOT_THRESHOLD),
        Targets.type: Role([trusted[keys.TARGETS].keyid], ONE_KEY),
        Snapshot.type: Role([trusted[keys.SNAPSHOT].keyid], ONE_KEY),
        Timestamp.type: Role([trusted[keys.TIMESTAMP].keyid], ONE_KEY),
    }
    known = {trusted[name].keyid: trusted[name] for name in keys.KEYS if name != keys.RELEASES}
    return _sign(Root(version, expires=now + ROOT_VALID, keys=known, roles=roles, consistent_snapshot=True), *signers)


def targets(version: int, groups: Iterable[str], key: Key, signer: CryptoSigner, now: dt.datetime) -> Document:
    """Return the role that says which groups there are, and that `key` signs for each of them."""
    roles = {
        releases.role(group): DelegatedRole(
            releases.role(group), [key.keyid], ONE_KEY, terminating=True, paths=[releases.target(group, "x")[:-1] + "*"]
        )
        for group in sorted(groups)
    }
    delegations = Delegations({key.keyid: key}, roles) if roles else None
    return _sign(Targets(version, expires=now + TARGETS_VALID, delegations=delegations), signer)


def group(version: int, files: Mapping[str, TargetFile], signer: CryptoSigner, now: dt.datetime) -> Document:
    """Return the role that lists the files of one group's bundle."""
    return _sign(Targets(version, expires=now + TARGETS_VALID, targets=dict(files)), signer)


def snapshot(version: int, listed: Mapping[str, Document], signer: CryptoSigner, now: dt.datetime) -> Document:
    """Return the role that lists the versions of `targets` and of every group, by role name."""
    meta = {f"{name}.json": document.meta() for name, document in listed.items()}
    return _sign(Snapshot(version, expires=now + SNAPSHOT_VALID, meta=meta), signer)


def timestamp(version: int, of: Document, signer: CryptoSigner, now: dt.datetime) -> Document:
    """Return the role that names the snapshot in force, and when that was said."""
    said_at = {releases.SIGNED_AT: int(now.timestamp())}
    return _sign(
        Timestamp(version, expires=now + TIMESTAMP_VALID, snapshot_meta=of.meta(), unrecognized_fields=said_at), signer
    )


def target_file(path: str, data: bytes) -> TargetFile:
    """Return how a file is named by its length and hash."""
    return TargetFile.from_data(path, data, ["sha256"])


def _sign(payload: Signed, *signers: CryptoSigner) -> Document:
    document: Metadata[Any] = Metadata(payload)
    for signer in signers:
        document.sign(signer, append=True)
    return Document(payload.version, document.to_bytes(COMPACT))
