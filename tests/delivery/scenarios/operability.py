"""What an operator is told."""

import json
from typing import Final

from tests.delivery.case import Case, scenario
from tests.delivery.site import Site, begin

READS: Final = 200  # between two looks at whether it has changed often enough


@scenario("D-224")
def status_is_always_whole(site: Site, case: Case) -> None:
    """The status is read as fast as possible while it is replaced."""
    begin(site, case, 10)
    seen: set[bytes] = set()
    end = 10

    def read_while_it_changes() -> bool:
        nonlocal end
        site.offer(end, end + 1)
        end += 1
        for _ in range(READS):
            text = site.agent.status_text()
            if text is not None:
                json.loads(text)
                seen.add(text)
        return len(seen) >= 5

    case.until("D-224", read_while_it_changes, lambda: f"{len(seen)} versions read")


@scenario("D-225")
def configuration_cannot_be_followed(site: Site, case: Case) -> None:
    """The port of its upstream is a word."""
    site.place.fault = "not-a-port"
    site.offer(0, 10)
    site.agent.start()
    code = site.agent.wait(15)
    case.check("D-225", code not in (0, None), f"exit code {code}")
    case.check("D-225", "port" in site.agent.log(), site.agent.log()[-300:])


@scenario("D-015", "D-012")
def spool_is_made_anew(site: Site, case: Case) -> None:
    """The device is set up anew under its old name."""
    begin(site, case, 20)
    epoch = site.agent.landing.epoch() or 0
    site.stop()
    site.agent.forget_everything()
    site.agent.start()
    site.offer(20, 40)
    case.until("D-015", lambda: _epoch_of(site, 20) > epoch, lambda: f"epoch {_epoch_of(site, 20)} after {epoch}")
    case.check("D-012", not site.agent.landing.faults, site.agent.landing.faults[:3])


def _epoch_of(site: Site, number: int) -> int:
    found = [e.identity[0] for e in site.agent.landing.events() if e.number == number and e.identity is not None]
    return max(found, default=0)
