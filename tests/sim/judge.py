"""What the lake has to hold when all is over: compared with what was offered, and with what the device says."""

from collections import Counter
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from contracts import microbatch
from edge_agent.core.accounts import StreamSums
from edge_agent.core.spool.record import SEGMENT_HEADER_BYTES
from edge_agent.report import Report
from lakehouse.decode import Arrived, decode
from tests.edge_agent.plant import CONTRACTS, SENSORS, Lake
from tests.sim.app import CONTRACT
from tests.sim.faults import Fault
from tests.sim.offer import Offer
from tests.sim.storm import Storm

LOSING: Final = frozenset({Fault.ROT, Fault.DISK_ERROR})  # only these may cost an event, and only with an entry
WINDOWS: Final = "telemetry_windows"
TELEMETRY: Final = "telemetry"


class Verdict(Struct, frozen=True):
    """`lost` events have no row and no entry that says so, `doubled` have two; `accounted_lost` are in the ledger.

    `wrong` is everything else that does not hold.
    """

    lost: int
    doubled: int
    accounted_lost: int
    wrong: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Say whether everything does."""
        return not (self.lost or self.doubled or self.wrong)


def judge(storm: Storm, report: Report) -> Verdict:
    """Look at everything once the agent is drained."""
    lake, offer = storm.lake, storm.offer
    device = report.streams[TELEMETRY]
    tables = {name: table_of(lake, name) for name in (TELEMETRY, "ledger", "quarantine", WINDOWS)}
    rows = tables["ledger"].to_pylist()
    entries = [row for row in rows if row["stream"] == TELEMETRY]
    wrong = [*_of_report(storm, report), *_of_ledger(entries, device), *_of_lake(lake, report)]
    wrong += _of_rows(tables[TELEMETRY])
    missing_pushed = doubled_pushed = 0
    if storm.app is not None:
        pushed = Counter(table_of(lake, CONTRACT)["object"].to_pylist())
        clicks = [row for row in rows if row["stream"] == CONTRACT]
        wrong += _of_ledger(clicks, report.streams[CONTRACT])
        lost_pushed = sum(row["count"] for row in clicks if row["fate"] == "lost")
        missing_pushed = max(0, len({str(n) for n in range(storm.app.events)} - pushed.keys()) - lost_pushed)
        doubled_pushed = sum(pushed.values()) - len(pushed)
    said: Counter[str] = Counter()
    for row in rows:
        said[row["stream"]] += row["count"] if row["fate"] == "lost" else 0
    accounted = sum(said.values())
    damaged = bool(LOSING & {fault for fault, count in storm.struck.items() if count})
    if accounted and not damaged:
        wrong.append(f"{dict(said)} are called lost, and nothing had been damaged")
    kept = Counter(tables[TELEMETRY]["seq"].to_pylist())
    if strangers := kept.keys() - offer.kept:
        wrong.append(f"rows that were not to be kept: {sorted(strangers)[:5]}")
    doubled = sum(_doubled(table) for table in tables.values())
    counted, counted_kept = _sums(tables[WINDOWS], "count"), _sums(tables[WINDOWS], "kept")
    if not damaged:  # Else open windows may be without rows that have travelled, and rotted here since.
        wrong += _of_sums(offer, device, counted, counted_kept)
    # How many events a lost window had counted its entry does not say.
    uncounted = 0.0 if said[WINDOWS] else (offer.valid - counted) - (len(offer.kept) - counted_kept)
    missing = len(offer.kept - kept.keys()) + uncounted - said[TELEMETRY]
    missing_refused = len(offer.refused) - tables["quarantine"].num_rows - said["quarantine"]
    return Verdict(
        lost=round(max(0.0, missing) + max(0, missing_refused)) + missing_pushed,
        doubled=doubled + doubled_pushed + round(max(0.0, -uncounted)) + max(0, -missing_refused),
        accounted_lost=accounted,
        wrong=tuple(wrong),
    )


def table_of(lake: Lake, name: str) -> pa.Table:
    """Return the rows of a contract, as the lake reads them."""
    batches = []
    for contract, header, data in lake.batches:
        if contract == name:
            batches.append(Arrived(lake.device, "sim/0/0", header, microbatch.parse(data)[1], data))
    decoded, refused = decode(batches, CONTRACTS[name], {})
    assert refused == (), refused
    return decoded.rows


def _of_report(storm: Storm, report: Report) -> list[str]:
    device, events = report.streams[TELEMETRY], len(storm.offer.lines)
    found = [
        f"{name}: {sums.kept} rows kept, {held} are there"
        for name, sums in report.streams.items()
        if (held := sum(header.rows for contract, header, _ in storm.lake.batches if contract == name)) != sums.kept
    ]
    if not report.drained:
        found.append("not drained")
    if report.unexplained:
        found.append(f"{report.unexplained} events unexplained")
    if device.observed != events:
        found.append(f"{device.observed} events observed of {events}")
    if not storm.retention.age_ms and storm.disk.trouble is None:
        # A disk that fails does not even delete: of a segment that could not be begun there is a part of its header.
        files = {name for name, data in storm.disk.files.items() if len(data) > SEGMENT_HEADER_BYTES}
        if left := {name for name in files if name.startswith("segment-")}:
            found.append(f"files left: {sorted(left)}")
    return found


def _of_lake(lake: Lake, report: Report) -> list[str]:
    return [
        f"{name}: the lake holds {held} of {sums.observed}"
        for name, sums in report.streams.items()
        if (held := lake.committed(name, report.epoch)) != (((0, sums.observed),) if sums.observed else ())
    ]


def _of_ledger(entries: list[dict[str, Any]], device: StreamSums) -> list[str]:
    """Entries say what the device says, over ranges that follow each other, and each range adds up."""
    found = []
    fates: Counter[str] = Counter()
    ranges: Counter[tuple[int, int]] = Counter()
    for row in entries:
        fates[row["fate"]] += row["count"]
        # What takes back and what takes its place go over one range of their own, and come to nothing.
        ranges[row["first_seq"], row["span"]] += row["count"]
    dropped = sum(device.dropped.values())
    says = {"kept": device.kept, "aggregated": device.aggregated, "dropped": dropped, "lost": device.lost}
    if +fates != Counter({fate: count for fate, count in says.items() if count}):
        found.append(f"the ledger has {dict(fates)}, the device {says}")
    at = 0
    for (first, span), count in sorted(ranges.items()):
        if count and (first, count) != (at, span):
            found.append(f"entries over {span} events from {first} come to {count}, before them {at}")
            break
        at += span if count else 0
    if at != device.observed:
        found.append(f"entries explain events up to {at} of {device.observed}")
    return found


def _of_sums(offer: Offer, device: StreamSums, counted: float, counted_kept: float) -> list[str]:
    expected = (len(offer.kept), len(offer.refused), offer.valid, len(offer.kept))
    found = (device.kept, sum(device.dropped.values()), counted, counted_kept)
    return [f"kept, refused, counted, counted as kept: expected {expected}, found {found}"] * (expected != found)


def _of_rows(rows: pa.Table) -> list[str]:
    """Rows are the events that bear their numbers."""
    seqs = rows["seq"].to_pylist()
    wrong = [
        seq
        for seq, first, asset in zip(seqs, rows["f1"].to_pylist(), rows["asset_id"].to_pylist(), strict=True)
        if first != seq * 7 % 100 or asset != f"asset-{seq % 3}"
    ]
    return [f"rows of other events: {wrong[:5]}"] * bool(wrong)


def _sums(windows: pa.Table, column: str) -> float:
    found = pc.sum(windows[column]).as_py() or 0
    return float(found) / len(SENSORS)


def _doubled(rows: pa.Table) -> int:
    seqs = rows["seq"].to_pylist()
    return len(seqs) - len(set(seqs))
