"""Releases of the device's folder, loaded as plans: at the start, and beside the loop while another one is in force."""

import logging
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from contracts.bundle import Bundle
from contracts.contract import fingerprint
from contracts.errors import FieldlakeError
from edge_agent.adapters import bundle_files, bundle_versions, named_files
from edge_agent.bundle_swaps import Loaded
from edge_agent.core.codec.unsealing import Form
from edge_agent.core.intake import Parts, Plan

_log = logging.getLogger(__name__)


class BundleLoading:
    """Implements `bundle_swaps.Loading`: one thread at a time, so that the loop does not wait for a model.

    `plan_of` makes a plan of a bundle and its folder; `wake` lets the loop look.
    """

    def __init__(
        self, folder: Path, streams: Collection[str], plan_of: Callable[[Bundle, Path], Plan], wake: Callable[[], None]
    ) -> None:
        self._folder, self._streams = folder, tuple(streams)
        self._plan_of, self._wake = plan_of, wake
        self._release: int | None = None
        self._loaded: Loaded | None = None

    @property
    def runs(self) -> bool:
        """Whether a release was asked for and not taken yet."""
        return self._release is not None

    def plan(self, release: int) -> Plan:
        """Load a release now. Raises OperatorMustActError when it cannot be followed."""
        folder = bundle_versions.folder_of(self._folder, release)
        return _with_earlier(self._plan_of(bundle_files.load(folder), folder), self._earlier(release))

    def begin(self, release: int) -> None:
        """Load a release in a thread of its own; `take` returns it."""
        self._release = release
        threading.Thread(target=self._load, args=(release,), name="bundle", daemon=True).start()

    def take(self) -> Loaded | None:
        """Return what was loaded, or why it could not be; None while it is not there."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            self._release = None
        return loaded

    def _load(self, release: int) -> None:
        try:
            self._loaded = Loaded(release, Parts(self.plan(release)))
        except Exception as error:  # noqa: BLE001 - model runtimes raise classes of their own, without a common base
            self._loaded = Loaded(release, None, f"{type(error).__name__}: {error}")
        self._wake()

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
    from msgspec.structs import replace

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
