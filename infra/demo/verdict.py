"""Did every event arrive, once, as it was? Compares replay files, agents' ledgers and the lake's tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from numpy.typing import NDArray

from contracts.bundle import Bundle, Model
from infra.bundles.scoring import score_rows
from infra.datasets.typed_rows import FILLED_BY_DEVICE, read_replay
from infra.demo.reconcile import Comparison, compare
from infra.demo.tables import LakeReader


class Verdict(Struct, frozen=True):
    """Per contract the comparison of rows; what windows counted; what no ledger explains."""

    tables: dict[str, Comparison]
    windows_expected: int
    windows_counted: int
    ledger_in_lake: dict[str, int]
    ledger_of_agents: dict[str, int]
    unexplained: int

    @property
    def rows_lost(self) -> int:
        """Rows that are missing, or there with a wrong value."""
        missing = sum(c.lost + c.differing for c in self.tables.values())
        return missing + max(0, self.windows_expected - self.windows_counted)

    @property
    def rows_doubled(self) -> int:
        """Rows that are there more than once, or that nobody sent."""
        extra = sum(c.doubled + c.foreign for c in self.tables.values())
        return extra + max(0, self.windows_counted - self.windows_expected)

    @property
    def holds(self) -> bool:
        """Whether all of it adds up."""
        return (
            self.rows_lost == self.rows_doubled == self.unexplained == 0
            and self.ledger_in_lake == self.ledger_of_agents
        )


def kept_by_filter(rows: pa.Table, model: Model, folder: Path) -> NDArray[np.bool_]:
    """Say which rows the filter keeps."""
    kept: NDArray[np.bool_] = score_rows(rows, model, folder) >= np.float32(model.threshold)
    return kept


def judge(
    reader: LakeReader,
    bundle: Bundle,
    bundle_dir: Path,
    replays: Sequence[tuple[str, str, Path]],
    ledgers: Mapping[str, Mapping[str, Any]],
) -> Verdict:
    """Compare everything. `replays` are (contract, device, file), `ledgers` what each agent ended with."""
    tables: dict[str, Comparison] = {}
    windowed = 0
    for contract in bundle.contracts:
        mine = [(device, file) for of, device, file in replays if of == contract.id]
        if not mine:
            continue
        rows = pa.concat_tables([read_replay(file, contract, device) for device, file in mine])
        stream = bundle.stream(contract.id)
        for windows in stream.windows:
            windowed += rows.num_rows * len(windows.sensors) * windows.overlap
        models = {m.id: m for m in bundle.models}
        expected = (
            rows
            if stream.model is None
            else rows.filter(pa.array(kept_by_filter(rows, models[stream.model], bundle_dir)))
        )
        columns = [f.name for f in contract.fields if f.name not in FILLED_BY_DEVICE]
        found = reader.read(contract.catalog, contract.table)
        mine_found = found.filter(pc.is_in(found["origin"], pa.array([device for device, _ in mine])))
        tables[contract.id] = compare(expected, mine_found, columns)
    return Verdict(
        tables=tables,
        windows_expected=windowed,
        windows_counted=_windows_counted(reader, bundle) if windowed else 0,
        ledger_in_lake=_ledger_in_lake(reader, bundle, list(ledgers)),
        ledger_of_agents=_ledger_of_agents(ledgers, {contract for contract, _, _ in replays}),
        unexplained=sum(abs(int(ledger["unexplained"])) for ledger in ledgers.values()),
    )


def _windows_counted(reader: LakeReader, bundle: Bundle) -> int:
    contract = bundle.contract("telemetry_windows")
    counted = pc.sum(reader.read(contract.catalog, contract.table, '"count"')["count"]).as_py()
    return int(counted or 0)


def _ledger_in_lake(reader: LakeReader, bundle: Bundle, devices: list[str]) -> dict[str, int]:
    contract = bundle.contract("ledger")
    rows = reader.read(contract.catalog, contract.table, 'origin, stream, fate, "count"')
    rows = rows.filter(pc.is_in(rows["origin"], pa.array(devices, pa.string())))
    sums = rows.group_by(["stream", "fate"]).aggregate([("count", "sum")])
    return {f"{r['stream']} {r['fate']}": int(r["count_sum"]) for r in sums.to_pylist() if r["count_sum"]}


def _ledger_of_agents(ledgers: Mapping[str, Mapping[str, Any]], replayed: set[str]) -> dict[str, int]:
    """Add up the replayed streams; what a device derives from them (windows, the ledger itself) has no entries."""
    sums: dict[str, int] = {}
    for ledger in ledgers.values():
        for stream, totals in ledger["streams"].items():
            if stream not in replayed:
                continue
            for fate in ("kept", "aggregated", "lost"):
                _add(sums, f"{stream} {fate}", int(totals.get(fate, 0)))
            _add(sums, f"{stream} dropped", sum(int(n) for n in totals.get("dropped", {}).values()))
    return {name: count for name, count in sums.items() if count}


def _add(sums: dict[str, int], name: str, count: int) -> None:
    sums[name] = sums.get(name, 0) + count
