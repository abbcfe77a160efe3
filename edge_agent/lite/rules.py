"""The rules of a stream over a chunk of events, without numpy: the twin of `edge_agent.core.filter.rules`."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from contracts.contract import Contract
from contracts.edge_rules import Deduplicate, EdgeRule, OnChange, Sample
from contracts.sampling import draw, draws_below
from edge_agent.core.filter import repeats
from edge_agent.core.filter.outcomes import FIRST_RULE, Outcome
from edge_agent.core.filter.remembering import RememberingRules
from edge_agent.lite.conditions import Chunk, LiteColumn, Mask, Matcher, matcher

UNDECIDED: Final = -1


class LiteJudged(Struct, frozen=True):
    """A chunk after the rules that look at one event alone: see `edge_agent.core.filter.rules.Judged`."""

    codes: list[int]
    seen: tuple[Mask, ...]
    chunk: Chunk


class LiteRules(RememberingRules):
    """The checked rules of a stream, and what they remember of the events that were kept."""

    def __init__(self, rules: tuple[EdgeRule, ...], contract: Contract, origin: str, epoch: int) -> None:
        super().__init__(rules, contract, origin, epoch)
        self._matchers: list[Matcher] = [matcher(rule.when, contract) for rule in rules]

    def judge(self, seqs: Sequence[int], columns: Mapping[str, LiteColumn]) -> LiteJudged:
        """Return what rules decide from each event alone."""
        chunk = Chunk(self._contract, columns, len(seqs))
        codes = [UNDECIDED] * len(seqs)
        seen: list[Mask] = []
        for place, rule in enumerate(self.rules):
            holds = self._matchers[place](chunk)
            came = [hit and code < 0 for hit, code in zip(holds, codes, strict=True)]
            seen.append(came)
            match rule.action:
                case Deduplicate() | OnChange():
                    continue
                case Sample(fraction=fraction):
                    taken = sampled(seqs, self._seeds[place], fraction)
                    decided = [here and not go_on for here, go_on in zip(came, taken, strict=True)]
                case _:
                    decided = came
            codes = [FIRST_RULE + place if here else code for here, code in zip(decided, codes, strict=True)]
        return LiteJudged(codes, tuple(seen), chunk)

    def settle(self, judged: LiteJudged, outcomes: tuple[Outcome, ...]) -> None:
        """Let the rules that remember refuse what repeats; writes into `judged.codes`, which must be decided."""
        lanes = self._lanes(judged)
        if lanes:
            kept = [outcomes[code].kept for code in judged.codes]
            for row, place in repeats.settle(lanes, kept):
                judged.codes[row] = FIRST_RULE + place

    def refill(self, seqs: Sequence[int], columns: Mapping[str, LiteColumn], kept: Sequence[bool]) -> None:
        """Teach the rules that remember what was kept of these events."""
        if self._keyed:
            repeats.refill(self._lanes(self.judge(seqs, columns)), kept)

    def _lanes(self, judged: LiteJudged) -> list[repeats.Lane]:
        if not self._keyed:
            return []
        assert self._contract.event_time_field is not None
        rows = {place: [row for row, came in enumerate(judged.seen[place]) if came] for place in self._keyed}
        return repeats.lanes(self._keyed, rows, judged.chunk.plain, self._contract.event_time_field)


def sampled(seqs: Sequence[int], seed: int, fraction: float) -> Mask:
    """Say which events a sample takes; `contracts.sampling` defines it."""
    below = draws_below(fraction)
    return [draw(seed, seq) < below for seq in seqs]
