"""Damage that was found, until it is known whether the lake has what is gone here.

A link may be dead for a minute before that shows, and a receipt may have been lost with it. So nothing is called lost
before a connection was made some time after it was found, and the receipt that the broker retains was heard there.
Times are monotonic seconds; `subscribed_s` is when the subscription to receipts stood, None without one.
"""

from collections.abc import Callable, Iterable
from typing import Final

from edge_agent.core.spool.damage import Damage

LOST_SETTLE_S: Final = 30.0  # s; a batch that was under way when it was found rotten is committed by then, or never
ACK_GRACE_S: Final = 1.0  # s; after connecting, how long a retained acknowledgement may take


class Settling:
    """Damages by what they are about, with the moment each was found."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], tuple[Damage, float]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, damages: Iterable[Damage], now_s: float) -> None:
        """Take in what was found now."""
        for damage in damages:
            self._found[damage.contract, damage.first_seq] = damage, now_s

    def keep(self, is_open: Callable[[Damage], bool]) -> None:
        """Forget what is accounted for: it was delivered before it rotted here, or a record calls it lost."""
        self._found = {key: found for key, found in self._found.items() if is_open(found[0])}

    def remove(self, damages: Iterable[Damage]) -> None:
        """Forget these."""
        for damage in damages:
            self._found.pop((damage.contract, damage.first_seq), None)

    def due(self, now_s: float, subscribed_s: float | None) -> tuple[Damage, ...]:
        """Return what the lake does not have by its newest word; empty before that has come."""
        if subscribed_s is None or now_s < subscribed_s + ACK_GRACE_S:
            return ()
        return tuple(damage for damage, found_s in self._found.values() if found_s + LOST_SETTLE_S <= subscribed_s)

    def due_s(self, subscribed_s: float | None) -> float | None:
        """Return when `due` or `must_ask` has something to say; None while neither has."""
        if subscribed_s is None or not self._found:
            return None
        ask_s = min(found_s for _, found_s in self._found.values()) + LOST_SETTLE_S
        return subscribed_s + ACK_GRACE_S if ask_s <= subscribed_s else ask_s

    def must_ask(self, now_s: float, subscribed_s: float | None) -> bool:
        """Say whether it is time to settle, and the present connection is too old for the lake's newest word."""
        return subscribed_s is not None and any(
            subscribed_s < found_s + LOST_SETTLE_S <= now_s for _, found_s in self._found.values()
        )
