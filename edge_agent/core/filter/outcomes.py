"""What a filter may conclude about an event, as a table; a decision is a place in it.

The table of a stream never changes while its rules and model do not, so that a chunk's decisions are one small integer
per event, and the ledger one count per place.
"""

from math import isnan
from typing import Final

from msgspec import Struct

from contracts.bundle import Model
from contracts.edge_rules import Deduplicate, Drop, EdgeRule, Keep, OnChange, Sample

FILTERED: Final = "filtered"  # the model scored it below its threshold
AGGREGATED_ONLY: Final = "aggregated_only"  # nothing decided, and the stream's rest only counts in windows
_REASONS: Final = {
    Keep: "kept_by_rule",
    Drop: "dropped_by_rule",
    Sample: "not_sampled",
    Deduplicate: "duplicate",
    OnChange: "unchanged",
}

# Places that every table has; the rules' own follow in their order.
OTHERWISE: Final = 0
SCORED_HIGH: Final = 1
SCORED_LOW: Final = 2
NOT_SCORED: Final = 3
FIRST_RULE: Final = 4


class Outcome(Struct, frozen=True):
    """Kept or not, by which rule or model (`id@version`, or empty), and why.

    `windowed` says whether windows count the event: not what a rule drops, nor a second copy of an event.
    """

    kept: bool
    rule: str
    reason: str
    windowed: bool = True


class Explanation(Struct, frozen=True):
    """What became of one event and why. `passed` are the rules that concerned it and let it go on."""

    seq: int
    kept: bool
    rule: str
    reason: str
    score: float | None
    passed: tuple[str, ...]


def outcomes_of(rules: tuple[EdgeRule, ...], model: Model | None, *, aggregates: bool) -> tuple[Outcome, ...]:
    """Return the table of a stream; `aggregates` says that what nobody decided about only counts in windows.

    An event whose score is not a number is kept: a model that fails must not make events disappear.
    """
    label = f"{model.id}@{model.version}" if model is not None else ""
    fixed = (
        Outcome(not aggregates, "", AGGREGATED_ONLY if aggregates else "kept_otherwise"),
        Outcome(True, label, "scored_high"),
        Outcome(False, label, FILTERED),
        Outcome(True, label, "score_not_a_number"),
    )
    return fixed + tuple(
        Outcome(
            kept=isinstance(rule.action, Keep),
            rule=rule.label,
            reason=_REASONS[type(rule.action)],
            windowed=not isinstance(rule.action, Drop | Deduplicate),
        )
        for rule in rules
    )


def explanation(
    seq: int,
    code: int,
    outcomes: tuple[Outcome, ...],
    labels: list[str],
    came: list[bool],
    score: float | None,
) -> Explanation:
    """Return an event's explanation; `came` says for each rule whether the event came to it before any decided."""
    outcome = outcomes[code]
    decided = code - FIRST_RULE if code >= FIRST_RULE else len(labels)
    passed = tuple(label for label, concerned in zip(labels[:decided], came, strict=False) if concerned)
    known = None if score is None or isnan(score) else score
    return Explanation(seq, outcome.kept, outcome.rule, outcome.reason, known, passed)
