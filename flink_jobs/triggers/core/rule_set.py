"""Live rules made ready for evaluation: which conditions can a row satisfy, found by what it says, not by trying all.

Most conditions demand that a field equals a value. Each is filed under one such demand, the rarest among all rules, so
a row meets only the conditions whose demand it fulfils; the cost of a row does not grow with the number of rules. The
others are filed under the comparison that most of them share: one that a row fails is asked once and not for each rule.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from contracts.rules import Comparison, Condition, Pattern, Rule, Scalar, ThresholdOf, conditions
from flink_jobs.triggers.core.conditions import test_of
from flink_jobs.triggers.core.forms import US_PER_S, Form, Timing, form_of

MS_PER_S: Final = 1_000
IDLE_SLACK_MS: Final = 600_000  # a redelivery after a restart comes within minutes and must still find its marks

Columns: TypeAlias = Mapping[str, Sequence[object]]
_Demand: TypeAlias = tuple[str, Scalar]
_Test: TypeAlias = tuple[str, Callable[[object], bool]]  # a field, and what its value must pass

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
ALWAYS_US: Final = 2**62  # us either side of 1970; further away than any event time


class Measure(Struct, frozen=True):
    """The field that a threshold is about, and whether only numbers count."""

    field: str
    numbers: bool


class Watch(Struct, frozen=True):
    """A rule made ready: its key in the state, its pattern and times, and how long an idle match of it is kept.

    Event times from `from_us` on and before `until_us` concern it. `measure`: what a threshold is about.
    """

    rule: Rule
    key: str
    form: Form
    timing: Timing
    keep_ms: int
    from_us: int
    until_us: int
    measure: Measure | None


class Term(Struct, frozen=True):
    """Condition number `bit` of a rule."""

    watch: Watch
    bit: int
    tests: tuple[_Test, ...]


class Listening(Struct, frozen=True):
    """The terms about one kind of subject and one contract.

    By field and value demanded; by a comparison that they share; and those that want every row.
    """

    demanding: dict[str, dict[Scalar, tuple[Term, ...]]]
    sharing: tuple[tuple[_Test, tuple[Term, ...]], ...]
    unconditional: tuple[Term, ...]


class RuleSet(Struct, frozen=True):
    """All live rules, by (subject kind, contract) that they listen to, and by key."""

    listening: dict[tuple[str, str], Listening]
    by_key: dict[str, Watch]


def prepare(rules: Iterable[Rule]) -> RuleSet:
    """Make rules ready for evaluation."""
    terms: dict[tuple[str, str], list[tuple[Term, Condition]]] = defaultdict(list)
    by_key: dict[str, Watch] = {}
    for rule in sorted(rules, key=lambda rule: rule.id):
        watch = _watch(rule)
        by_key[watch.key] = watch
        for bit, condition in enumerate(conditions(rule)):
            terms[rule.subject, condition.contract].append((_term(watch, bit, condition), condition))
    return RuleSet({key: _listening(found) for key, found in terms.items()}, by_key)


def rule_key(rule: Rule) -> str:
    """Return the name under which the state keeps a rule's partial matches: id, version and pattern."""
    pattern = hashlib.sha256(msgspec.json.encode(rule.when)).hexdigest()[:8]
    return f"{rule.id}@{rule.version}/{pattern}"


def satisfied(listening: Listening, columns: Columns, row_count: int) -> dict[str, tuple[Watch, dict[int, int]]]:
    """Return, by rule key, the rule and the bits of the conditions that each row satisfies."""
    found: dict[str, tuple[Watch, dict[int, int]]] = {}
    for row, term in _possible(listening, columns, row_count):
        if all(field in columns and passes(columns[field][row]) for field, passes in term.tests):
            _, bits = found.setdefault(term.watch.key, (term.watch, {}))
            bits[row] = bits.get(row, 0) | 1 << term.bit
    return found


def _possible(listening: Listening, columns: Columns, row_count: int) -> Iterator[tuple[int, Term]]:
    """Yield every term whose demand a row fulfils. 1, 1.0 and True are one key to Python: `holds` tells them apart."""
    for field, by_value in listening.demanding.items():
        for row, value in enumerate(columns.get(field, ())):
            if isinstance(value, str | int | float):
                for term in by_value.get(value, ()):
                    yield row, term
    for (field, passes), terms in listening.sharing:
        for row, value in enumerate(columns.get(field, ())):
            if passes(value):
                for term in terms:
                    yield row, term
    for term in listening.unconditional:
        for row in range(row_count):
            yield row, term


def _watch(rule: Rule) -> Watch:
    within_s = rule.when.within_s
    return Watch(
        rule=rule,
        key=rule_key(rule),
        form=form_of(rule.when),
        timing=Timing(within_s * US_PER_S, rule.cooldown_s * US_PER_S),
        keep_ms=(2 * within_s + rule.cooldown_s) * MS_PER_S + IDLE_SLACK_MS,
        from_us=-ALWAYS_US if rule.effective_from is None else _since_epoch_us(rule.effective_from),
        until_us=ALWAYS_US if rule.effective_until is None else _since_epoch_us(rule.effective_until),
        measure=_measure(rule.when),
    )


def _measure(pattern: Pattern) -> Measure | None:
    return Measure(pattern.field, pattern.aggregate != "distinct") if isinstance(pattern, ThresholdOf) else None


def _since_epoch_us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _term(watch: Watch, bit: int, condition: Condition) -> Term:
    return Term(watch, bit, tuple((comparison.field, test_of(comparison)) for comparison in condition.where))


def _listening(terms: Sequence[tuple[Term, Condition]]) -> Listening:
    demanded = Counter(demand for _, condition in terms for demand in _demands(condition.where))
    # By their written form: to Python 1, 1.0 and True are one, and so would be what is compared with them.
    shared = Counter(msgspec.json.encode(comparison) for _, condition in terms for comparison in condition.where)
    demanding: dict[str, dict[Scalar, tuple[Term, ...]]] = {}
    sharing: dict[bytes, tuple[_Test, list[Term]]] = {}
    unconditional: list[Term] = []
    for term, condition in terms:
        demand = min(_demands(condition.where), key=lambda demand: demanded[demand], default=None)
        if demand is not None:
            by_value = demanding.setdefault(demand[0], {})
            by_value[demand[1]] = (*by_value.get(demand[1], ()), term)
        elif condition.where:
            most = max(condition.where, key=lambda comparison: shared[msgspec.json.encode(comparison)])
            test = (most.field, test_of(most))
            sharing.setdefault(msgspec.json.encode(most), (test, []))[1].append(term)
        else:
            unconditional.append(term)
    tests = tuple((test, tuple(found)) for test, found in sharing.values())
    return Listening(demanding, tests, tuple(unconditional))


def _demands(where: Iterable[Comparison]) -> list[_Demand]:
    return [(c.field, c.value) for c in where if c.op == "eq" and not isinstance(c.value, tuple)]
