"""A broker that says no: to a message, to its size, to the connection."""

from typing import Final

from tests.delivery.case import Case, Upstream, observe, scenario
from tests.delivery.events import event, events
from tests.delivery.scripted_broker import Publish
from tests.delivery.site import Site, begin

NO_SUBSCRIBERS: Final = 0x10
UNSPECIFIED: Final = 0x80
TROUBLE: Final = 0x83
NOT_AUTHORISED: Final = 0x87
UNAVAILABLE: Final = 0x88
QUOTA: Final = 0x97
BAD_PAYLOAD: Final = 0x99
PER_5_S_MAX: Final = 150  # publishes; a window of 20 a second and some; without a pause it would be thousands
PACKET_BYTES: Final = 20_000  # bytes; a broker's limit that an event of 60 kB breaks however it is packed


@scenario("D-050", "D-051")
def nobody_subscribes(site: Site, case: Case) -> None:
    """A real broker answers 0x10 while the lake is away."""
    begin(site, case, 10)
    site.consumer_leaves()
    bytes_up = site.proxy.bytes_up
    site.accept(case, 10, 60)
    case.need(lambda: site.proxy.bytes_up > bytes_up, "it publishes")
    bytes_up = site.proxy.bytes_up
    observe(5)
    sent = site.proxy.bytes_up - bytes_up
    case.check("D-051", sent < 500_000, f"{sent} bytes in 5 s for 50 small events")
    site.consumer_comes()
    case.until("D-050", lambda: site.has(0, 60), site.absent(0, 60))


@scenario("D-052", "D-053", "D-060", "D-061", upstream=Upstream.SCRIPTED)
def broker_has_no_room(site: Site, case: Case) -> None:
    """The broker answers with codes that ask for patience."""
    begin(site, case, 10)
    for place, (code, name) in enumerate(((QUOTA, "D-052"), (UNSPECIFIED, "D-060"), (TROUBLE, "D-061"))):
        _is_refused_for_a_while(site, case, code, name, 10 + 20 * place)


@scenario("D-054", "D-055", "D-056", upstream=Upstream.SCRIPTED)
def broker_does_not_allow_it(site: Site, case: Case) -> None:
    """The broker answers 0x87 until an operator has given permission."""
    begin(site, case, 10)
    _answer_batches(site, NOT_AUTHORISED)
    seen = len(site.scripted.batches())
    site.accept(case, 10, 30)
    case.need(lambda: len(site.scripted.batches()) > seen, "it publishes")
    case.until("D-056", lambda: "0x87" in (site.agent.status().last_error or ""), lambda: str(site.agent.status()), 10)
    observe(2)
    case.check("D-054", site.agent.wait(0) is None, "it has ended")
    _answer_batches(site, 0)
    site.stop()
    site.agent.start()
    case.until("D-055", lambda: site.has(0, 30), site.absent(0, 30))


@scenario("D-057", "D-058", "D-059", upstream=Upstream.SCRIPTED)
def broker_refuses_one_payload(site: Site, case: Case) -> None:
    """The broker answers 0x99 to one message and takes all others."""
    begin(site, case, 10)
    broker = site.scripted
    refused: list[bytes] = []

    def answer(publish: Publish) -> int:
        if publish.packet is not None and not refused and publish.topic.startswith("fl/v1/up/"):
            refused.append(publish.payload)
        return BAD_PAYLOAD if publish.payload in refused else 0

    broker.answer = answer
    site.accept(case, 10, 11)
    case.need(lambda: bool(refused), "it publishes")
    case.until("D-058", lambda: "0x99" in (site.agent.status().last_error or ""), lambda: str(site.agent.status()), 10)
    site.offer(11, 40)
    case.until("D-057", lambda: site.has(11, 40), site.absent(11, 40))
    broker.answer = lambda _publish: 0
    site.stop()
    site.agent.start()
    case.until("D-059", lambda: site.has(0, 40), site.absent(0, 40))


@scenario("D-062", "D-063", "D-064", upstream=Upstream.SCRIPTED)
def event_is_too_large_for_the_broker(site: Site, case: Case) -> None:
    """The broker allows packets of 20 kB and ends the connection at a larger one."""
    site.scripted.maximum_packet_bytes = PACKET_BYTES
    begin(site, case, 10)
    text = "".join(chr(0x4E00 + (at * 7_919) % 20_000) for at in range(17_000))
    site.offer_lines([event(10, text)])
    case.need(site.is_accepted, "the large event is accepted")
    site.offer_lines(events(11, 30))
    case.until("D-062", lambda: site.has(11, 30), site.absent(11, 30))
    case.until("D-063", lambda: "large" in (site.agent.status().last_error or ""), lambda: str(site.agent.status()), 10)
    connects = len(site.scripted.connects_s)
    observe(5)
    again = len(site.scripted.connects_s) - connects
    case.check("D-064", again == 0, f"{again} more connections in 5 s")


@scenario("D-065", "D-066", upstream=Upstream.SCRIPTED)
def broker_refuses_the_connection(site: Site, case: Case) -> None:
    """The broker refuses with CONNACK what it takes some seconds later."""
    site.scripted.connect_code = UNAVAILABLE
    site.offer(0, 20)
    site.agent.start()
    _is_let_in_later(site, case, "D-065", 20)
    site.scripted.connect_code = NOT_AUTHORISED
    site.proxy.cut()
    site.offer(20, 40)
    _is_let_in_later(site, case, "D-066", 40)


def _is_refused_for_a_while(site: Site, case: Case, code: int, name: str, first: int) -> None:
    _answer_batches(site, code)
    seen = len(site.scripted.batches())
    site.accept(case, first, first + 20)
    case.need(lambda: len(site.scripted.batches()) > seen, "it publishes")
    if code == QUOTA:
        before = len(site.scripted.batches())
        observe(5)
        again = len(site.scripted.batches()) - before
        case.check("D-053", again <= PER_5_S_MAX, f"{again} publishes in 5 s")
    _answer_batches(site, 0)
    case.until(name, lambda: site.has(0, first + 20), site.absent(0, first + 20))


def _is_let_in_later(site: Site, case: Case, name: str, end: int) -> None:
    hellos = site.scripted.hellos
    case.need(lambda: site.scripted.hellos >= hellos + 2, "it tries twice")
    site.scripted.connect_code = 0
    case.until(name, lambda: site.has(0, end), site.absent(0, end))


def _answer_batches(site: Site, code: int) -> None:
    site.scripted.answer = lambda publish: code if publish.topic.startswith("fl/v1/up/") else 0
