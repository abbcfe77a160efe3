"""A change of a table's files, and what it makes of the table's manifests."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestFile

from lakehouse.maintenance.listing import Manifests

MANIFESTS_MAX: Final = 16  # manifests of one spec; a reader opens each of them that its filter does not rule out
ENTRIES_MAX: Final = 1_000  # entries of a merged manifest; about a megabyte, and a tenth of a second to rewrite


class Change(Struct, frozen=True):
    """Files by path that go and files that come.

    `rows_changed`: whether readers find other rows than before. `traceless`: the snapshot does not list what went,
    whose bounds may name a subject.
    """

    removed: Mapping[str, DataFile]
    added: tuple[DataFile, ...]
    rows_changed: bool = False
    traceless: bool = False


def rearranged(
    present: Iterable[ManifestFile], manifests: Manifests, change: Change
) -> tuple[list[ManifestFile], dict[int, list[ManifestEntry]], list[ManifestEntry]]:
    """Return which manifests stay as they are, which entries move to new ones by spec, and which entries go.

    A manifest is left alone when nothing in it goes; of a spec with more than MANIFESTS_MAX, the small ones are merged.
    """
    kept: dict[int, list[ManifestFile]] = defaultdict(list)
    moved: dict[int, list[ManifestEntry]] = defaultdict(list)
    gone: list[ManifestEntry] = []
    for manifest in present:
        live = manifests.live(manifest)
        staying = [entry for entry in live if entry.data_file.file_path not in change.removed]
        gone += [entry for entry in live if entry.data_file.file_path in change.removed]
        if len(staying) == len(manifests.entries(manifest)):
            kept[manifest.partition_spec_id].append(manifest)
        else:
            moved[manifest.partition_spec_id] += staying
    for spec_id, own in kept.items():
        if len(own) > MANIFESTS_MAX:
            small = [manifest for manifest in own if len(manifests.entries(manifest)) < ENTRIES_MAX // 2]
            moved[spec_id] += [entry for manifest in small for entry in manifests.live(manifest)]
            kept[spec_id] = [manifest for manifest in own if manifest not in small]
    return [m for own in kept.values() for m in own], {at: e for at, e in moved.items() if e}, gone
