"""Tables are committed side by side: what several threads encode at once must be what each of them meant."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from contracts.ranges import RangeSet
from lakehouse import handover, state, streams
from lakehouse.handover import Claim, Handover
from lakehouse.state import TableState
from lakehouse.streams import StreamKey, Streams, columns_of

THREADS = 4
EACH = 200
STREAMS = 1_000  # a frame takes long enough to make that threads meet in it


def some_streams(number: int) -> dict[StreamKey, RangeSet]:
    return {StreamKey("clicks", f"device-{number}-{at}", 1): ((0, number + at),) for at in range(STREAMS)}


def encode_at_once(encoders: list[Callable[[], bytes]]) -> None:
    """Encode each by a thread of its own, again and again: what comes out is what it was with nobody else about."""
    alone = [encode() for encode in encoders]

    def try_some(thread: int) -> None:
        for _ in range(EACH):
            assert encoders[thread]() == alone[thread]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(try_some, range(len(encoders))))


def test_states_that_threads_encode_at_once_are_read_as_they_were() -> None:
    made = [TableState(changed=tuple(some_streams(n).items()), floors={"log/0": n}) for n in range(THREADS)]
    assert [state.decode(state.encode(one), "here") for one in made] == made
    encode_at_once([partial(state.encode, one) for one in made])


def test_handovers_that_threads_encode_at_once_are_read_as_they_were() -> None:
    claims = [tuple(Claim(key, found) for key, found in some_streams(n).items()) for n in range(THREADS)]
    made = [Handover(f"worker-{n}", n, "clicks", (), claims[n], (), {}, {}, {}, 0) for n in range(THREADS)]
    assert [handover.decode_handover(handover.encode(one)) for one in made] == made
    encode_at_once([partial(handover.encode, one) for one in made])


def test_columns_that_threads_encode_at_once_are_read_as_they_were() -> None:
    made = [columns_of(some_streams(n)) for n in range(THREADS)]
    for number, one in enumerate(made):
        assert dict(Streams(streams.decode(streams.encode(one), "here"))) == some_streams(number)
    encode_at_once([partial(streams.encode, one) for one in made])
