"""The rules of a stream over a chunk of events: what they decide, and what they leave to the model.

`edge_agent.lite.rules` says the same without numpy; the order of the steps is that of `contracts.edge_rules`.
"""

from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from contracts.contract import Contract
from contracts.edge_rules import Deduplicate, EdgeRule, OnChange, Sample
from contracts.sampling import DRAW_BITS, INCREMENT, MULTIPLIERS, SHIFTS, draws_below
from edge_agent.core.events import Events, Seqs
from edge_agent.core.filter import repeats
from edge_agent.core.filter.conditions import Chunk, Mask, Matcher, matcher
from edge_agent.core.filter.outcomes import FIRST_RULE, Outcome
from edge_agent.core.filter.remembering import RememberingRules

Codes: TypeAlias = NDArray[np.int16]

UNDECIDED: Final = -1


class Judged(Struct, frozen=True):
    """A chunk after the rules that look at one event alone.

    `codes` are places in the table of outcomes or UNDECIDED; `seen` says for each rule which events came to it.
    """

    codes: Codes
    seen: tuple[Mask, ...]
    chunk: Chunk


class Rules(RememberingRules):
    """The checked rules of a stream, and what they remember of the events that were kept."""

    def __init__(self, rules: tuple[EdgeRule, ...], contract: Contract, origin: str, epoch: int) -> None:
        super().__init__(rules, contract, origin, epoch)
        self._matchers: list[Matcher] = [matcher(rule.when, contract) for rule in rules]

    def judge(self, events: Events) -> Judged:
        """Return what rules decide from each event alone."""
        chunk = Chunk(self._contract, events.columns, len(events))
        codes = np.full(len(events), UNDECIDED, dtype=np.int16)
        undecided = chunk.all()
        seen: list[Mask] = []
        for place, rule in enumerate(self.rules):
            came = self._matchers[place](chunk) & undecided
            seen.append(came)
            match rule.action:
                case Deduplicate() | OnChange():
                    continue
                case Sample(fraction=fraction):
                    decided = came & ~sampled(events.seqs, self._seeds[place], fraction)
                case _:
                    decided = came
            codes[decided] = FIRST_RULE + place
            undecided &= ~decided
        return Judged(codes, tuple(seen), chunk)

    def settle(self, judged: Judged, outcomes: tuple[Outcome, ...]) -> None:
        """Let the rules that remember refuse what repeats; writes into `judged.codes`, which must be decided."""
        lanes = self._lanes(judged)
        if lanes:
            kept = np.array([outcome.kept for outcome in outcomes], dtype=np.bool_)[judged.codes].tolist()
            for row, place in repeats.settle(lanes, kept):
                judged.codes[row] = FIRST_RULE + place

    def refill(self, events: Events, kept: Mask) -> None:
        """Teach the rules that remember what was kept of these events."""
        if self._keyed:
            repeats.refill(self._lanes(self.judge(events)), kept.tolist())

    def _lanes(self, judged: Judged) -> list[repeats.Lane]:
        if not self._keyed:
            return []
        assert self._contract.event_time_field is not None
        rows = {place: np.flatnonzero(judged.seen[place]).tolist() for place in self._keyed}
        return repeats.lanes(self._keyed, rows, judged.chunk.plain, self._contract.event_time_field)


def sampled(seqs: Seqs, seed: int, fraction: float) -> Mask:
    """Say which events a sample takes; `contracts.sampling` defines it."""
    word = (seqs.astype(np.uint64) + np.uint64(1)) * np.uint64(INCREMENT) + np.uint64(seed)
    for shift, multiplier in zip(SHIFTS, MULTIPLIERS, strict=False):
        word = (word ^ (word >> np.uint64(shift))) * np.uint64(multiplier)
    draws = (word ^ (word >> np.uint64(SHIFTS[-1]))) >> np.uint64(64 - DRAW_BITS)
    taken: Mask = draws < np.uint64(draws_below(fraction))
    return taken
