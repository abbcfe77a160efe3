"""One schedule carried out: the real agent over a disk, a clock, a link and an upstream that all fail."""

import errno
import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from edge_agent.core.filter.filtering import Filter
from edge_agent.core.sources.offers import Offered
from edge_agent.core.spool.retention import Retention
from edge_agent.core.stream import StreamPlan
from edge_agent.core.uplink.link import AckArrived, Answered, LinkDown, LinkEvent, LinkUp, Subscribed
from edge_agent.core.uplink.owed import LEDGER_INTERVAL_S
from edge_agent.errors import SpoolError
from edge_agent.report import Report
from tests.edge_agent.plant import CONTRACTS
from tests.edge_agent.simulated import World
from tests.edge_agent.worlds import Crash
from tests.sim.app import CONTRACT, App
from tests.sim.disk import TroubledDisk
from tests.sim.faults import Fault, Schedule
from tests.sim.offer import Offer, offer_of
from tests.sim.upstream import Upstream

KEEPALIVE_S: Final = 22.5  # s; what the MQTT client takes to notice a dead link
RESTART_S_MAX: Final = 15.0  # s; from a kill to the next start
STEPS_MAX: Final = 20  # operations of the disk, at most, before a kill at one of them
SENDS_MAX: Final = 8  # publishes, at most, before a kill or a cut at one of them
DISK_TROUBLE_S: Final = 8.0  # s at most, on average half of it
OFFLINE_S_MAX: Final = 60.0  # s
REFUSALS: Final = {Fault.UNHEARD: 0x10, Fault.QUOTA: 0x97}  # reason codes of MQTT 5, section 3.4.2.1
CLOCK_MS_MAX: Final = 40 * 86_400_000  # ms; a battery that was empty for a month
STARTS_MAX: Final = 400  # a device that cannot start in so many tries is stuck
CONVERGE_S_MAX: Final = 3_600.0  # s after the storm; resends double up to 300 s
TURNS_MAX: Final = 10_000  # turns of the agents' loop; two thousand are many, more is a loop that waits for nothing
QUIET_S: Final = LEDGER_INTERVAL_S + 1.0  # s; an agent that apps may reach does not end by itself: it owes nothing then
LAKE_STOPS_S_MAX: Final = 15.0  # s; longer, and an agent may call a batch lost that rotted here while it was on its way


class DivergedError(AssertionError):
    """The agent does not end, or not in time."""


class Storm(World):
    """Plays a schedule; `struck` counts the faults that struck, `story` tells them."""

    def __init__(self, schedule: Schedule) -> None:
        rng = random.Random(f"storm {schedule.seed}")
        self.offer: Offer = offer_of(rng, schedule.events)
        super().__init__(schedule.seed, list(self.offer.lines), schedule.rate_events_per_s)
        self.disk: TroubledDisk = TroubledDisk(rng)
        self.schedule = schedule
        self.struck: Counter[Fault] = Counter()
        self.story: list[tuple[float, str]] = []
        self.is_running = False
        self.starts = 0
        self.turns = 0
        self._rng = rng
        self._clock_ms = 0
        self._half_open = False
        self._arrived: list[Offered] = []
        self._drained_s: float | None = None
        self._kill_after_sends: int | None = None
        self._cut_after_sends: int | None = None
        if schedule.ring_ms:
            self.retention = Retention(schedule.ring_ms, 10**9)
        self.upstream = Upstream(self.lake, rng, self._call_later, self._strikes, self._tell)
        self.app: App | None = None
        if schedule.pushed:
            self.app = App(schedule.pushed, rng, self._offer, self._call_later, lambda: self._strikes(Fault.APP_UNTOLD))
            self.pushing, self.pushed, self.ends_drained = (self.app,), (CONTRACT,), False
            clicks = StreamPlan(CONTRACTS[CONTRACT], Filter())
            self.plan = replace(self.plan, streams=(*self.plan.streams, clicks))
        for at_s, fault in schedule.strikes:
            self._at(at_s, lambda fault=fault: self._strike(fault))  # type: ignore[misc]
        self._at(schedule.storm_s, self._calm)

    def now_ms(self) -> int:
        return super().now_ms() + self._clock_ms

    def run(self) -> Report:
        self._drained_s = None
        self._agent = self.start()
        return self._agent.run()

    def play(self) -> Report:
        """Play the schedule, then start the agent once more in peace: it has to find everything done.

        Returns the last report. Raises DivergedError.
        """
        self._until_drained()
        self._calm()
        self.is_running = False
        self._down()
        return self._until_drained()

    def _until_drained(self) -> Report:
        """Start the agent again whenever it ends."""
        while True:
            self.starts += 1
            if self.starts > STARTS_MAX:
                raise DivergedError(f"{STARTS_MAX} starts and not drained: {self.story[-1:]}")
            try:
                self.is_running = True
                report = self.run()
            except Crash:
                self._told("the agent is gone")
            except (OSError, SpoolError) as error:
                if self.disk.trouble is None:
                    raise
                self._told(f"the agent does not start: {error}")
            else:
                if report.drained:
                    return report
                self._told(f"the agent ends with {report.pending_batches} batches")
            self.is_running = False
            self._arrived = []
            self._down()

    # the agent's seams

    def take(self, wait_s: float) -> list[LinkEvent]:
        self.turns += 1
        if self.turns > TURNS_MAX:
            raise DivergedError(f"the loop turns {TURNS_MAX} times: it waits for nothing at {self.now_s:.1f} s")
        events = super().take(wait_s)
        arrived, self._arrived = self._arrived, []
        return [*events, *arrived]

    def connect(self, epoch: int) -> None:
        self.link += 1
        link = self.link
        self._half_open = False
        if self.offline or self._strikes(Fault.REFUSED):
            self._later(lambda: LinkDown(link, "no broker"))
            return
        self._up = True
        self._later(lambda: self._of(link, LinkUp(link, 20, None)), 0.05)
        self._later(lambda: self._of(link, Subscribed(link, 1)), 0.1)
        self._later(lambda: self._retained(link), 0.4)

    def publish(self, batch: bytes) -> int | None:
        if not self._up:
            return None
        self._message += 1
        link, message = self.link, self._message
        self._count_down()
        if self._half_open or not self._up:
            return message
        code = next((code for fault, code in REFUSALS.items() if self._strikes(fault)), 0)
        if code:
            self._later(lambda: self._of(link, Answered(link, message, code)))
            return message
        if not self._strikes(Fault.DROPPED):
            self.upstream.take(batch)
        if not self._strikes(Fault.ANSWER_LOST):
            self._later(lambda: self._of(link, Answered(link, message, 0)))
        return message

    def _count_down(self) -> None:
        if self._kill_after_sends is not None:
            self._kill_after_sends -= 1
            if self._kill_after_sends < 0:
                self._kill_after_sends = None
                self._note(Fault.KILL_AT_SEND)
                raise Crash
        if self._cut_after_sends is not None:
            self._cut_after_sends -= 1
            if self._cut_after_sends < 0:
                self._cut_after_sends = None
                self._note(Fault.DRAIN_CUT)
                self._break("broken while it drained")

    # what happens to it

    def _strike(self, fault: Fault) -> LinkEvent | None:
        """Let a fault of the schedule strike. Raises Crash where it kills the agent."""
        if not self.faults:
            return None
        rng = self._rng
        match fault:
            case Fault.KILL:
                if self.is_running:
                    self._note(fault)
                    raise Crash
            case Fault.KILL_AT_WRITE:
                self.disk.crash_after = rng.randint(0, STEPS_MAX)
            case Fault.KILL_AT_SEND:
                self._kill_after_sends = rng.randint(0, SENDS_MAX)
            case Fault.DRAIN_CUT:
                self._cut_after_sends = rng.randint(0, SENDS_MAX)
            case Fault.DISK_FULL | Fault.DISK_ERROR:
                self.disk.trouble = errno.ENOSPC if fault is Fault.DISK_FULL else errno.EIO
                self._told(f"{fault.value}, from now on")
                self._call_later(self._mend_disk, DISK_TROUBLE_S)
            case Fault.ROT:
                if (where := self.disk.rot()) is not None:
                    self._note(fault, where)
            case Fault.CLOCK_FORWARD | Fault.CLOCK_BACK:
                leap_ms = int(CLOCK_MS_MAX ** rng.random())
                self._clock_ms += leap_ms if fault is Fault.CLOCK_FORWARD else -leap_ms
                self._note(fault, f"by {leap_ms} ms")
            case Fault.BROKER_WIPED:
                self._note(fault)
                self.upstream.wipe_broker()
                return self._break("the broker restarts")
            case Fault.LINK_CUT:
                if self._up:
                    self._note(fault)
                    return self._break("broken")
            case Fault.HALF_OPEN:
                if self._up:
                    self._note(fault)
                    self._half_open = True
                    link = self.link
                    if rng.random() < 0.5:  # else only the agent itself can notice
                        self._at(self.now_s + KEEPALIVE_S, lambda: self._silent(link))
            case Fault.OFFLINE:
                self._note(fault)
                self.offline = True
                self._call_later(self._online, OFFLINE_S_MAX)
                return self._break("no network")
            case Fault.GATEWAY_RESTART:
                self._note(fault)
                self.upstream.restart_gateway()
            case Fault.LAKE_STOPS:
                self._note(fault)
                self.upstream.lake_stands = True
                self._call_later(self._lake_returns, LAKE_STOPS_S_MAX)
            case _:
                raise AssertionError(f"{fault} does not strike at a moment")
        return None

    def _calm(self) -> None:
        if not self.faults:
            return
        self._told("the storm is over")
        self.faults = self.offline = False
        self._mend_disk()
        self._lake_returns()
        self.disk.crash_after = self._kill_after_sends = self._cut_after_sends = None

    def _mend_disk(self) -> None:
        if self.disk.trouble is not None and self.disk.failed:
            self._note(Fault.DISK_FULL if self.disk.trouble == errno.ENOSPC else Fault.DISK_ERROR)
        self.disk.trouble, self.disk.failed = None, 0

    def _online(self) -> None:
        self.offline = False

    def _lake_returns(self) -> None:
        self.upstream.lake_stands = False

    def _down(self) -> None:
        """Let time pass without an agent; the disk keeps what a kill or a power cut leaves."""
        if self.disk.crash_after is not None and self.disk.crash_after < 0:
            self._note(Fault.KILL_AT_WRITE)
        torn, self.disk.torn = self.disk.torn, 0
        self.struck[Fault.TORN_WRITE] += torn
        self.disk.crash_after = self._kill_after_sends = self._cut_after_sends = None
        if self.faults and self._rng.random() < 0.4:
            self._note(Fault.POWER_CUT)
            self.disk.cut_power()
        self._up = self._half_open = False
        self.link += 1
        until_s = self.now_s + self._rng.uniform(0.1, RESTART_S_MAX)
        while self._coming and self._coming[0][0] <= until_s:
            at_s, _, happen = heapq.heappop(self._coming)
            self.now_s = max(self.now_s, at_s)
            happen()  # What it says to the agent is lost.
        self.now_s = max(self.now_s, until_s)

    def _break(self, why: str) -> LinkEvent | None:
        """Break the link, if there is one."""
        if not self._up:
            return None
        self._up = self._half_open = False
        link = self.link
        self._later(lambda: LinkDown(link, why), 0.1)
        return None

    def _silent(self, link: int) -> LinkEvent | None:
        if link != self.link or not self._half_open:
            return None
        self._up = self._half_open = False
        return LinkDown(link, "no answer to a ping")

    def _of(self, link: int, event: LinkEvent) -> LinkEvent | None:
        return event if self._up and link == self.link and not self._half_open else None

    def _retained(self, link: int) -> LinkEvent | None:
        held = self.upstream.retained
        return self._of(link, AckArrived(link, held)) if held is not None else None

    def _offer(self, offered: Offered) -> None:
        if self.is_running:
            self._arrived.append(offered)

    def _tell(self, document: bytes) -> None:
        link = self.link
        self._later(lambda: self._of(link, AckArrived(link, document)), 0.1)

    def _strikes(self, fault: Fault) -> bool:
        """Say whether a fault strikes a message, and count it."""
        if not self.faults or self._rng.random() >= self.schedule.chances.get(fault, 0.0):
            return False
        self._note(fault)
        return True

    def _note(self, fault: Fault, detail: str = "") -> None:
        self.struck[fault] += 1
        self._told(f"{fault.value} {detail}".strip())

    def _told(self, what: str) -> None:
        self.story.append((self.now_s, what))

    def _status(self, report: Report) -> None:
        if self.now_s > self.schedule.storm_s + CONVERGE_S_MAX:
            raise DivergedError(f"{CONVERGE_S_MAX:.0f} s after the storm: {report}")
        if self.app is None:
            return
        if not report.drained or not self.app.is_done:
            self._drained_s = None
        elif self._drained_s is None:
            self._drained_s = self.now_s
        elif self.now_s - self._drained_s > QUIET_S:
            self._agent.stop()

    def _call_later(self, happen: Callable[[], None], most_s: float) -> None:
        self._at(self.now_s + self._rng.random() * most_s, happen)

    def _at(self, when_s: float, happen: Callable[[], LinkEvent | None]) -> None:
        self._order += 1
        heapq.heappush(self._coming, (when_s, self._order, happen))
