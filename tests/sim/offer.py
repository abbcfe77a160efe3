"""What a schedule's source offers, and what has to become of it: known without asking the agent."""

import json
import random
from functools import cache

from msgspec import Struct

from tests.edge_agent.plant import reading
from tests.edge_agent.simulated import MODEL

REFUSED_CHANCE = 0.03
LATE_CHANCE = 0.02
LATE = "2026-01-01T00:00:00Z"


class Offer(Struct, frozen=True):
    """Lines of a source by number, and the numbers that have to be kept and refused; windows count what is valid."""

    lines: tuple[bytes, ...]
    kept: frozenset[int]
    refused: frozenset[int]

    @property
    def valid(self) -> int:
        """How many events are valid."""
        return len(self.lines) - len(self.refused)


def offer_of(rng: random.Random, events: int) -> Offer:
    """Return events of which some are late and some are none."""
    lines, refused = [], set()
    for seq in range(events):
        if rng.random() < REFUSED_CHANCE:
            refused.add(seq)
            lines.append(b"{not json" if rng.random() < 0.5 else _line(seq, late=False, named="资" * 65))
        else:
            lines.append(_line(seq, late=rng.random() < LATE_CHANCE, named=None))
    kept = {seq for seq in range(events) if seq not in refused and reading(seq)[MODEL.inputs[0]] >= MODEL.threshold}
    return Offer(tuple(lines), frozenset(kept), frozenset(refused))


@cache
def _line(seq: int, *, late: bool, named: str | None) -> bytes:
    changes = {"asset_id": named} if named is not None else {}
    return json.dumps(reading(seq, **changes | ({"occurred_at": LATE} if late else {}))).encode()
