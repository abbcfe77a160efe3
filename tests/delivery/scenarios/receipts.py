"""Receipts of the lake: what they free, what they do not, and what happens without them."""

from functools import partial

from tests.delivery.agent import Receipt
from tests.delivery.case import Case, observe, scenario
from tests.delivery.site import Site, begin, lose


@scenario("D-080", "D-081", "D-221")
def receipts_are_what_the_backlog_waits_for(site: Site, case: Case) -> None:
    """Events are at the lake without a receipt, then with one."""
    begin(site, case, 50)
    case.until("D-221", lambda: site.agent.status().backlog == 0, lambda: str(site.agent.status()))
    site.answers = False
    site.deliver(case, 50, 100)
    case.need(lambda: bool(site.agent.status().backlog), "the events wait for a receipt")
    observe(2.5)  # two of its status intervals
    case.check("D-081", lambda: bool(site.agent.status().backlog), site.agent.status())
    site.answers = True
    site.send_receipt()
    case.until("D-080", lambda: site.agent.status().backlog == 0, lambda: str(site.agent.status()))
    case.check("D-221", lambda: site.agent.status().backlog == 0, site.agent.status())


@scenario("D-083", "D-084", "D-085", "D-086", "D-087", slow=True)
def receipts_that_are_not_for_these_events(site: Site, case: Case) -> None:
    """The lake loses events that the broker has taken; a receipt for something else comes; they must come again."""
    begin(site, case, 10)
    end = 10
    for kind, name in (
        (Receipt.OLDER_EPOCH, "D-083"),
        (Receipt.OTHER_STREAM, "D-087"),
        (Receipt.NEWER_EPOCH, "D-084"),
        (Receipt.OTHER_DEVICE, "D-086"),
    ):
        lose(site, case, end, end + 10)
        end += 10
        site.send_receipt(kind)
        observe(1.5)
        site.deaf = False
        site.reconnect(case)
        case.until(name, partial(site.has, 0, end), site.absent(0, end))
        if kind is Receipt.NEWER_EPOCH:
            said = site.agent.log() + (site.agent.status().last_error or "")
            case.check("D-085", "epoch" in said, site.agent.status())


@scenario("D-088", "D-089", "D-090", "D-091")
def receipts_in_parts_repeated_and_broken(site: Site, case: Case) -> None:
    """A receipt of a part, then of all, a hundred times, the first one again, and one that is no document."""
    begin(site, case, 10)
    site.answers = False
    for first in range(10, 60, 10):
        site.deliver(case, first, first + 10)
    case.need(lambda: (site.agent.status().backlog or 0) >= 2, "batches wait for a receipt")
    before = site.agent.status().backlog or 0
    site.send_receipt(Receipt.HALF)
    case.until("D-088", lambda: 0 < (site.agent.status().backlog or 0) < before, lambda: str(site.agent.status()), 10)
    for _ in range(100):
        site.send_receipt()
    case.until("D-089", lambda: site.agent.status().backlog == 0, lambda: str(site.agent.status()), 10)
    site.answers = True  # what the agent has to say by itself meanwhile, its ledger, is receipted too
    packets = site.agent.landing.packets()
    site.send_receipt(Receipt.HALF)
    observe(2.5)
    case.until("D-090", lambda: site.agent.status().backlog == 0, lambda: str(site.agent.status()), 10)
    case.check("D-090", site.agent.landing.packets() == packets, "events were sent again")
    site.send_receipt(Receipt.GARBAGE)
    case.until("D-091", lambda: bool(site.agent.status().last_error), lambda: str(site.agent.status()), 10)
    site.deliver(case, 60, 80)
    case.until("D-089", lambda: site.has(0, 80), site.absent(0, 80))
    case.check("D-091", site.agent.wait(0) is None, "it has ended")


@scenario("D-092")
def receipt_for_numbers_never_sent(site: Site, case: Case) -> None:
    """A lake that is in error receipts numbers that do not exist yet; the first events under them get lost."""
    begin(site, case, 20)
    site.answers = False
    site.send_receipt(Receipt.BEYOND)
    case.need(lambda: site.agent.status().backlog == 0, "the receipt is heard")
    lose(site, case, 20, 60)
    site.deaf = False
    site.reconnect(case)
    case.until("D-092", lambda: site.has(0, 60), site.absent(0, 60))


@scenario("D-094", "D-106")
def receipted_while_off(site: Site, case: Case) -> None:
    """Events are receipted while the agent is off; when it starts it has nothing to send."""
    begin(site, case, 10)
    site.answers = False
    site.deliver(case, 10, 60)
    site.kill()
    site.send_receipt()
    packets = site.agent.landing.packets()
    site.agent.start()
    case.need(lambda: site.agent.status().backlog == 0, "the backlog is settled by the receipt")
    observe(3)
    case.check("D-094", site.agent.landing.packets() == packets, f"{site.agent.landing.packets() - packets} packets")
    site.answers = True
    site.send_receipt()
    case.need(lambda: site.agent.status().backlog == 0, "everything is receipted")
    site.stop()
    packets = site.agent.landing.packets()
    seen = len(site.proxy.attempts_s)
    site.agent.start()
    case.need(lambda: len(site.proxy.attempts_s) > seen, "it connects")
    observe(3)
    case.check("D-106", site.agent.landing.packets() == packets, f"{site.agent.landing.packets() - packets} packets")
