"""A link that is away, breaks, dies in silence or crawls; a broker that forgets."""

from itertools import pairwise
from typing import Final

from tests.delivery.agent import Receipt
from tests.delivery.case import Case, Upstream, observe, scenario
from tests.delivery.events import bulky
from tests.delivery.site import Site, begin, lose

SILENCE_S: Final = 60.0  # s; the longest that a dead link may go unnoticed
WINDOW_MAX: Final = 100  # publishes; more than any sound agent has open, far fewer than the events that wait


@scenario(
    "D-003", "D-004", "D-020", "D-021", "D-030", "D-031", "D-035", "D-039", "D-040", "D-220", "D-222", "D-223",
    "D-226", opened=False,
)  # fmt: skip
def upstream_comes_late(site: Site, case: Case) -> None:
    """It starts without an upstream; that first hangs up, then takes connections and says nothing, then works."""
    site.proxy.hang_up()
    site.offer(0, 300)
    site.agent.start()
    case.until("D-003", site.is_accepted, lambda: f"{site.agent.accepted()} of 300 accepted")
    case.need(lambda: len(site.proxy.attempts_s) >= 2, "the agent tries to connect")
    observe(10)
    attempts = list(site.proxy.attempts_s)
    early = sum(at < attempts[0] + 10 for at in attempts)
    case.check("D-039", early <= 20, f"{early} attempts in 10 s")
    pauses = [later - at for at, later in pairwise(attempts)]
    case.check("D-040", len(pauses) > 1 and max(pauses) > 1.5 * pauses[0], f"pauses {[round(p, 1) for p in pauses]}")
    status = site.agent.status
    case.until("D-220", lambda: (status().backlog or 0) > 0, lambda: str(status()), 5)
    case.until("D-222", lambda: status().link_up is False, lambda: str(status()), 5)
    case.check("D-223", lambda: f"{site.place.port}" in (status().last_error or ""), status())
    lines = len(site.agent.log().splitlines())
    case.check("D-226", lines < 100, f"{lines} lines")
    site.proxy.swallow()
    seen = len(site.proxy.attempts_s)
    case.need(lambda: len(site.proxy.attempts_s) > seen, "it tries the upstream that says nothing")
    site.offer(300, 310)
    case.until("D-004", site.is_accepted, lambda: f"{site.agent.accepted()} of 310 accepted")
    seen = len(site.proxy.attempts_s)
    case.until("D-035", lambda: len(site.proxy.attempts_s) > seen, "it hangs on a connection that says nothing")
    site.open()
    site.proxy.flow()
    case.until("D-031", lambda: site.has(0, 1), site.absent(0, 1), 35)
    case.until("D-030", lambda: site.has(0, 310), site.absent(0, 310))
    waited = [number for number in site.numbers() if number < 300]
    case.check("D-021", waited == sorted(waited), "out of order")
    case.until("D-222", lambda: status().link_up is True, lambda: str(status()), 5)
    for first in range(310, 360, 10):
        site.deliver(case, first, first + 10)
    live = [number for number in site.numbers() if number >= 310]
    case.check("D-020", live == sorted(live), "out of order")


@scenario("D-032", "D-033", "D-034", "D-018", "D-041")
def link_breaks(site: Site, case: Case) -> None:
    """Connections are reset, between packets and inside one, then the link flaps."""
    begin(site, case, 100)
    for first in range(100, 200, 20):
        site.deliver(case, first, first + 20)
    case.check("D-041", lambda: site.agent.landing.repeats() == 0, f"{site.agent.landing.repeats()} repeats")
    site.offer(200, 300)
    site.proxy.cut()
    case.until("D-032", lambda: site.has(0, 300), site.absent(0, 300))
    site.proxy.cut_after(60_000)
    site.offer_lines(bulky(300, 312))
    case.need(site.proxy.has_cut, "the connection is cut inside a packet")
    case.until("D-033", lambda: site.has(0, 312), site.absent(0, 312))
    end = 312
    for _ in range(5):
        site.offer(end, end + 50)
        end += 50
        site.reconnect(case)
    case.until("D-034", lambda: site.has(0, end), site.absent(0, end))
    site.each_once(case, "D-018", end)


@scenario("D-036", "D-037", "D-004", slow=True)
def link_dies_in_silence(site: Site, case: Case) -> None:
    """An established connection moves nothing any more; new ones would work."""
    begin(site, case, 50)
    seen = len(site.proxy.attempts_s)
    site.proxy.stall()
    site.offer(50, 100)
    case.until("D-004", site.is_accepted, lambda: f"{site.agent.accepted()} of 100 accepted", 15)
    case.until("D-036", lambda: len(site.proxy.attempts_s) > seen, "it has not connected again", SILENCE_S)
    case.until("D-037", lambda: site.has(0, 100), site.absent(0, 100))


@scenario("D-038", "D-045", "D-018", slow=True)
def slow_link_is_cut_while_a_backlog_drains(site: Site, case: Case) -> None:
    """A quarter of a second each way, and a cut in the middle of the drain."""
    site.proxy.hang_up()
    site.offer_lines(bulky(0, 40))
    site.agent.start()
    case.need(site.is_accepted, "the backlog is accepted")
    site.proxy.delay_s = 0.05
    site.proxy.flow()
    case.need(lambda: len(site.numbers()) >= 5, "the drain has begun")
    site.proxy.cut()
    case.until("D-045", lambda: site.has(0, 40), site.absent(0, 40), 90)
    site.proxy.delay_s = 0.25
    site.offer(40, 60)
    case.until("D-038", lambda: site.has(0, 60), site.absent(0, 60))
    site.each_once(case, "D-018", 60)


@scenario("D-042", "D-043", "D-044", "D-046", upstream=Upstream.SCRIPTED)
def broker_owes_its_answers(site: Site, case: Case) -> None:
    """The broker allows five open publishes and answers none; then none are limited; it never knows a session."""
    broker = site.scripted
    broker.receive_maximum = 5
    broker.answer = lambda publish: None if publish.packet is not None else 0
    site.offer_lines(bulky(0, 30))
    site.agent.start()
    case.need(lambda: len(broker.batches()) >= 1, "it publishes")
    case.need(site.is_accepted, "everything is accepted")
    observe(3)
    case.check("D-042", broker.unanswered_max <= 5, f"{broker.unanswered_max} open")
    broker.receive_maximum = None
    broker.unanswered_max = 0
    site.proxy.cut()
    case.need(lambda: broker.unanswered_max >= 6, "it publishes as much as it may", 30)
    observe(3)
    case.check("D-043", broker.unanswered_max <= WINDOW_MAX, f"{broker.unanswered_max} open")
    broker.answer = lambda _publish: 0
    broker.settle()
    case.until("D-044", lambda: site.has(0, 30), site.absent(0, 30))
    site.offer(30, 60)
    site.proxy.cut()
    case.until("D-046", lambda: site.has(0, 60), site.absent(0, 60))


@scenario("D-070", "D-073", "D-074", "D-093", "D-081")
def broker_loses_its_disk(site: Site, case: Case) -> None:
    """The broker dies with events on it that no lake has seen; then broker and agent die together."""
    begin(site, case, 50)
    lose(site, case, 50, 100)
    case.until("D-081", lambda: (site.agent.status().backlog or 0) > 0, lambda: str(site.agent.status()), 5)
    site.mosquitto.kill()
    site.deaf = False
    site.mosquitto.start()
    site.offer(100, 101)
    case.until("D-073", lambda: site.has(100, 101), "the next event does not arrive")
    case.until("D-070", lambda: site.has(0, 100), site.absent(0, 100), 75)
    lose(site, case, 101, 150)
    site.kill()
    site.mosquitto.kill()
    site.agent.forget_accepted()
    site.deaf = False
    site.mosquitto.start()
    site.agent.start()
    case.until("D-074", lambda: site.has(0, 150), site.absent(0, 150), 75)
    case.need(lambda: site.agent.status().backlog in (0, None), "the backlog is receipted", 20)
    site.answers = False
    site.offer(150, 160)
    case.need(lambda: site.has(150, 160), "the events without a receipt arrive")
    case.need(lambda: site.is_accounted(160), "what the agent says of them arrives")
    site.proxy.hang_up()
    case.need(lambda: site.agent.status().link_up in (False, None), "the link is down")
    site.send_receipt(Receipt.OWN)
    seen = site.agent.landing.packets()
    site.proxy.flow()
    case.until("D-093", lambda: site.agent.status().backlog == 0, lambda: str(site.agent.status()))
    case.check("D-093", lambda: site.agent.landing.packets() == seen, "receipted events were sent again")


@scenario("D-071", broker_options="max_queued_messages 3", slow=True)
def broker_acknowledges_and_drops(site: Site, case: Case) -> None:
    """The consumer's queue at the broker is full while it is away: the broker says PUBACK and drops."""
    site.consumer_leaves()
    site.consumer_comes(session=True)
    begin(site, case, 1)
    site.consumer_leaves()
    site.offer_lines(bulky(1, 40))
    case.need(site.is_accepted, "everything is accepted")
    case.need(lambda: site.proxy.bytes_up > 700_000, "the broker takes what it drops")
    site.consumer_comes(session=True)
    case.until("D-071", lambda: site.has(0, 40), site.absent(0, 40), 90)


@scenario("D-072", "D-082", "D-016", slow=True)
def consumer_loses_what_it_took(site: Site, case: Case) -> None:
    """The consumer takes events from the broker and dies before it has stored them."""
    begin(site, case, 10)
    site.deaf = True
    site.offer(10, 60)
    case.need(site.is_accepted, "everything is accepted")
    observe(3)
    site.deaf = False
    case.until("D-072", lambda: site.has(0, 60), site.absent(0, 60), 75)
    site.answers = False
    site.offer(60, 70)
    case.need(lambda: site.has(60, 70), "the events without a receipt arrive")
    repeats = site.agent.landing.repeats()
    case.until("D-082", lambda: site.agent.landing.repeats() > repeats, "it was not sent again", 75)
    case.check("D-016", not site.agent.landing.faults, site.agent.landing.faults[:3])
