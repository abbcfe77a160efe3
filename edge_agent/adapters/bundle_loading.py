"""Releases of the device's folder as plans, which can read what other releases have left in the spool."""

import logging
from collections.abc import Callable, Collection
from pathlib import Path

from msgspec.structs import replace

from contracts.bundle import Bundle
from contracts.contract import fingerprint
from contracts.errors import FieldlakeError
from edge_agent.adapters import bundle_files, bundle_versions, named_files
from edge_agent.core.codec.unsealing import Form
from edge_agent.core.plan import Parts, Plan

_log = logging.getLogger(__name__)


class BundleLoading:
    """Loads releases for a device that treats these streams; `plan_of` makes a plan of a bundle and its folder."""

    def __init__(self, folder: Path, streams: Collection[str], plan_of: Callable[[Bundle, Path], Plan]) -> None:
        self._folder, self._streams, self._plan_of = folder, tuple(streams), plan_of

    def plan(self, release: int) -> Plan:
        """Load a release now. Raises OperatorMustActError when it cannot be followed."""
        folder = bundle_versions.folder_of(self._folder, release)
        return _with_earlier(self._plan_of(bundle_files.load(folder), folder), self._earlier(release))

    def bare(self, release: int) -> Plan | None:
        """Return a release without what decides about events, to end its windows; None when it cannot be loaded."""
        folder = bundle_versions.folder_of(self._folder, release)
        try:
            bundle = bundle_files.load(folder)
            streams = tuple(replace(stream, rules=(), model=None, otherwise="keep") for stream in bundle.streams)
            return _with_earlier(self._plan_of(replace(bundle, streams=streams), folder), self._earlier(release))
        except FieldlakeError as error:
            _log.warning("windows_of_bundle_lost release=%d why=%r", release, str(error))
            return None

    def parts(self, release: int) -> Parts:
        """Return what a release is carried out with, for a swap. Raises as `plan` does."""
        return Parts(self.plan(release))

    def _earlier(self, release: int) -> dict[str, list[Form]]:
        """Return the forms of rows in the other releases that are kept, by contract."""
        found: dict[str, list[Form]] = {}
        for number in bundle_versions.numbers(self._folder):
            folder = bundle_versions.folder_of(self._folder, number)
            try:
                bundle = bundle_files.load(folder) if number != release else None
                for name in self._streams if bundle is not None else ():
                    assert bundle is not None
                    found.setdefault(name, []).append(Form(bundle.contract(name), _dictionary(bundle, folder, name)))
            except (FieldlakeError, OSError) as error:
                # Rows of that release that an open window still wants are missed then, and said to be lost.
                _log.warning("earlier_bundle_unread release=%d why=%r", number, str(error))
        return found


def _dictionary(bundle: Bundle, folder: Path, contract: str) -> bytes:
    for entry in bundle.dictionaries:
        if entry.contract == contract:
            return named_files.read(folder, entry.file, entry.sha256, f"dictionary {entry.id}")
    return b""


def _with_earlier(plan: Plan, earlier: dict[str, list[Form]]) -> Plan:
    """Return the plan with those forms that are not its own."""
    kept: dict[str, tuple[Form, ...]] = {}
    for stream in plan.streams:
        name = stream.source.id
        known = {(fingerprint(stream.source), plan.dictionaries.get(name, b""))}
        forms: list[Form] = []
        for form in earlier.get(name, ()):
            key = fingerprint(form.contract), form.dictionary
            if key not in known:
                known.add(key)
                forms.append(form)
        if forms:
            kept[name] = tuple(forms)
    return replace(plan, earlier=kept)
