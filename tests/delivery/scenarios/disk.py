"""A disk that is full or read-only for a while, and how much is written to it."""

import random
import string
import time
from functools import partial
from typing import Final

from tests.delivery.agent import Receipt
from tests.delivery.case import Case, observe, scenario
from tests.delivery.events import bulky, event
from tests.delivery.process import can_trace, written_bytes
from tests.delivery.site import Site, begin

WORDS: Final = ("space", "disk", "full", "written", "errno 28", "write", "read-only")
# It follows from aside (-D), so that signals and exit code are the agent's, and writes when each call began (-ttt).
TRACER: Final = ("strace", "-D", "-f", "-qq", "-ttt", "-e", "trace=fsync,fdatasync,msync", "-e", "signal=none", "-o")
TEXT: Final = "".join(set(string.printable[:94]) - {'"', "\\"})


@scenario("D-130", "D-131", "D-132", "D-133", "D-134", small_disk=True)
def disk_is_full_for_a_while(site: Site, case: Case) -> None:
    """It fills while an earlier run's events still wait; their receipt arrives; then there is room again."""
    assert site.disk is not None
    site.answers = False
    begin(site, case, 10)
    site.kill()
    site.agent.start()
    site.deliver(case, 10, 20)
    log = len(site.agent.log())
    site.disk.fill()
    accepted = site.agent.accepted()
    site.offer_lines(bulky(20, 32))
    observe(3)
    case.check("D-131", site.agent.accepted() == accepted, f"{site.agent.accepted()} accepted, {accepted} before")
    case.until("D-132", lambda: _says_full(site, log), lambda: str(site.agent.status()), 10)
    site.send_receipt(Receipt.OWN)
    observe(2)
    case.check("D-130", site.agent.wait(0) is None, "it has ended")
    site.disk.free()
    site.answers = True
    case.until("D-133", lambda: site.has(0, 32), site.absent(0, 32))
    if site.agent.wait(0) is not None:
        site.agent.start()
    case.until("D-134", lambda: site.has(0, 32), site.absent(0, 32))


@scenario("D-135", small_disk=True)
def started_on_a_full_disk(site: Site, case: Case) -> None:
    """It is killed while the disk is full, and started on it."""
    assert site.disk is not None
    begin(site, case, 10)
    site.proxy.hang_up()
    site.accept(case, 10, 60)
    site.disk.fill()
    site.offer_lines(bulky(60, 66))
    observe(2)
    site.kill()
    site.agent.forget_accepted()
    site.agent.start()
    observe(2)
    site.disk.free()
    site.proxy.flow()
    if site.agent.wait(0) is not None:
        site.agent.start()
    case.until("D-135", lambda: site.has(0, 66), site.absent(0, 66))


@scenario("D-136", "D-137", small_disk=True)
def disk_is_read_only_for_a_while(site: Site, case: Case) -> None:
    """The file system turns read-only, as it does when the medium fails, and comes back."""
    assert site.disk is not None
    begin(site, case, 10)
    site.disk.make_read_only(True)
    site.offer(10, 40)
    observe(3)
    case.check("D-136", site.agent.wait(0) is None, "it has ended")
    site.disk.make_read_only(False)
    if site.agent.wait(0) is not None:
        site.agent.start()
    case.until("D-137", lambda: site.has(0, 40), site.absent(0, 40))


@scenario("D-138")
def bytes_written_online(site: Site, case: Case) -> None:
    """Events that do not compress flow online, each receipted."""
    rng = random.Random(7)
    lines = [event(number, "".join(rng.choices(TEXT, k=30_000))) for number in range(10, 50)]
    begin(site, case, 10)
    before = written_bytes(site.agent.pid)
    for at in range(0, 40, 4):
        site.offer_lines(lines[at : at + 4])
        case.need(partial(site.has, 0, 14 + at), "events arrive")
    written = written_bytes(site.agent.pid) - before
    size = sum(map(len, lines))
    if not written:
        case.skip("D-138", "the file system does not count what is written to it")
        return
    case.check("D-138", written <= 1.5 * size, f"{written} bytes written for {size} bytes of events")


@scenario("D-008")
def synced_before_it_is_acknowledged(site: Site, case: Case) -> None:
    """Single events are offered under a tracer: a power cut after the acknowledgement must find them on the disk."""
    if not can_trace():
        case.skip("D-008", "no process can be traced here: strace is missing or not allowed")
        return
    trace = site.folder / "trace"
    site.place.enter = (*TRACER, str(trace))
    begin(site, case, 1)
    spans = []
    for number in range(1, 6):
        begun_s = time.time()
        site.accept(case, number, number + 1)
        spans.append((begun_s, time.time()))
    site.stop()
    synced_s = [float(line.split()[1]) for line in trace.read_text().splitlines() if "sync(" in line]
    bare = sum(not any(begun <= at <= acknowledged for at in synced_s) for begun, acknowledged in spans)
    case.check("D-008", bare == 0, f"{bare} of {len(spans)} events were acknowledged without a sync")


def _says_full(site: Site, log_chars: int) -> bool:
    said = (site.agent.log()[log_chars:] + (site.agent.status().last_error or "")).lower()
    return any(word in said for word in WORDS)
