"""Offers on their way to the disk: what of them is new, and what to tell their sources once it is durable."""

from msgspec import Struct

from edge_agent.core.sources.offers import Offered, Settled, busy
from edge_agent.core.sources.producers import Producers, admit


class Answer(Struct, frozen=True):
    """What to tell a source of one of its offers."""

    source: str
    ticket: int
    settled: Settled


class Admissions:
    """The offers that go into one record, by the protocol of `core.producers`.

    `producers` is the value for the record's metadata: what is durable, and all that was taken in since. A restart
    begins with that of the newest durable record.
    """

    def __init__(self, producers: Producers) -> None:
        self.producers = producers
        self._durable = producers
        self._answers: list[Answer] = []
        self._has_new = False

    @property
    def must_write(self) -> bool:
        """Whether a record must become durable before the answers may be given."""
        return self._has_new

    def take(self, offered: Offered) -> tuple[bytes, ...]:
        """Take an offer in (step 1) and return its lines that are new, to be observed as events of its contract."""
        admission = admit(self.producers, offered)
        self.producers = admission.producers
        self._answers.append(Answer(offered.source, offered.ticket, admission.settled))
        lines = offered.lines[admission.new_from :]
        self._has_new = self._has_new or bool(lines)
        return lines

    def note(self, answer: Answer, producers: Producers, *, has_new: bool) -> None:
        """Take note of an offer that was taken in elsewhere, and of the value that holds since."""
        self.producers = producers
        self._answers.append(answer)
        self._has_new = self._has_new or has_new

    def written(self) -> list[Answer]:
        """Return the answers, now that the record is durable (step 2), or that none had to be written."""
        self._durable = self.producers
        return self._end()

    def dropped(self, reason: str) -> list[Answer]:
        """Return what to say when nothing was written and nothing will be: what was taken in is forgotten again."""
        self.producers = self._durable
        answers = [Answer(answer.source, answer.ticket, busy(reason)) for answer in self._answers]
        self._end()
        return answers

    def _end(self) -> list[Answer]:
        answers, self._answers, self._has_new = self._answers, [], False
        return answers
