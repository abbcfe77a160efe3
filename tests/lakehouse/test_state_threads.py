"""Tables are committed side by side: what several threads encode at once must be what each of them meant."""

from concurrent.futures import ThreadPoolExecutor

from lakehouse import handover, state
from lakehouse.handover import Settlement
from lakehouse.state import TableState
from lakehouse.streams import StreamKey

THREADS = 4
EACH = 400
STREAMS = 40


def some_state(number: int) -> TableState:
    streams = tuple((StreamKey("clicks", f"device-{number}-{at}", 1), ((0, number + at),)) for at in range(STREAMS))
    return TableState(changed=streams, floors={"fieldlake.batches/0": number})


def test_states_that_threads_encode_at_once_are_read_as_they_were() -> None:
    def try_some(thread: int) -> None:
        for at in range(EACH):
            made = some_state(thread * EACH + at)
            assert state.decode(state.encode(made), "here") == made

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(try_some, range(THREADS)))


def test_answers_that_threads_encode_at_once_are_read_as_they_were() -> None:
    def try_some(thread: int) -> None:
        for at in range(EACH):
            made = Settlement(f"worker-{thread}" * STREAMS, at, "clicks", at)
            assert handover.decode_settlement(handover.encode(made)) == made

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(try_some, range(THREADS)))
