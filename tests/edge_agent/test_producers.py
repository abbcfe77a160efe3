"""Which events are new: whatever is sent again, lost on the way back, or forgotten by a restart."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.sources import producers
from edge_agent.core.sources.admissions import Admissions, Answer
from edge_agent.core.sources.offers import Offered, Outcome
from edge_agent.core.sources.producers import PRODUCERS_MAX, Producers, admit, is_producer


def offer(first: int | None, size: int, producer: str | None = "app", *, gaps: bool = False) -> Offered:
    lines = tuple(b"%d" % number for number in range(first or 0, (first or 0) + size))
    return Offered("apps", 0, "clicks", lines, producer, first, gaps)


class Device:
    """An agent whose memory a crash takes: `durable` and `known` are what stays."""

    def __init__(self) -> None:
        self.durable: dict[str, list[bytes]] = {}
        self.known = Producers()
        self.crash()

    def crash(self) -> None:
        self.desk = Admissions(self.known)
        self.forget()

    def forget(self) -> None:
        self.staged: list[tuple[str, tuple[bytes, ...]]] = []

    def admit(self, offered: Offered) -> None:
        assert offered.producer is not None
        self.staged.append((offered.producer, self.desk.take(offered)))

    def write(self) -> list[Answer]:
        for producer, lines in self.staged:
            self.durable.setdefault(producer, []).extend(lines)
        # In a record's metadata, and in the cursor when the record is deleted.
        self.known = msgspec.msgpack.decode(msgspec.msgpack.encode(self.desk.producers), type=Producers)
        assert msgspec.json.decode(msgspec.json.encode(self.known), type=Producers) == self.known
        self.forget()
        return self.desk.written()

    def drop(self) -> list[Answer]:
        self.forget()
        return self.desk.dropped("the spool is full")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from("ab"), st.integers(0, 5), st.integers(1, 6)),
        st.tuples(st.sampled_from(["write", "lose", "drop", "crash"]), st.just(""), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_any_order_of_resends_lost_answers_and_restarts_takes_each_event_once(
    steps: list[tuple[str, str, int, int]],
) -> None:
    device = Device()
    heard = {"a": 0, "b": 0}  # below it each producer knows its events to be taken
    sent = {"a": 0, "b": 0}  # below it each has sent its events at least once
    names: list[str] = []  # whose offers wait for an answer

    def hear(answers: list[Answer]) -> None:
        for name, answer in zip(names, answers, strict=True):
            known = answer.settled.next_number
            if answer.settled.outcome is not Outcome.TAKEN:
                sent[name] = heard[name]  # its connection ended: it begins anew from what it knows
            elif known is not None:
                heard[name] = max(heard[name], known)
        names.clear()

    for step, name, back, size in steps:
        match step:
            case "send":  # anything that was not answered may come again, and new events behind it
                first = max(heard[name], sent[name] - back)
                device.admit(offer(first, size, name))
                names.append(name)
                sent[name] = max(sent[name], first + size)
            case "write":
                hear(device.write())
            case "lose":  # all is durable, and no producer hears of it
                device.write()
                names.clear()
            case "drop":
                hear(device.drop())
            case _:
                device.crash()
                names.clear()
                sent = dict(heard)
        for producer, upto in heard.items():  # what was acknowledged is durable
            assert len(device.durable.get(producer, [])) >= upto
    device.crash()
    for name in "ab":  # in the end everything arrives, whatever was in doubt
        device.admit(offer(heard[name], 400 - heard[name], name))
    device.write()
    assert device.durable == {name: [b"%d" % number for number in range(400)] for name in "ab"}


def test_answers_are_given_at_once_where_nothing_has_to_be_written() -> None:
    device = Device()
    device.admit(offer(0, 3))
    assert device.desk.must_write
    device.write()
    device.admit(offer(1, 2))
    device.admit(offer(None, 0))
    device.admit(offer(9, 2))
    assert not device.desk.must_write
    assert [answer.settled.outcome for answer in device.desk.written()] == [
        Outcome.TAKEN, Outcome.TAKEN, Outcome.REFUSED,
    ]  # fmt: skip
    assert device.desk.written() == []


@given(st.integers(0, 50), st.integers(0, 20), st.integers(0, 50), st.integers(1, 20))
def test_numbers_are_new_known_or_refused_and_never_anything_else(begin: int, size: int, first: int, more: int) -> None:
    known = admit(Producers(), offer(begin, size)).producers
    admission = admit(known, offer(first, more))
    end = begin + size
    if size and (first < begin or first > end):
        assert admission.settled.outcome is Outcome.REFUSED
        assert admission.producers == known
        assert (admission.new_from, admission.settled.next_number) == (more, end)
        return
    assert admission.settled.accepted + admission.settled.duplicate == more
    new = offer(first, more).lines[admission.new_from :]
    assert new == tuple(b"%d" % n for n in range(first, first + more) if not size or n >= end)
    assert admission.settled.next_number == (max(end, first + more) if size else first + more)


def test_where_gaps_are_allowed_a_higher_number_is_new_and_a_lower_one_known() -> None:
    known = admit(Producers(), offer(5, 3, gaps=True)).producers
    later = admit(known, offer(20, 2, gaps=True))
    assert (later.settled.accepted, later.settled.next_number) == (2, 22)
    earlier = admit(later.producers, offer(3, 4, gaps=True))
    assert (earlier.settled.accepted, earlier.settled.duplicate, earlier.settled.next_number) == (0, 4, 22)
    assert earlier.producers == later.producers


def test_an_offer_without_lines_asks_and_changes_nothing() -> None:
    assert admit(Producers(), offer(None, 0)).settled.next_number is None
    known = admit(Producers(), offer(7, 2)).producers
    asked = admit(known, offer(None, 0))
    assert (asked.settled.next_number, asked.producers) == (9, known)


def test_without_a_producer_every_event_is_new() -> None:
    admission = admit(Producers(), offer(None, 3, None))
    assert (admission.settled.accepted, admission.new_from, admission.producers) == (3, 0, Producers())


def test_producers_of_other_sources_and_contracts_are_others() -> None:
    known = admit(Producers(), offer(0, 5)).producers
    for other in (
        msgspec.structs.replace(offer(0, 5), source="other"),
        msgspec.structs.replace(offer(0, 5), contract="purchases"),
    ):
        assert admit(known, other).settled.accepted == 5


def test_the_producer_that_was_longest_silent_is_forgotten() -> None:
    known = Producers()
    for number in range(PRODUCERS_MAX):
        known = admit(known, offer(0, 1, f"app-{number}")).producers
    known = admit(known, offer(1, 1, "app-0")).producers
    known = admit(known, offer(0, 1, "one more")).producers
    assert len(known.marks) == PRODUCERS_MAX
    assert known.next_number(producers.key_of(offer(0, 0, "app-0"))) == 2
    assert known.next_number(producers.key_of(offer(0, 0, "app-1"))) is None
    assert admit(known, offer(6, 1, "app-1")).settled.outcome is Outcome.TAKEN  # where it goes on, it is known again


def test_the_value_stays_small_however_many_there_are() -> None:
    known = Producers()
    for number in range(3 * PRODUCERS_MAX):
        known = admit(known, offer(2**52, 1, f"{number:064d}")).producers
    assert len(msgspec.msgpack.encode(known)) < PRODUCERS_MAX * 128


def test_names_of_producers() -> None:
    assert is_producer("平板 7/现场")
    assert not is_producer("")
    assert not is_producer("x" * 65)
    assert not is_producer("line\nbreak")
