"""What a device is given, in one folder with `bundle.json`: contracts, dictionaries, rules, filter model, windows."""

from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from contracts import edge_rule_check
from contracts.contract import Contract, check
from contracts.edge_rules import EdgeRule
from contracts.errors import ContractError
from contracts.malformed import MALFORMED

BUNDLE_FILE: Final = "bundle.json"
WINDOW_MS_MAX: Final = 2**31 - 1  # ms; rows carry the length in 32 bits
OVERLAP_MAX: Final = 60  # sliding windows that one event may be in; each of them is a row per sensor of its own


class Dictionary(Struct, frozen=True):
    """A zstd dictionary for one contract; `id` is the one inside the dictionary and in batch headers."""

    id: int
    contract: str
    file: str
    sha256: str


class Model(Struct, frozen=True):
    """A filter model: ONNX, one input `rows` of shape (chunk_rows, len(inputs)) float32, one output `score` float32.

    A row is kept when its score is at least `threshold`. `lite_file` is the same model as `contracts.lite_model` for
    devices without ONNX Runtime; it gives the same scores, bit for bit.
    """

    id: str
    version: str
    file: str
    sha256: str
    inputs: tuple[str, ...]
    threshold: float
    chunk_rows: int
    lite_file: str | None = None
    lite_sha256: str | None = None


class WindowKind(Enum):
    """How windows follow each other; the value is the word used in bundles and rows."""

    TUMBLING = "tumbling"
    SLIDING = "sliding"
    SESSION = "session"


class Measure(Enum):
    """What a row says of one sensor in one window; the value is the column's name.

    Variance is the population's: with count and mean it can be merged. `last` is the reading with the newest event
    time, among equal times the one observed last.
    """

    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    P50 = "p50"
    P90 = "p90"
    P99 = "p99"
    SUM = "sum"
    VARIANCE = "variance"
    LAST = "last"


SHAPE: Final = (Measure.MIN, Measure.MAX, Measure.MEAN, Measure.P50, Measure.P90, Measure.P99)
RANKED: Final = frozenset({Measure.P50, Measure.P90, Measure.P99})


class Windows(Struct, frozen=True):
    """Windows by event time over some sensors of each subject, written as rows of another contract.

    Tumbling windows begin at whole multiples of `window_ms`. Sliding ones begin at whole multiples of `slide_ms`, of
    which `window_ms` is one, so that an event is in `overlap` windows. A session is a run of events that are at most
    `gap_ms` apart and do not cross a whole multiple of `window_ms`, so no session is longer than that. `sketch` adds
    the mergeable quantile sketch to each row, some kilobytes.
    """

    contract: str
    window_ms: int
    sensors: tuple[str, ...]
    kind: WindowKind = WindowKind.TUMBLING
    slide_ms: int | None = None
    gap_ms: int | None = None
    measures: tuple[Measure, ...] = SHAPE
    sketch: bool = False

    @property
    def pane_ms(self) -> int:
        """Distance between the beginnings of two windows next to each other."""
        return self.window_ms if self.slide_ms is None else self.slide_ms

    @property
    def overlap(self) -> int:
        """How many windows one event is in."""
        return self.window_ms // self.pane_ms


class Stream(Struct, frozen=True):
    """How events of one contract are treated: rules first, in this order, then the model, then `otherwise`.

    `otherwise` is what becomes of an event that no rule and no model decided about; `aggregate` needs windows.
    `dropped_sample_ratio` is the share of the events that do not travel which does travel, as a sample of them: what
    the filter missed is estimated from it. 0.5 % of a day at 1,000 events a second are 432,000 events.
    `when_full` is what becomes of them on a full disk, after everything else was tried: they wait with their producer,
    or they are dropped, and the ledger says so.
    """

    contract: str
    model: str | None = None
    windows: tuple[Windows, ...] = ()
    rules: tuple[EdgeRule, ...] = ()
    otherwise: Literal["keep", "aggregate"] = "keep"
    dropped_sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.005
    when_full: Literal["wait", "drop"] = "wait"


class Release(Struct, frozen=True):
    """As what a bundle was published: the group it is for, its number there, and the oldest agent that may load it."""

    group: str
    number: int
    agent_version_min: str = "0"


class Bundle(Struct, frozen=True):
    """The document in `bundle.json`; file names are relative to its folder. `release` is None until published."""

    version: str
    contracts: tuple[Contract, ...]
    streams: tuple[Stream, ...]
    dictionaries: tuple[Dictionary, ...] = ()
    models: tuple[Model, ...] = ()
    release: Release | None = None

    def contract(self, contract_id: str) -> Contract:
        """Return a contract by id. Raises ContractError."""
        for contract in self.contracts:
            if contract.id == contract_id:
                return contract
        known = ", ".join(sorted(c.id for c in self.contracts))
        raise ContractError(f"contract {contract_id!r}: bundle {self.version} has only {known}")

    def stream(self, contract_id: str) -> Stream:
        """Return how a contract's events are treated; one that is not mentioned has neither model nor windows."""
        self.contract(contract_id)
        for stream in self.streams:
            if stream.contract == contract_id:
                return stream
        return Stream(contract_id)


def encode(bundle: Bundle) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(bundle)


def decode(data: bytes) -> Bundle:
    """Parse the JSON form and check its contracts and rules. Raises ContractError, RuleError."""
    try:
        bundle = msgspec.json.decode(data, type=Bundle)
    except MALFORMED as error:
        raise ContractError(f"bundle: expected its JSON form, found {data[:80]!r}: {error}") from error
    for contract in bundle.contracts:
        check(contract)
    for stream in bundle.streams:
        check_windows(stream)
        edge_rule_check.check(stream.rules, bundle.contract(stream.contract))
        if stream.otherwise == "aggregate" and not stream.windows:
            raise ContractError(
                f"bundle {bundle.version}: stream {stream.contract}: aggregates otherwise: expected windows, found none"
            )
    return bundle


def check_windows(stream: Stream) -> None:
    """Raise ContractError when windows cannot be followed, or when rows of two could not be told apart."""
    for windows in stream.windows:
        for fault in _faults(windows):
            raise ContractError(f"stream {stream.contract}: {windows.kind.value} windows: {fault}")
    seen: set[tuple[str, WindowKind, int, str]] = set()
    for windows in stream.windows:
        # A session's row has the session's own length.
        length_ms = 0 if windows.kind is WindowKind.SESSION else windows.window_ms
        keys = {(windows.contract, windows.kind, length_ms, sensor) for sensor in windows.sensors}
        if keys & seen:
            raise ContractError(
                f"stream {stream.contract}: expected {windows.kind.value} windows into {windows.contract} to differ in "
                f"length or sensors, found two of {windows.window_ms} ms over {', '.join(sorted(windows.sensors))}"
            )
        seen |= keys


def _faults(windows: Windows) -> Iterable[str]:
    if not 1 <= windows.window_ms <= WINDOW_MS_MAX:
        yield f"expected window_ms of 1 to {WINDOW_MS_MAX}, found {windows.window_ms}"
    if not windows.sensors or len(set(windows.sensors)) != len(windows.sensors):
        yield f"expected sensors, each named once, found {windows.sensors}"
    if len(set(windows.measures)) != len(windows.measures):
        yield f"expected each measure once, found {[measure.value for measure in windows.measures]}"
    for name, value, kind in (
        ("slide_ms", windows.slide_ms, WindowKind.SLIDING),
        ("gap_ms", windows.gap_ms, WindowKind.SESSION),
    ):
        if (value is not None) != (windows.kind is kind):
            yield f"expected {name} for {kind.value} windows and for no others, found {value}"
        if value is not None and not 1 <= value <= windows.window_ms:
            yield f"expected {name} of 1 to window_ms {windows.window_ms}, found {value}"
    if windows.slide_ms is not None and (windows.window_ms % windows.slide_ms or windows.overlap > OVERLAP_MAX):
        yield (
            f"expected window_ms to be 1 to {OVERLAP_MAX} times slide_ms, found {windows.window_ms} and "
            f"{windows.slide_ms}"
        )
