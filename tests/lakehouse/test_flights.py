"""What a writer may say of its rounds: floors never pass what is open, and nothing waits for what is settled."""

from hypothesis import given
from hypothesis import strategies as st

from lakehouse.flights import Files, Flights
from lakehouse.handover import Claim
from lakehouse.plan import Round, TablePart
from lakehouse.rows import QUARANTINE
from lakehouse.streams import StreamKey

KEY = StreamKey("telemetry", "d", 1)


def part(contract: str, waits: bool = False) -> TablePart:
    return TablePart(contract, None, (), {}, (), waits)


def planned(at: int, *parts: TablePart, parked: frozenset[str] = frozenset()) -> Round:
    return Round({"b/0": at}, {"b/0": at + 1}, parts, (Claim(KEY, ((at, at + 1),)),), 0, (), parked)


def everything(found: Round) -> dict[str, Files]:
    return {part.contract: () for part in found.parts}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_floors_are_where_the_oldest_open_round_began(tables: list[int], rng: object) -> None:
    flights = Flights({"b/0": 0})
    begun = [flights.begin(planned(at, *(part(f"t{n}") for n in range(count)))) for at, count in enumerate(tables)]
    for flight in begun:
        flights.stored(flight, everything(flight.round))
    numbers = []
    for number, (flight, one, _) in enumerate(list(flights.ready())):
        flights.handed_over(flight, one.contract, number)
        numbers.append(number)
    rng.shuffle(numbers)  # type: ignore[attr-defined]
    for number in numbers:
        flights.settled(number)
        open_ = [flight.round.begins["b/0"] for flight in begun if flight.open]
        assert flights.floors == {"b/0": min(open_, default=len(tables))}
    assert len(flights) == 0
    assert [claim.ranges[0][0] for claim in flights.take_released()] == list(range(len(tables)))
    assert flights.take_released() == ()


def test_a_round_whose_files_are_being_written_is_open() -> None:
    flights = Flights({"b/0": 0})
    first, second = flights.begin(planned(0)), flights.begin(planned(1))
    flights.stored(second, {})
    assert (len(flights), flights.floors) == (2, {"b/0": 0})
    flights.stored(first, {})
    assert (len(flights), flights.floors) == (0, {"b/0": 2})


def test_a_table_with_refused_rows_waits_for_the_quarantine() -> None:
    flights = Flights({})
    flight = flights.begin(planned(0, part(QUARANTINE), part("telemetry", waits=True), part("clicks")))
    flights.stored(flight, everything(flight.round))
    assert [one.contract for _, one, _ in flights.ready()] == [QUARANTINE, "clicks"]
    flights.handed_over(flight, QUARANTINE, 1)
    assert [one.contract for _, one, _ in flights.ready()] == ["clicks"]
    flights.settled(1)
    assert [one.contract for _, one, _ in flights.ready()] == ["telemetry", "clicks"]


def test_what_could_not_be_stored_holds_the_floors_and_who_waits_for_it() -> None:
    flights = Flights({"b/0": 0})
    flight = flights.begin(planned(0, part(QUARANTINE), part("telemetry", waits=True), part("clicks")))
    flights.stored(flight, {"telemetry": (), "clicks": ()})
    ((_, one, _),) = flights.ready()
    assert one.contract == "clicks"
    flights.handed_over(flight, "clicks", 1)
    flights.settled(1)
    later = flights.begin(planned(1))
    flights.stored(later, {})
    assert (len(flights), flights.floors, flights.take_released()) == (0, {"b/0": 0}, ())


def test_batches_that_were_left_alone_hold_the_floors() -> None:
    flights = Flights({"b/0": 5})
    flight = flights.begin(planned(5, parked=frozenset({"clicks"})))
    flights.stored(flight, {})
    assert flights.floors == {"b/0": 5}


def test_a_handover_is_unheard_only_before_where_its_committer_hears() -> None:
    flights = Flights({})
    flight = flights.begin(planned(0, part("telemetry")))
    flights.stored(flight, everything(flight.round))
    flights.handed_over(flight, "telemetry", 7)
    flight.offsets[7] = 30
    assert flights.is_unheard("telemetry", 31)
    assert not flights.is_unheard("telemetry", 30)
    assert not flights.is_unheard("clicks", 31)
