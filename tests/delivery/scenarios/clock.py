"""A clock that somebody sets. Certificates are checked by the system's own clock, which stays."""

import time
from typing import Final

from tests.delivery.case import Case, scenario
from tests.delivery.site import Site, begin

DAY_S: Final = 86_400
TEN_YEARS_S: Final = 3_650 * DAY_S


@scenario("D-140", "D-141")
def clock_is_set_while_it_runs(site: Site, case: Case) -> None:
    """Back by a day, forward by ten years, under a flow of events."""
    site.agent.move_clock(0)
    begin(site, case, 20)
    site.agent.move_clock(-DAY_S)
    site.offer(20, 60)
    case.until("D-140", lambda: site.has(0, 60), site.absent(0, 60))
    site.agent.move_clock(TEN_YEARS_S)
    site.offer(60, 100)
    case.until("D-141", lambda: site.has(0, 100), site.absent(0, 100))


@scenario("D-142", "D-143")
def clock_is_set_back_between_starts(site: Site, case: Case) -> None:
    """It starts again a day earlier; then its spool is made anew, a day earlier still."""
    site.agent.move_clock(0)
    begin(site, case, 20)
    epoch = site.agent.landing.epoch() or 0
    site.stop()
    site.agent.move_clock(-DAY_S)
    site.agent.start()
    site.deliver(case, 20, 40)
    seqs = [e.identity[1] for e in site.agent.landing.events() if e.identity is not None and e.identity[0] == epoch]
    case.check("D-142", sorted(seqs) == list(range(40)), f"{len(seqs)} numbers in the first epoch")
    site.stop()
    site.agent.move_clock(-2 * DAY_S)
    site.agent.forget_everything()
    site.agent.start()
    site.offer(40, 60)

    def later_epochs() -> set[int]:
        return {e.identity[0] for e in site.agent.landing.events() if e.identity is not None and e.number >= 40}

    case.need(lambda: bool(later_epochs()), "events of the new spool arrive")
    case.check("D-143", lambda: min(later_epochs()) > epoch, f"epoch {later_epochs()} after {epoch}")


@scenario("D-144")
def clock_was_never_set(site: Site, case: Case) -> None:
    """The device has no battery for its clock: it starts in 1970."""
    site.agent.move_clock(60 - int(time.time()))
    site.offer(0, 40)
    site.agent.start()
    case.until("D-144", lambda: site.has(0, 40), site.absent(0, 40))
