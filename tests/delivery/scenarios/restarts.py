"""Kills, clean ends and starts, at every moment, with and without an upstream."""

import random
from signal import Signals
from typing import Final

from tests.delivery.case import Case, observe, scenario
from tests.delivery.process import end_process, pss_mb
from tests.delivery.site import Site, begin

SEED: Final = 20_260
START_S: Final = 10.0  # s; from start to first publish over a backlog of 20,000 events
BACKLOG: Final = 20_000  # events


@scenario("D-001", "D-006", "D-014", "D-011")
def killed_right_after_an_acknowledgement(site: Site, case: Case) -> None:
    """kill -9 right after the acknowledgement, offline; the producer has forgotten what was acknowledged."""
    begin(site, case, 10)
    epoch = site.agent.landing.epoch()
    site.proxy.hang_up()
    accepted = site.agent.accepted()
    for first in range(10, 60, 10):
        site.accept(case, first, first + 10)
        site.kill()
        now = site.agent.accepted()
        case.check("D-006", now >= accepted, f"{now} after {accepted}")
        accepted = now
        site.agent.forget_accepted()
        site.agent.start()
    site.proxy.flow()
    case.until("D-001", lambda: site.has(0, 60), site.absent(0, 60))
    case.check("D-014", lambda: site.agent.landing.epoch() == epoch, f"epoch {site.agent.landing.epoch()}")
    case.check("D-011", lambda: _numbered(site, 60), _identities(site))


@scenario("D-002", "D-103", "D-120", opened=False)
def killed_before_there_was_an_upstream(site: Site, case: Case) -> None:
    """Everything is accepted and killed offline, twice; then the upstream comes."""
    site.proxy.hang_up()
    site.offer(0, 100)
    site.agent.start()
    case.need(site.is_accepted, "everything is accepted")
    site.kill()
    site.agent.forget_accepted()
    site.agent.start()
    site.accept(case, 100, 120)
    site.kill()
    site.agent.forget_accepted()
    site.open()
    site.proxy.flow()
    site.agent.start()
    case.until("D-002", lambda: site.has(0, 120), site.absent(0, 120))
    case.until("D-103", lambda: site.has(0, 120), site.absent(0, 120), 1)
    site.stop()
    files = site.agent.durable_files()
    for path in files[:-1]:
        path.unlink()
    if len(files) == 1:
        files[0].write_bytes(b"")
    log = len(site.agent.log())
    site.agent.start()
    site.offer(120, 130)
    case.until("D-120", lambda: _complains(site, log), "nothing is said", 15)


@scenario("D-100", "D-005", "D-018", "D-012", "D-184", slow=True)
def killed_ten_times(site: Site, case: Case) -> None:
    """kill -9 at random moments of a flow, receipts and cuts among it."""
    rng = random.Random(SEED)
    begin(site, case, 50)
    end = 50
    for _ in range(10):
        site.offer(end, end + 100)
        end += 100
        observe(rng.uniform(0.05, 1.2))
        site.kill()
        site.agent.forget_accepted()
        site.agent.start()
    case.until("D-100", lambda: site.has(0, end), site.absent(0, end))
    case.until("D-005", lambda: site.has(0, end), site.absent(0, end), 1)
    site.each_once(case, "D-018", end)
    site.each_once(case, "D-012", end)
    case.until("D-184", lambda: sum(a.count for a in site.agent.landing.accounts()) == end, lambda: _told(site), 30)


@scenario("D-101", "D-102", "D-104", "D-013", "D-214", "D-210")
def killed_while_it_starts_and_ends(site: Site, case: Case) -> None:
    """kill -9 in the first half second of a start and in a clean end; five clean restarts."""
    begin(site, case, 50)
    epoch = site.agent.landing.epoch()
    case.check("D-210", site.stop(10) == 0, "not ended with 0 within 10 s")
    end = 50
    for pause_s in (0.0, 0.2, 0.35, 0.5):
        site.offer(end, end + 10)
        end += 10
        site.agent.start()
        observe(pause_s)
        site.kill()
    site.agent.start()
    case.until("D-101", lambda: site.has(0, end), site.absent(0, end))
    site.offer(end, end + 50)
    end += 50
    site.agent.signal(Signals.SIGTERM)
    site.kill()
    site.agent.start()
    case.until("D-102", lambda: site.has(0, end), site.absent(0, end))
    for _ in range(5):
        site.accept(case, end, end + 20)
        end += 20
        site.stop()
        site.agent.forget_accepted()
        site.agent.start()
    case.until("D-104", lambda: site.has(0, end), site.absent(0, end))
    case.until("D-214", lambda: site.has(0, end), site.absent(0, end), 1)
    case.check("D-013", lambda: site.agent.landing.epoch() == epoch, f"epoch {site.agent.landing.epoch()}")


@scenario("D-105")
def started_twice(site: Site, case: Case) -> None:
    """While one runs offline a second is started over the same spool; now one is slow, now it is gone."""
    begin(site, case, 50)
    site.proxy.hang_up()
    first = site.agent.pid
    site.agent.start()
    observe(2)
    refused = site.agent.wait(0) is not None
    if not refused:
        site.agent.signal(Signals.SIGSTOP)
    for number in range(50, 60):
        site.offer(number, number + 1)
        observe(0.25)
    if not refused:
        site.agent.signal(Signals.SIGCONT)
    site.offer(60, 100)
    case.need(site.is_accepted, "everything is accepted")
    end_process(first)
    if refused:
        site.agent.start()
    site.accept(case, 100, 120)
    site.kill()
    site.agent.forget_accepted()
    site.proxy.flow()
    site.agent.start()
    case.until("D-105", lambda: site.has(0, 120), site.absent(0, 120), 75)
    case.check("D-105", not site.agent.landing.faults, site.agent.landing.faults[:3])


@scenario("D-150", "D-151", "D-107", "D-045", "D-017", opened=False, slow=True)
def twenty_thousand_wait(site: Site, case: Case) -> None:
    """A backlog of 20,000 events, a restart over it, a cut in its drain."""
    site.proxy.hang_up()
    site.offer(0, 10)
    site.agent.start()
    case.need(site.is_accepted, "the first events are accepted")
    small = pss_mb(site.agent.pid)
    site.offer(10, BACKLOG)
    case.need(site.is_accepted, "the backlog is accepted", 90)
    site.stop()
    site.agent.forget_accepted()
    site.open()
    site.proxy.flow()
    site.agent.start()
    case.until("D-107", lambda: site.heard > 0, "nothing is published", START_S)
    case.need(lambda: site.heard > 0, "the first publish")
    grown = pss_mb(site.agent.pid) - small
    case.check("D-151", grown < 32, f"{grown:.0f} MB more")
    site.proxy.cut()
    case.until("D-150", lambda: site.has(0, BACKLOG), site.absent(0, BACKLOG), 120)
    case.until("D-045", lambda: site.has(0, BACKLOG), site.absent(0, BACKLOG), 1)
    found = sorted(site.agent.landing.events(), key=lambda landed: landed.identity or (0, 0))
    case.check("D-017", lambda: [entry.number for entry in found] == list(range(BACKLOG)), "numbers in another order")


def _numbered(site: Site, end: int) -> bool:
    return sorted(i[1] for i in _identities(site)) == list(range(end))


def _identities(site: Site) -> list[tuple[int, int]]:
    return [landed.identity for landed in site.agent.landing.events() if landed.identity is not None]


def _told(site: Site) -> str:
    return f"the lake was told of {sum(a.count for a in site.agent.landing.accounts())} events"


def _complains(site: Site, log_chars: int) -> bool:
    said = site.agent.log()[log_chars:] + (site.agent.status().last_error or "")
    words = ("error", "missing", "lost", "rotted", "corrupt", "truncated", "cannot", "unable", "no spool.json")
    return any(word in said.lower() for word in words)
