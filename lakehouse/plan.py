"""What one round of messages does to the tables. Pure: messages and what is known in, rows and claims out."""

from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import Final

import pyarrow as pa
from msgspec import Struct

from contracts import decisions, microbatch, ranges
from contracts.contract import Contract
from contracts.dead import DeadLetter
from contracts.errors import BatchError, OperatorMustActError
from contracts.ranges import Range, RangeSet
from contracts.topics import DECISIONS, is_origin
from lakehouse.checks import hints, refusals
from lakehouse.claims import Claims
from lakehouse.decode import Arrived, Decoded, decode
from lakehouse.handover import Claim
from lakehouse.landing import land
from lakehouse.layout import Layout
from lakehouse.ports import Message
from lakehouse.positions import Positions
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
from lakehouse.streams import StreamKey

UNPUBLISHED: Final = frozenset({"unknown_contract", "unknown_dictionary"})  # reasons for which a look may help


class View(Struct, frozen=True):
    """What a round starts from: the published contracts, and what this writer knows of the tables.

    `known` has an entry for each table that is open. Unlike a table's state it includes what is handed over and not
    yet settled. `held` and `ids` are as in `lakehouse.handover`; `begins` is where the log was read up to. Batches of
    the contracts in `parked` are left alone: their store does not answer.
    """

    registry: Registry
    known: Mapping[str, Mapping[StreamKey, RangeSet]]
    held: Mapping[StreamKey, RangeSet]
    ids: Container[bytes]
    begins: Positions
    parked: frozenset[str] = frozenset()
    layouts: Mapping[str, Layout | None] = {}


class TablePart(Struct, frozen=True):
    """A round's rows (None: there are none) and claims for one table; see `lakehouse.handover.Handover`.

    `changed` are the claimed streams with all their ranges. `waits`: rows of it were refused, so it is handed over only
    once the round's part for the quarantine is settled.
    """

    contract: str
    rows: pa.Table | None
    claims: tuple[Claim, ...]
    changed: dict[StreamKey, RangeSet]
    owed: tuple[str, ...]
    waits: bool = False
    held: tuple[Claim, ...] = ()
    ids: tuple[bytes, ...] = ()


class Round(Struct, frozen=True):
    """What a round does; the quarantine's part, if it has one, comes first.

    `releases`: what the quarantine need not hold any more once all of the round is settled. `parked`: contracts of
    which batches were left alone. `hints`: rows outside of a list that is a hint, by `contract.field.known_values`.
    """

    begins: Positions
    ends: Positions
    parts: tuple[TablePart, ...]
    releases: tuple[Claim, ...]
    refused_rows: int
    dead: tuple[DeadLetter, ...]
    parked: frozenset[str]
    hints: Mapping[str, int] = {}

    @property
    def is_unexplained(self) -> bool:
        """Whether a batch was left out for want of something that may have been published meanwhile."""
        return any(letter.reason in UNPUBLISHED for letter in self.dead)


class _Draft:
    """Collects one round."""

    def __init__(self, view: View, now_ms: int) -> None:
        self.view, self.now_ms = view, now_ms
        self.rows: dict[str, list[pa.Table]] = defaultdict(list)
        self.claims: dict[str, Claims] = {}
        self.held = Claims(view.held)
        self.seen: dict[StreamKey, list[Range]] = defaultdict(list)
        self.ids: dict[bytes, None] = {}
        self.refused_rows = 0
        self.hints: Counter[str] = Counter()
        self.refusing: set[str] = set()
        self.touched: dict[str, set[str]] = defaultdict(set)
        self.parked: set[str] = set()
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
        begins=view.begins,
        ends=ends,
        parts=_parts(draft),
        releases=_releases(draft),
        refused_rows=draft.refused_rows,
        dead=tuple(draft.dead),
        parked=frozenset(draft.parked),
        hints=draft.hints,
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
    known = draft.view.known
    if contract is not None and contract.id in draft.view.parked:
        draft.parked.add(contract.id)
        return None
    # Without the quarantine a bad row would have no place to go, so nothing is taken before it is there.
    if contract is None or contract.id not in known or QUARANTINE not in known:
        detail = f"no published contract has the fingerprint {header.fingerprint:#018x}: publish it, the origin resends"
        draft.bury(message.source, origin, "unknown_contract", detail, value)
        return None
    return Arrived(origin, message.source, header, payload, value), contract


def _take_contract(contract_id: str, arrived: list[tuple[Arrived, Contract]], draft: _Draft) -> None:
    claims = draft.claims.setdefault(contract_id, Claims(draft.view.known[contract_id]))
    versions: dict[str, tuple[Contract, list[Arrived]]] = {}
    keyed: list[tuple[Arrived, StreamKey]] = []
    for batch, contract in arrived:
        header, key = batch.header, _key(contract, batch)
        keyed.append((batch, key))
        draft.seen[key].append((header.first_seq, header.end_seq))
        if ranges.covers(claims.of(key), header.first_seq, header.end_seq):
            draft.touched[contract_id].add(batch.origin)
        else:
            versions.setdefault(contract.version, (contract, []))[1].append(batch)
    read: list[tuple[Contract, Decoded]] = []
    for contract, batches in versions.values():
        decoded, refused = decode(batches, contract, draft.view.registry.dictionaries)
        read.append((contract, without_refused(decoded, contract)))
        for broken in refused:
            batch = broken.batch
            draft.bury(batch.source, batch.origin, broken.reason, broken.detail, batch.original)
    gaps = _claim(keyed, {b.source for _, decoded in read for b in decoded.batches}, claims)
    for contract, decoded in read:
        draft.touched[contract_id].update(batch.origin for batch in decoded.batches)
        fresh = select(decoded, new_rows(decoded, [gaps[b.source] for b in decoded.batches]))
        if fresh.rows.num_rows:
            _sort_out(contract, fresh, gaps, draft)


def _claim(keyed: list[tuple[Arrived, StreamKey]], sound: set[str], claims: Claims) -> dict[str, RangeSet]:
    return {
        batch.source: claims.claim(key, batch.header.first_seq, batch.header.end_seq)
        for batch, key in keyed
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
        draft.refusing.add(contract.id)
        refused, rules = _not_held(refused, rules, contract, draft)
        for at in set(refused.batch_of_row.tolist()):
            batch = refused.batches[at]
            for first, end in gaps[batch.source]:
                draft.held.claim(_key(contract, batch), first, end)
    if refused.rows.num_rows:
        quarantine = draft.view.registry.newest[QUARANTINE]
        draft.add(quarantine, quarantine_rows(refused, rules, contract, quarantine))
        draft.refused_rows += refused.rows.num_rows
    good = select(fresh, ~bad)
    if good.rows.num_rows:
        draft.add(contract, table_rows(good, contract))


def _not_held(refused: Decoded, rules: list[str], contract: Contract, draft: _Draft) -> tuple[Decoded, list[str]]:
    """Leave out what an interrupted round has put into the quarantine already."""
    held = [draft.view.held.get(_key(contract, batch), ranges.EMPTY) for batch in refused.batches]
    if not any(held):
        return refused, rules
    outside = [
        ranges.missing(own, batch.header.first_seq, batch.header.end_seq)
        for own, batch in zip(held, refused.batches, strict=True)
    ]
    keep = new_rows(refused, outside)
    return select(refused, keep), [rule for rule, kept in zip(rules, keep, strict=True) if kept]


def _take_decisions(messages: list[Message], draft: _Draft) -> None:
    contract = draft.view.registry.newest.get(DECISIONS_TABLE)
    if DECISIONS_TABLE in draft.view.parked:
        draft.parked.update({DECISIONS_TABLE} if messages else ())
        return
    for message in messages:
        value = message.value or b""
        if contract is None or DECISIONS_TABLE not in draft.view.known:
            draft.bury(message.source, None, "unknown_contract", "the decisions contract is not published", value)
            continue
        try:
            decision = decisions.decode(value)
            identity = bytes.fromhex(decision.id)
            row = decision_rows([(message.partition, message.offset, decision)], contract)
        except (OperatorMustActError, ValueError, OverflowError, pa.ArrowException) as error:
            draft.bury(message.source, None, "bad_decision", str(error), value)
            continue
        if identity not in draft.view.ids and identity not in draft.ids:
            draft.ids[identity] = None
            draft.add(contract, row)


def _parts(draft: _Draft) -> tuple[TablePart, ...]:
    held = draft.held.all()
    involved = {contract for contract, claims in draft.claims.items() if claims.changed}
    involved |= {contract for contract, origins in draft.touched.items() if origins}
    involved |= draft.rows.keys() | ({QUARANTINE} if held else set())
    parts: list[TablePart] = []
    for contract in sorted(involved, key=lambda name: (name != QUARANTINE, name)):
        claims = draft.claims.get(contract)
        rows = draft.rows.get(contract)
        parts.append(
            TablePart(
                contract=contract,
                rows=pa.concat_tables(rows, promote_options="default") if rows else None,
                claims=claims.all() if claims is not None else (),
                changed=claims.changed if claims is not None else {},
                owed=tuple(sorted(draft.touched.get(contract, ()))),
                waits=contract in draft.refusing,
                held=held if contract == QUARANTINE else (),
                ids=tuple(draft.ids) if contract == DECISIONS_TABLE else (),
            )
        )
    return tuple(parts)


def _releases(draft: _Draft) -> tuple[Claim, ...]:
    found: list[Claim] = []
    for key, seen in draft.seen.items():
        held = draft.held.of(key)
        both = ranges.union(part for first, end in seen for part in ranges.common(held, first, end))
        if both:
            found.append(Claim(key, both))
    return tuple(found)


def _key(contract: Contract, batch: Arrived) -> StreamKey:
    return StreamKey(contract.id, stream_origin(batch), batch.header.epoch)
