"""When the ledger entries of several flushes go out together."""

from typing import Final

from edge_agent.core.accounts import Explained

LEDGER_INTERVAL_S: Final = 5.0  # s; an account some seconds later costs nobody, one per flush doubles the batches
OWED_ACCOUNTS_MAX: Final = 16  # fates, rules, reasons; each stands twice in every record, with some 60 bytes


class Owed:
    """Ledger entries that no batch holds yet: one range per stream, as every flush begins where the last one ended.

    They are durable in the metadata of every record, so a process that is stopped or killed leaves them to the next.
    """

    def __init__(self, explained: tuple[Explained, ...]) -> None:
        self.explained = explained
        self._since_ms: int | None = None

    def add(self, observed: Explained) -> None:
        """Take in what became of the next events of a stream."""
        if not observed.counts:
            return
        stream = observed.counts[0].stream
        before = [one for one in self.explained if one.counts[0].stream == stream]
        others = tuple(one for one in self.explained if one.counts[0].stream != stream)
        self.explained = (*others, before[0].joined(observed) if before else observed)

    def take_due(self, now_ms: int, *, final: bool) -> tuple[Explained, ...]:
        """Return the entries if they are old, of many accounts, or `final`; they are owed no longer."""
        if not self.explained:
            return ()
        if self._since_ms is None:
            self._since_ms = now_ms  # After a restart their age starts anew.
        age_s = (now_ms - self._since_ms) / 1_000
        # A clock that was set back must not keep them until it has caught up.
        is_young = 0 <= age_s < LEDGER_INTERVAL_S
        if is_young and sum(len(one.counts) for one in self.explained) < OWED_ACCOUNTS_MAX and not final:
            return ()
        taken, self.explained, self._since_ms = self.explained, (), None
        return taken
