"""What an agent says of itself: its ledger, what it cost on the wire, and how it fares."""

from msgspec import Struct

from contracts.watermark import AckDocument
from edge_agent.consent import ConsentReport
from edge_agent.core.accounts import StreamSums, Wire


class WireReport(Struct, frozen=True):
    """See `core.accounts.Wire`."""

    batches: int
    rows: int
    payload_bytes: int
    packet_bytes: int
    json_bytes: int
    all_batches: int
    all_payload_bytes: int
    all_packet_bytes: int
    observed_json_bytes: int


class BundleReport(Struct, frozen=True):
    """The bundle in force, and how the newest release fares beside it or in its place; see `core.updates.rollout`.

    `release` is None for a bundle that was not published. `looked` is the outcome of the last look for a newer one.
    """

    version: str
    release: int | None = None
    state: str = "idle"
    candidate: int | None = None
    why: str = ""
    events: int = 0
    missed_ratio: float = 0.0
    added_ratio: float = 0.0
    added_ms_per_chunk: float = 0.0
    grown_mb: float = 0.0
    looked: str = ""
    looked_detail: str = ""


class Health(Struct, frozen=True):
    """How the process fares. `lag_ms` is the age of the oldest row that the watermarks do not cover, 0 without one."""

    pid: int
    started_ms: int
    written_ms: int
    agent_version: str
    connections: int
    lag_events: int
    lag_ms: int
    quota_bytes: int


class Report(Struct, frozen=True):
    """The agent's ledger JSON. `unexplained` is summed over streams without sign, so that faults cannot cancel out.

    `pending_batches` in memory and `waiting_segments` on disk are what the lake is not known to hold; `held_batches` of
    these are not sent again before a restart. `spool_bytes` are not in the lake yet, `ring_bytes` are and stay a while.
    `troubles` are of sources. `given_up` is the step of `core.pressure` that a short disk has led to.
    `consent` is there where a contract needs it.
    """

    device: str
    epoch: int
    streams: dict[str, StreamSums]
    unexplained: int
    wire: WireReport
    batches_published: int
    resends: int
    pss_mb: float | None
    link: str
    source_at_end: bool
    drained: bool
    pending_batches: int
    waiting_segments: int
    held_batches: int
    spool_bytes: int
    ring_bytes: int
    given_up: str
    last_error: str | None
    troubles: list[str]
    ack: AckDocument | None
    bundle: BundleReport
    health: Health
    consent: ConsentReport | None = None


def wire_report(wire: Wire) -> WireReport:
    """Return the sums under their names."""
    return WireReport(**{name: getattr(wire, name) for name in Wire.__struct_fields__})
