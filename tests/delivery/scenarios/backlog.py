"""Quiet times, last events, and what they cost."""

from typing import Final

from tests.delivery.case import Case, observe, scenario
from tests.delivery.process import cpu_s, open_listeners, open_things, pss_mb
from tests.delivery.site import Site, begin

LEFT_MAX: Final = 15  # files or threads; one left by each reconnect would be 20 before the last ten


@scenario("D-007", "D-152", "D-153", "D-227", "D-228", "D-229", "D-203", "D-187", slow=True)
def a_quiet_agent(site: Site, case: Case) -> None:
    """Single events with long pauses between them; then it has to connect again and again."""
    begin(site, case, 1)
    site.offer(1, 2)
    case.until("D-007", lambda: site.agent.accepted() == 2, lambda: f"{site.agent.accepted()} accepted", 5)
    case.until("D-152", lambda: site.has(1, 2), "the last event waits for the next", 10)
    used = cpu_s(site.agent.pid)
    observe(25)
    used = cpu_s(site.agent.pid) - used
    case.check("D-228", used < 2.5, f"{used:.1f} s of processor time in 25 s")
    told = sum(entry.count for entry in site.agent.landing.accounts())
    case.check("D-187", told == 2, f"the lake was told of {told} events after 25 s")
    site.offer(2, 3)
    case.until("D-153", lambda: site.has(2, 3), site.absent(2, 3), 10)
    case.check("D-203", lambda: not open_listeners(site.agent.pid), lambda: open_listeners(site.agent.pid))
    before = open_things(site.agent.pid)
    during = []
    for number in range(3, 33):
        site.reconnect(case)
        site.deliver(case, number, number + 1)
        during.append(open_things(site.agent.pid))
    # An agent may tidy up now and then; what it never tidies up is there after the last reconnects too.
    files, threads = (min(entry[place] for entry in during[-10:]) - before[place] for place in (0, 1))
    case.check("D-229", max(files, threads) < LEFT_MAX, f"{files} files and {threads} threads more after 30 reconnects")
    memory = pss_mb(site.agent.pid)
    case.check("D-227", memory < 128, f"{memory:.0f} MB")
