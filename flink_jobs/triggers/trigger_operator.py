"""The keyed operator: one call and one state write per candidate message, rules from broadcast state.

**Rules and candidates race.** They come by two topics, and the preselector may be ahead of this operator's rules. A
candidate message names the last rule record that the preselector had read; one that names a later record than the
operator has is kept back until that record arrives, else the first events of a new rule, or all events at a job's first
start, would be judged without it.

**State** is a map from subject to versioned bytes. What lies in it is also held decoded, per shard, as long as this
operator instance lives: a shard is read once after a restore, and each message writes only the subjects it changed.
(Pickling, which the embedded interpreter's state types ask for, wraps a single bytes object.)
"""

import logging
import time
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct
from pyflink.common import Row, Types
from pyflink.datastream.functions import KeyedBroadcastProcessFunction, RuntimeContext
from pyflink.datastream.state import (
    ListState,
    ListStateDescriptor,
    MapState,
    MapStateDescriptor,
    ReadOnlyBroadcastState,
)

from contracts import candidates, decisions, rules
from contracts.candidates import Candidates
from contracts.errors import OperatorMustActError, RuleError
from flink_jobs.triggers.core import partials, rule_table, state_codec
from flink_jobs.triggers.core.evaluator import evaluate
from flink_jobs.triggers.core.partials import ShardState
from flink_jobs.triggers.core.rule_set import RuleSet, prepare
from flink_jobs.triggers.core.rule_table import RuleTable

log = logging.getLogger(__name__)

RECHECK_MS: Final = 20  # a rule record is a few milliseconds behind the candidates that were chosen by it
WAIT_MS_MAX: Final = 15_000  # then the record will not come (the topic was made anew): better judged late than never
NO_SHARD: Final = -1  # key of bytes that are no candidate message: they must reach the operator to be counted there

RULES_STATE: Final = MapStateDescriptor("rules", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
OFFSET_KEY: Final = ""  # entry of RULES_STATE with the table's offset; no rule has an empty id
DECISION_TYPE: Final = Types.ROW([Types.PRIMITIVE_ARRAY(Types.BYTE()), Types.PRIMITIVE_ARRAY(Types.BYTE())])


class _Waiting(Struct, frozen=True, array_like=True):
    since_ms: int
    message: bytes


def shard_key(message: bytes) -> int:
    """Return the key of a candidate message."""
    try:
        return candidates.shard_in(message)
    except OperatorMustActError:
        return NO_SHARD


class TriggerOperator(KeyedBroadcastProcessFunction):
    """Candidate messages and rule records (key, value, offset) in, rows (subject, decision) of bytes out."""

    _subjects: MapState
    _waiting: ListState

    def __init__(self) -> None:
        self._table: RuleTable | None = None
        self._rules: RuleSet = prepare(())
        self._shards: dict[int, ShardState] = {}

    def open(self, runtime_context: RuntimeContext) -> None:
        """Name the keyed state."""
        subjects = MapStateDescriptor("subjects", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        self._subjects = runtime_context.get_map_state(subjects)
        self._waiting = runtime_context.get_list_state(ListStateDescriptor("waiting", Types.PICKLED_BYTE_ARRAY()))
        metrics = runtime_context.get_metrics_group()
        self._decided = metrics.counter("decisions")
        self._unreadable = metrics.counter("unreadable_candidates")

    def process_broadcast_element(self, record: Row, context: KeyedBroadcastProcessFunction.Context) -> Iterator[Row]:
        """Take one record of the rules topic."""
        key, document, offset = record
        state = context.get_broadcast_state(RULES_STATE)
        rule_id = (key or b"").decode(errors="replace")
        before = self._live(state)
        try:
            after = rule_table.apply(before, rule_id, document, offset)
        except RuleError as error:
            log.error("rule record at offset %d is ignored: %s", offset, error)
            after = rule_table.skip(before, offset)
        if rule_id in after.live:
            state.put(rule_id, rules.encode(after.live[rule_id]))
        elif rule_id in before.live:
            state.remove(rule_id)
        state.put(OFFSET_KEY, str(after.offset).encode())
        self._use(after)
        yield from ()

    def process_element(self, message: bytes, context: KeyedBroadcastProcessFunction.ReadOnlyContext) -> Iterator[Row]:
        """Evaluate a candidate message, or keep it back until its rules are here."""
        table = self._live(context.get_broadcast_state(RULES_STATE))
        try:
            found = candidates.decode(message)
        except OperatorMustActError as error:
            self._unreadable.inc()
            log.error("a candidate message is ignored: %s", error)
            return
        if found.ruleset > table.offset:
            self._keep_back([_Waiting(_now_ms(), message)], context)
            return
        yield from self._evaluated(context.get_current_key(), found)

    def on_timer(self, timestamp: int, context: KeyedBroadcastProcessFunction.OnTimerContext) -> Iterator[Row]:
        """Evaluate what was kept back, as far as its rules have come."""
        table, now_ms = self._live(context.get_broadcast_state(RULES_STATE)), _now_ms()
        kept = [msgspec.msgpack.decode(entry, type=_Waiting) for entry in self._waiting.get() or ()]
        self._waiting.clear()
        still: list[_Waiting] = []
        for entry in kept:
            found = candidates.decode(entry.message)
            late = now_ms - entry.since_ms > WAIT_MS_MAX
            if found.ruleset > table.offset and not late:
                still.append(entry)
                continue
            if found.ruleset > table.offset:
                log.warning("candidates of rule set %d are judged by rule set %d", found.ruleset, table.offset)
            yield from self._evaluated(context.get_current_key(), found)
        if still:
            self._keep_back(still, context)

    def _evaluated(self, shard: int, found: Candidates) -> Iterator[Row]:
        before = self._shards.get(shard)
        if before is None:
            stored = {subject: state_codec.decode(data) for subject, data in self._subjects.items()}
            before = partials.restored(stored)
        after, made = evaluate(self._rules, before, found, _now_ms())
        changed, removed = partials.changes(before, after)
        if changed:
            self._subjects.put_all({subject: state_codec.encode(matches) for subject, matches in changed.items()})
        for subject in removed:
            self._subjects.remove(subject)
        self._shards[shard] = after
        for decision in made:
            self._decided.inc()
            yield Row(decision.subject.encode(), decisions.encode(decision))

    def _keep_back(self, entries: list[_Waiting], context: KeyedBroadcastProcessFunction.ReadOnlyContext) -> None:
        self._waiting.add_all([msgspec.msgpack.encode(entry) for entry in entries])
        timers = context.timer_service()
        timers.register_processing_time_timer(timers.current_processing_time() + RECHECK_MS)

    def _live(self, state: ReadOnlyBroadcastState) -> RuleTable:
        """Return the rule table; after a restore it is rebuilt from broadcast state once."""
        if self._table is None:
            stored = dict(state.items())
            offset = int(stored.pop(OFFSET_KEY, str(rule_table.NO_OFFSET).encode()))
            self._use(RuleTable({rule_id: rules.decode(document) for rule_id, document in stored.items()}, offset))
        assert self._table is not None
        return self._table

    def _use(self, table: RuleTable) -> None:
        self._table = table
        self._rules = prepare(table.live.values())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
