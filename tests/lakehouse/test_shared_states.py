"""Both halves of a worker ask for a table's state at a start: it is read once, and each has its own afterwards."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyiceberg.io import InputFile
from pyiceberg.io.pyarrow import PyArrowFileIO

from lakehouse import state
from lakehouse.state import Kept, TableState
from lakehouse.state_files import SharedStates
from lakehouse.streams import StreamKey

KEY = StreamKey("clicks", "设备-7", 1)


class CountingIO(PyArrowFileIO):
    """Knows what was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def new_input(self, location: str) -> InputFile:
        self.opened.append(location)
        return super().new_input(location)


@pytest.fixture
def locations(tmp_path: Path) -> list[str]:
    found = []
    for end in (1, 2):
        path = tmp_path / f"{end}.state"
        path.write_bytes(state.encode(TableState(changed=((KEY, ((0, end),)),))))
        found.append(str(path))
    return found


def test_what_one_half_has_read_the_other_takes_and_neither_hears_the_other_go_on(locations: list[str]) -> None:
    io, shared, both = CountingIO(), SharedStates(), threading.Barrier(2)

    def read() -> Kept:
        both.wait()
        return shared.read(io, "clicks", locations[0])

    with ThreadPoolExecutor(2) as pool:
        one, other = (future.result() for future in [pool.submit(read), pool.submit(read)])
    assert io.opened == [locations[0]]
    one.streams.take({KEY: ((0, 9),)})
    assert dict(other.streams) == {KEY: ((0, 1),)}


def test_it_is_held_for_one_taker_and_never_taken_for_a_newer_one(locations: list[str]) -> None:
    io, shared = CountingIO(), SharedStates()
    shared.read(io, "clicks", locations[0])
    assert dict(shared.read(io, "clicks", locations[1]).streams) == {KEY: ((0, 2),)}
    assert dict(shared.read(io, "clicks", locations[1]).streams) == {KEY: ((0, 2),)}
    assert io.opened == locations
    shared.read(io, "clicks", locations[1])
    assert io.opened == [*locations, locations[1]]


def test_tables_do_not_wait_for_each_other(locations: list[str]) -> None:
    shared, began, go_on = SharedStates(), threading.Event(), threading.Event()

    class Stuck(CountingIO):
        def new_input(self, location: str) -> InputFile:
            began.set()
            assert go_on.wait(30.0)
            return super().new_input(location)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shared.read, Stuck(), "behaviour", locations[0])
        assert began.wait(30.0)
        assert dict(shared.read(CountingIO(), "clicks", locations[1]).streams) == {KEY: ((0, 2),)}
        go_on.set()
        assert dict(waiting.result().streams) == {KEY: ((0, 1),)}
