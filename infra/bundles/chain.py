"""The chain of signed files that is in force, and what must be signed to change it. Values only.

`timestamp.json` names `{v}.snapshot.json`, which names `{v}.targets.json` and `{v}.group-{group}.json` of every group;
the newest `{v}.root.json` says whose signatures count. What the chain in force does not name, no device ever asks for.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from msgspec import Struct
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from contracts import releases
from infra.bundles import keys, metadata
from infra.bundles.errors import RepositoryDamagedError, SigningKeyError
from infra.bundles.metadata import Document

Files: TypeAlias = Mapping[str, TargetFile]  # by path in the repository

ROOT: Final = Root.type
TIMESTAMP_FILE: Final = "timestamp.json"


class Chain(Struct, frozen=True):
    """Everything that is in force. `groups` are the signed files of each group's role, by group."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    groups: Mapping[str, Metadata[Targets]]
    documents: Mapping[str, Document]  # `targets` and `group-{group}` by role name

    def files(self, group: str) -> Files:
        """Return the files of a group's bundle, none for a group that has none."""
        found = self.groups.get(group)
        return found.signed.targets if found is not None else {}


class Written(Struct, frozen=True):
    """One file to be written into the metadata folder."""

    name: str
    data: bytes


def read(root: bytes, fetch: Callable[[str], bytes]) -> Chain:
    """Follow the chain from `timestamp.json`; `fetch` returns a file of the metadata folder.

    Raises RepositoryDamagedError when a file is not the one that is named.
    """
    try:
        timestamp = Metadata[Timestamp].from_bytes(fetch(TIMESTAMP_FILE))
        named = timestamp.signed.snapshot_meta
        data = fetch(versioned(named.version, Snapshot.type))
        named.verify_length_and_hashes(data)
        snapshot = Metadata[Snapshot].from_bytes(data)
        documents: dict[str, Document] = {}
        for file_name, meta in snapshot.signed.meta.items():
            name = file_name.removesuffix(".json")
            data = fetch(versioned(meta.version, name))
            meta.verify_length_and_hashes(data)
            documents[name] = Document(meta.version, data)
        signed = {name: Metadata[Targets].from_bytes(document.data) for name, document in documents.items()}
        targets = signed.pop(Targets.type)
        groups = {name.removeprefix("group-"): value for name, value in signed.items()}
        return Chain(Metadata[Root].from_bytes(root), timestamp, snapshot, targets, groups, documents)
    except (RepositoryError, KeyError) as error:
        raise RepositoryDamagedError(
            f"bundle repository: the chain from {TIMESTAMP_FILE} breaks: {type(error).__name__}: {error}: "
            "bring its folder back from a copy"
        ) from error


def first(signers: Mapping[str, CryptoSigner], now: dt.datetime) -> list[Written]:
    """Return the files of a repository without any group."""
    trusted = {name: signer.public_key for name, signer in signers.items()}
    root = metadata.root(1, trusted, [signers[name] for name in keys.ROOT_KEYS], now)
    targets = metadata.targets(1, (), trusted[keys.RELEASES], signers[keys.TARGETS], now)
    snapshot = metadata.snapshot(1, {Targets.type: targets}, signers[keys.SNAPSHOT], now)
    timestamp = metadata.timestamp(1, snapshot, signers[keys.TIMESTAMP], now)
    return [
        Written(versioned(1, ROOT), root.data),
        Written(versioned(1, Targets.type), targets.data),
        Written(versioned(1, Snapshot.type), snapshot.data),
        Written(TIMESTAMP_FILE, timestamp.data),
    ]


def next_files(
    chain: Chain, changed: Mapping[str, Files], signers: Mapping[str, CryptoSigner], now: dt.datetime
) -> list[Written]:
    """Return what must be written, in this order, so that the groups' bundles are the changed ones.

    What has lived half of its time, or is signed by a key that is no longer trusted, is signed anew. Nothing to change
    and nothing to renew: no files.
    """
    releaser = signers[keys.RELEASES]
    stale_key = bool(chain.groups) and releaser.public_key.keyid not in _delegated_keys(chain)
    written: list[Written] = []
    documents = dict(chain.documents)

    def put(name: str, document: Document) -> None:
        documents[name] = document
        written.append(Written(versioned(document.version, name), document.data))

    for group in sorted({*chain.groups, *changed}):
        old = chain.groups.get(group)
        if group in changed or old is None or stale_key or is_due(old, metadata.TARGETS_VALID, now):
            version = old.signed.version + 1 if old is not None else 1
            put(releases.role(group), metadata.group(version, changed.get(group, chain.files(group)), releaser, now))
    groups = {*chain.groups, *changed}
    if groups != set(chain.groups) or stale_key or _must_sign(chain, chain.targets, metadata.TARGETS_VALID, now):
        version = chain.targets.signed.version + 1
        put(Targets.type, metadata.targets(version, groups, releaser.public_key, signers[keys.TARGETS], now))
    if written or _must_sign(chain, chain.snapshot, metadata.SNAPSHOT_VALID, now):
        version = chain.snapshot.signed.version + 1
        snapshot = metadata.snapshot(version, documents, signers[keys.SNAPSHOT], now)
        written.append(Written(versioned(version, Snapshot.type), snapshot.data))
    elif not _must_sign(chain, chain.timestamp, metadata.TIMESTAMP_VALID, now):
        return []
    else:
        snapshot = Document(chain.snapshot.signed.version, chain.snapshot.to_bytes(metadata.COMPACT))
    version = chain.timestamp.signed.version + 1
    timestamp = metadata.timestamp(version, snapshot, signers[keys.TIMESTAMP], now)
    return [*written, Written(TIMESTAMP_FILE, timestamp.data)]


def check_trusted(chain: Chain, signers: Mapping[str, CryptoSigner]) -> None:
    """Raise SigningKeyError unless devices would believe what these keys sign."""
    for name, role in ((keys.TARGETS, Targets.type), (keys.SNAPSHOT, Snapshot.type), (keys.TIMESTAMP, Timestamp.type)):
        if signers[name].public_key.keyid not in chain.root.signed.roles[role].keyids:
            raise SigningKeyError(
                f"signing key {name!r}: root {chain.root.signed.version} trusts another one: bring that one back, or "
                f"finish its replacement with `fieldlake bundle rotate {name}`"
            )


def check_successor(chain: Chain, root: Document) -> None:
    """Raise SigningKeyError unless a root is signed by enough keys of the one in force, and of its own."""
    new = Metadata[Root].from_bytes(root.data)
    try:
        chain.root.signed.verify_delegate(ROOT, new.signed_bytes, new.signatures)
        new.signed.verify_delegate(ROOT, new.signed_bytes, new.signatures)
    except UnsignedMetadataError as error:
        raise SigningKeyError(
            f"root {root.version}: {error}: bring {keys.ROOT_THRESHOLD} of the keys {', '.join(keys.ROOT_KEYS)} back"
        ) from error


def versioned(version: int, role: str) -> str:
    """Return the name of a signed file that never changes."""
    return f"{version}.{role}.json"


def _delegated_keys(chain: Chain) -> set[str]:
    delegations = chain.targets.signed.delegations
    return set(delegations.keys) if delegations is not None else set()


def _must_sign(
    chain: Chain, document: Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp], valid: dt.timedelta,
    now: dt.datetime,
) -> bool:  # fmt: skip
    try:
        chain.root.signed.verify_delegate(document.signed.type, document.signed_bytes, document.signatures)
    except UnsignedMetadataError:
        return True
    return is_due(document, valid, now)


def is_due(
    document: Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp], valid: dt.timedelta,
    now: dt.datetime,
) -> bool:  # fmt: skip
    """Whether a document has lived half of its time."""
    signed: Signed = document.signed
    return signed.expires - now < valid / 2
