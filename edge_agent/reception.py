"""Where events wait that producers have handed over, until they are durable and their producers are told."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from edge_agent.consent import ConsentDesk
from edge_agent.core.consent.portions import Portion
from edge_agent.core.sources.admissions import Admissions
from edge_agent.core.sources.offers import Asked, Offered, Outcome, Settled, Wish, busy
from edge_agent.core.sources.pacing import CHUNK_EVENTS_MAX
from edge_agent.core.sources.producers import Producers
from edge_agent.ports import PushSource

UNKNOWN_CONTRACT: Final = "unknown_contract"
NO_CONSENT: Final = "no_consent_needed"


class Reception:
    """Follows the three steps of `core.producers` by way of `Admissions`: admit, append (by the agent), settle."""

    def __init__(
        self,
        sources: Iterable[PushSource],
        contracts: Collection[str],
        producers: Producers,
        consent: ConsentDesk | None = None,
        names: Mapping[str, Collection[str]] = {},
    ) -> None:
        self.consent = consent
        self._names = names  # of the contracts of each source
        self._sources = {source.name: source for source in sources}
        self._contracts = frozenset(contracts)
        self._waiting: deque[Offered] = deque()
        self._admissions = Admissions(producers)

    @property
    def producers(self) -> Producers:
        """What holds once everything that was taken is durable."""
        return self._admissions.producers

    @property
    def is_waiting(self) -> bool:
        """Say whether somebody waits for an answer that only `take` leads to."""
        return bool(self._waiting) or (self.consent is not None and self.consent.is_due)

    @property
    def has_sources(self) -> bool:
        """Say whether events may come at any time."""
        return bool(self._sources)

    def start(self) -> None:
        """Let the sources take events."""
        for source in self._sources.values():
            source.start()

    def offer(self, offered: Offered) -> None:
        """Take an offer in, to be answered later."""
        if offered.contract in self._contracts:
            self._waiting.append(offered)
        else:
            known = ", ".join(sorted(self._contracts))
            reason = f"contract {offered.contract!r}: this device takes only {known}"
            self._answer(offered, Settled(Outcome.REFUSED, code=UNKNOWN_CONTRACT, reason=reason))

    def take(self) -> dict[str, list[bytes]]:
        """Admit what waits, at most a flush of it; return the new lines by contract.

        Call `settle` once they are durable, and only then `take` again.
        """
        lines: dict[str, list[bytes]] = {}
        events = 0
        while self._waiting and events < CHUNK_EVENTS_MAX:
            offered = self._waiting.popleft()
            if self.consent is not None and offered.contract in self.consent.contracts:
                self.consent.take(offered, self._admissions)
                events += len(offered.lines)
            elif new := self._admissions.take(offered):
                lines.setdefault(offered.contract, []).extend(new)
                events += len(new)
        return lines

    def portions(self) -> tuple[Portion, ...]:
        """Return new lines of contracts that need consent, person by person; `settle` as with `take`."""
        return self.consent.portions() if self.consent is not None else ()

    def ask(self, asked: Asked) -> None:
        """Follow a person's decision at once, and answer the app that passed it on."""
        if self.consent is None or not self.consent.contracts & {*self._names.get(asked.source, ())}:
            reason = "no contract of this source needs consent"
            self._sources[asked.source].settle(asked.ticket, Settled(Outcome.REFUSED, code=NO_CONSENT, reason=reason))
            return
        if asked.wish is Wish.REFUSE:
            self._send_away(self.consent.contracts, "a person has refused: send it again")
        self._sources[asked.source].settle(
            asked.ticket, self.consent.decide(asked.person, asked.wish, self._admissions)
        )

    def settle(self) -> None:
        """Tell the producers what became of all that was admitted."""
        for answer in self._admissions.written():
            self._sources[answer.source].settle(answer.ticket, answer.settled)

    def send_away(self, reason: str) -> None:
        """Ask those who wait to come again later."""
        self._send_away({offered.contract for offered in self._waiting}, reason)

    def troubles(self) -> list[str]:
        """Return what is wrong with sources at present."""
        return [f"source {name}: {source.trouble}" for name, source in self._sources.items() if source.trouble]

    def close(self) -> None:
        """Take no more; what is not settled stays with its producers."""
        for source in self._sources.values():
            source.close()

    def _send_away(self, contracts: Collection[str], reason: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for offered in waiting:
            if offered.contract in contracts:
                self._answer(offered, busy(reason))
            else:
                self._waiting.append(offered)

    def _answer(self, offered: Offered, settled: Settled) -> None:
        self._sources[offered.source].settle(offered.ticket, settled)
