"""The sending half by itself: what it does about a link that says nothing."""

from edge_agent.core.spool.identity import open_spool
from edge_agent.core.uplink.link import LinkUp
from edge_agent.courier import CONNECTING_S_MAX, Courier
from tests.edge_agent.simulated import DEVICE, WANTED
from tests.edge_agent.test_gauges import Clock, Uplink
from tests.edge_agent.worlds import MemoryDisk


class SilentUplink(Uplink):
    """A link of which nothing is heard."""

    def __init__(self) -> None:
        super().__init__()
        self.connects = self.drops = 0

    def connect(self, epoch: int) -> None:
        self.connects += 1

    def drop(self) -> None:
        self.drops += 1


def courier_of(uplink: SilentUplink, clock: Clock, said: list[str]) -> Courier:
    return Courier(DEVICE, open_spool(MemoryDisk(), WANTED), uplink, clock, lambda: 0.5, said.append)


def test_a_connection_that_never_comes_is_given_up_and_made_again() -> None:
    uplink, clock, said = SilentUplink(), Clock(), list[str]()
    courier = courier_of(uplink, clock, said)
    courier.advance(clock.at_s)
    assert (uplink.connects, uplink.drops) == (1, 0)
    assert min(courier.due_s()) <= clock.at_s + CONNECTING_S_MAX
    clock.at_s += CONNECTING_S_MAX + 0.1
    courier.advance(clock.at_s)
    assert (uplink.connects, uplink.drops) == (1, 1)
    assert said == [f"no connection within {CONNECTING_S_MAX:.0f} s: trying again"]
    clock.at_s = min(courier.due_s())
    courier.advance(clock.at_s)
    assert uplink.connects == 2


def test_a_connection_that_came_may_be_silent_for_longer() -> None:
    uplink, clock, said = SilentUplink(), Clock(), list[str]()
    courier = courier_of(uplink, clock, said)
    courier.advance(clock.at_s)
    courier.on_event(LinkUp(1, 20, None))
    clock.at_s += CONNECTING_S_MAX + 0.1
    courier.advance(clock.at_s)
    assert (uplink.connects, uplink.drops, said) == (1, 0, [])
