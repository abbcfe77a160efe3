"""Clean ends, whatever the link is doing."""

from signal import Signals
from typing import Final

from tests.delivery.case import Case, reached, scenario
from tests.delivery.process import family, is_gone
from tests.delivery.site import Site, begin

END_S: Final = 10.0  # s; what a service manager gives before it kills, by default, is nine times as long


@scenario("D-210", "D-213", "D-214", "D-215", "D-216", "D-217")
def ends_while_connected(site: Site, case: Case) -> None:
    """SIGTERM, SIGINT, and kill -9, each with events on the way."""
    begin(site, case, 20)
    said = [site.agent.says_online(entry) for entry in list(site.presence)]
    processes = family(site.agent.pid)
    site.offer(20, 40)
    code = site.stop(END_S)
    case.check("D-210", code == 0, f"exit code {code}")
    case.until("D-215", lambda: bool(site.presence) and not _online(site), lambda: f"{said} {site.presence}", 10)
    case.check("D-217", reached(lambda: all(map(is_gone, processes)), 5), "processes are left")
    site.agent.start()
    site.accept(case, 40, 60)
    site.agent.signal(Signals.SIGINT)
    code = site.agent.wait(END_S)
    case.check("D-213", code == 0, f"exit code {code}")
    site.agent.forget_accepted()
    site.agent.start()
    case.until("D-214", lambda: site.has(0, 60), site.absent(0, 60))
    case.need(lambda: not site.presence or _online(site), "it says that it is there")
    site.kill()
    case.until("D-216", lambda: bool(site.presence) and not _online(site), lambda: str(site.presence), 10)


@scenario("D-211", "D-212")
def ends_without_a_link(site: Site, case: Case) -> None:
    """SIGTERM on a link that died in silence, and without an upstream."""
    begin(site, case, 20)
    site.proxy.swallow()
    site.offer(20, 40)
    case.need(site.is_accepted, "everything is accepted")
    code = site.stop(END_S)
    case.check("D-212", code == 0, f"exit code {code}")
    if code is None:
        site.kill()
    site.proxy.hang_up()
    seen = len(site.proxy.attempts_s)
    site.agent.start()
    case.need(lambda: len(site.proxy.attempts_s) > seen, "it tries to connect")
    code = site.stop(END_S)
    case.check("D-211", code == 0, f"exit code {code}")


@scenario("D-218", "D-219", "D-221")
def ends_when_drained(site: Site, case: Case) -> None:
    """It is told to end when everything is receipted; first nothing is."""
    site.place.drains = True
    site.answers = False
    site.offer(0, 100)
    site.agent.start()
    case.need(lambda: site.has(0, 100), "the events arrive")
    case.check("D-218", site.agent.wait(3) is None, "it ended without a receipt")
    site.answers = True
    site.send_receipt()
    code = site.agent.wait(30)
    case.check("D-218", code == 0, f"exit code {code}")
    case.check("D-221", lambda: site.agent.status().backlog == 0, site.agent.status())
    site.place.device = "device-2"  # from here on the broker does not allow it
    site.agent.forget_everything()
    site.agent.start()
    code = site.agent.wait(15)
    case.check("D-219", code != 0, f"exit code {code}")


def _online(site: Site) -> bool:
    return site.agent.says_online(site.presence[-1])
