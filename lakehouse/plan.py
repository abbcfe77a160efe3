"""What one round of messages does to the tables. Pure: messages and states in, rows and next states out."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa
from msgspec import Struct

from contracts import decisions, microbatch, ranges
from contracts.contract import Contract
from contracts.dead import DeadLetter
from contracts.decisions import Decision
from contracts.errors import BatchError, OperatorMustActError
from contracts.ranges import RangeSet
from contracts.topics import DECISIONS, is_origin
from lakehouse.checks import hints, refusals
from lakehouse.claims import Claims, uncovered
from lakehouse.decode import Arrived, Decoded, decode
from lakehouse.landing import land
from lakehouse.layout import Layout
from lakehouse.ports import Message
from lakehouse.registry import Registry
from lakehouse.replays import batches_of, stream_origin, without_refused
from lakehouse.rows import (
    DECISIONS_TABLE,
    QUARANTINE,
    decision_rows,
    new_rows,
    quarantine_rows,
    select,
    table_rows,
)
from lakehouse.state import Known, Positions, StreamKey, TableState

# Ids remembered against repeats. A restored job repeats what it decided since its last checkpoint, seconds at most;
# 10,000 are ten seconds of the highest rate a rule set may reach, and 160 KB in every state file of that table.
DECISION_IDS_MAX: Final = 10_000


class View(Struct, frozen=True):
    """What a round starts from: the published contracts, what each open table accounts for and has for columns."""

    registry: Registry
    states: Mapping[str, TableState]
    known: Mapping[str, Known]
    logs: dict[str, str]
    begins: Positions
    layouts: Mapping[str, Layout | None] = {}


class TableChange(Struct, frozen=True):
    """Rows (None: only the state advances) and next state of one contract's table."""

    contract: str
    rows: pa.Table | None
    state: TableState
    known: Known


class Round(Struct, frozen=True):
    """`touched`: (contract, origin) of every batch that arrived, repeats included: they are owed a watermark.

    `hints`: rows outside of a list that is a hint, by `contract.field.known_values`.
    """

    ends: Positions
    changes: tuple[TableChange, ...]
    refused_rows: int
    touched: frozenset[tuple[str, str]]
    dead: tuple[DeadLetter, ...]
    hints: Mapping[str, int] = {}


class _Draft:
    """Collects one round."""

    def __init__(self, view: View, now_ms: int) -> None:
        self.view, self.now_ms = view, now_ms
        self.rows: dict[str, list[pa.Table]] = defaultdict(list)
        self.claims: dict[str, Claims] = {}
        self.held: dict[StreamKey, RangeSet] = {}
        self.decision_ids: tuple[bytes, ...] | None = None
        self.refused_rows = 0
        self.hints: Counter[str] = Counter()
        self.touched: set[tuple[str, str]] = set()
        self.dead: list[DeadLetter] = []

    def add(self, contract: Contract, rows: pa.Table) -> None:
        """Collect rows of a version of a contract for its table."""
        layout = self.view.layouts.get(contract.id)
        self.rows[contract.id].append(rows if layout is None else land(rows, contract, layout))

    def bury(self, source: str, origin: str | None, reason: str, detail: str, original: bytes) -> None:
        self.dead.append(DeadLetter(source, origin, reason, detail, self.now_ms, original))


def plan(messages: Sequence[Message], view: View, now_ms: int) -> Round:
    """Plan a round. Messages of one partition must come in the order of their offsets."""
    draft = _Draft(view, now_ms)
    ends = dict(view.begins)
    for message in messages:
        ends[f"{message.topic}/{message.partition}"] = message.offset + 1
    batches = [arrived for m in messages if m.topic != DECISIONS and (arrived := _parse(m, draft))]
    by_contract: dict[str, list[tuple[Arrived, Contract]]] = defaultdict(list)
    for batch, contract in batches:
        by_contract[contract.id].append((batch, contract))
    for contract_id in sorted(by_contract):
        _take_contract(contract_id, by_contract[contract_id], draft)
    _take_decisions([m for m in messages if m.topic == DECISIONS], draft)
    return Round(
        ends, _changes(draft, ends), draft.refused_rows, frozenset(draft.touched), tuple(draft.dead), draft.hints
    )


def _parse(message: Message, draft: _Draft) -> tuple[Arrived, Contract] | None:
    value, origin = message.value or b"", message.origin
    if origin is None or not is_origin(origin):
        draft.bury(message.source, None, "no_origin", f"expected a header that names the origin, found {origin}", value)
        return None
    try:
        header, payload = microbatch.parse(value)
    except BatchError as error:
        draft.bury(message.source, origin, error.reason, str(error), value)
        return None
    contract = draft.view.registry.fingerprints.get(header.fingerprint)
    states = draft.view.states
    # Without the quarantine a bad row would have no place to go, so nothing is taken before it is there.
    if contract is None or contract.id not in states or QUARANTINE not in states:
        detail = f"no published contract has the fingerprint {header.fingerprint:#018x}: publish it, the origin resends"
        draft.bury(message.source, origin, "unknown_contract", detail, value)
        return None
    return Arrived(origin, message.source, header, payload, value), contract


def _take_contract(contract_id: str, arrived: list[tuple[Arrived, Contract]], draft: _Draft) -> None:
    known = draft.view.known[contract_id]
    claims = draft.claims.setdefault(contract_id, Claims(known))
    versions: dict[str, tuple[Contract, list[Arrived]]] = {}
    for batch, contract in arrived:
        header = batch.header
        held = known.get(_key(contract, batch), ranges.EMPTY)
        if ranges.covers(held, header.first_seq, header.end_seq):
            draft.touched.add((contract_id, batch.origin))
        else:
            versions.setdefault(contract.version, (contract, []))[1].append(batch)
    read: list[tuple[Contract, Decoded]] = []
    for contract, batches in versions.values():
        decoded, refused = decode(batches, contract, draft.view.registry.dictionaries)
        read.append((contract, without_refused(decoded, contract)))
        for broken in refused:
            batch = broken.batch
            draft.bury(batch.source, batch.origin, broken.reason, broken.detail, batch.original)
    gaps = _claim(arrived, {b.source for _, decoded in read for b in decoded.batches}, claims)
    for contract, decoded in read:
        draft.touched.update((contract_id, batch.origin) for batch in decoded.batches)
        fresh = select(decoded, new_rows(decoded, [gaps[b.source] for b in decoded.batches]))
        if fresh.rows.num_rows:
            _sort_out(contract, fresh, gaps, draft)


def _claim(arrived: list[tuple[Arrived, Contract]], sound: set[str], claims: Claims) -> dict[str, RangeSet]:
    return {
        batch.source: claims.claim(_key(contract, batch), batch.header)
        for batch, contract in arrived
        if batch.source in sound
    }


def _sort_out(contract: Contract, fresh: Decoded, gaps: Mapping[str, RangeSet], draft: _Draft) -> None:
    for rule, count in hints(fresh.rows, contract).items():
        draft.hints[f"{contract.id}.{rule}"] += count
    bad, rules = refusals(fresh.rows, contract, batches_of(fresh))
    if not bad.any():
        draft.add(contract, table_rows(fresh, contract))
        return
    refused = select(fresh, bad)
    if contract.id != QUARANTINE:
        refused, rules = _not_held(refused, rules, contract, draft)
        for at in set(refused.batch_of_row.tolist()):
            batch = refused.batches[at]
            key = _key(contract, batch)
            draft.held[key] = ranges.union((*draft.held.get(key, ranges.EMPTY), *gaps[batch.source]))
    if refused.rows.num_rows:
        quarantine = draft.view.registry.newest[QUARANTINE]
        draft.add(quarantine, quarantine_rows(refused, rules, contract, quarantine))
        draft.refused_rows += refused.rows.num_rows
    good = select(fresh, ~bad)
    if good.rows.num_rows:
        draft.add(contract, table_rows(good, contract))


def _not_held(refused: Decoded, rules: list[str], contract: Contract, draft: _Draft) -> tuple[Decoded, list[str]]:
    """Leave out what an interrupted round has put into the quarantine already."""
    known = draft.view.known[QUARANTINE]
    held = [known.get(_key(contract, batch), ranges.EMPTY) for batch in refused.batches]
    if not any(held):
        return refused, rules
    outside = [
        ranges.missing(own, batch.header.first_seq, batch.header.end_seq)
        for own, batch in zip(held, refused.batches, strict=True)
    ]
    keep = new_rows(refused, outside)
    return select(refused, keep), [rule for rule, kept in zip(rules, keep, strict=True) if kept]


def _take_decisions(messages: list[Message], draft: _Draft) -> None:
    state = draft.view.states.get(DECISIONS_TABLE)
    contract = draft.view.registry.newest.get(DECISIONS_TABLE)
    seen = dict.fromkeys(state.decision_ids if state else ())
    fresh: list[tuple[int, int, Decision]] = []
    for message in messages:
        value = message.value or b""
        if state is None or contract is None:
            draft.bury(message.source, None, "unknown_contract", "the decisions contract is not published", value)
            continue
        try:
            decision = decisions.decode(value)
            identity = bytes.fromhex(decision.id)
            row = decision_rows([(message.partition, message.offset, decision)], contract)
        except (OperatorMustActError, ValueError, OverflowError, pa.ArrowException) as error:
            draft.bury(message.source, None, "bad_decision", str(error), value)
            continue
        if identity not in seen:
            seen[identity] = None
            fresh.append((message.partition, message.offset, decision))
            draft.add(contract, row)
    if fresh:
        draft.decision_ids = tuple(seen)[-max(DECISION_IDS_MAX, len(fresh)) :]


def _changes(draft: _Draft, ends: Positions) -> tuple[TableChange, ...]:
    view = draft.view
    grown = {contract for contract, claims in draft.claims.items() if claims.changed}
    if draft.held:
        grown.add(QUARANTINE)
    changes: list[TableChange] = []
    for contract in sorted(grown | draft.rows.keys()):
        known = draft.claims[contract].merged() if contract in draft.claims else dict(view.known[contract])
        if contract == QUARANTINE:
            known = _with_held(known, draft)
        ids = view.states[contract].decision_ids
        if contract == DECISIONS_TABLE and draft.decision_ids is not None:
            ids = draft.decision_ids
        state = TableState(view.begins, ends, view.logs, tuple(known.items()), ids)
        rows = draft.rows.get(contract)
        table = pa.concat_tables(rows, promote_options="default") if rows else None
        changes.append(TableChange(contract, table, state, known))
    return tuple(changes)


def _with_held(known: dict[StreamKey, RangeSet], draft: _Draft) -> dict[StreamKey, RangeSet]:
    own = {key: has for key, has in known.items() if key.contract == QUARANTINE}
    foreign = {key: has for key, has in known.items() if key.contract != QUARANTINE}
    tables = [has for contract, has in draft.view.known.items() if contract != QUARANTINE]
    kept = uncovered(foreign, tables) if foreign else {}
    for key, has in draft.held.items():
        kept[key] = ranges.union((*kept.get(key, ranges.EMPTY), *has))
    return {**own, **kept}


def _key(contract: Contract, batch: Arrived) -> StreamKey:
    return StreamKey(contract.id, stream_origin(batch), batch.header.epoch)
