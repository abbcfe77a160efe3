"""Events of every size and script, and what is no event at all."""

from functools import partial
from typing import Final

from tests.delivery.agent import Landed
from tests.delivery.case import Case, scenario
from tests.delivery.events import event, events
from tests.delivery.site import Site, begin

TEXTS: Final = (
    "预算紧张, 需要比价: IP67 和 CANopen 的样品",
    "👩‍🔧🔩🛠️ Größe ≥ 3 µm",
    "שלום עולם — مرحبا",
    'e\u0301 vs é, ¼, \u200bzero width, tab\t, newline\n, quote" and \\',
    "\u0001\u001f",
    "𠮷野家 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
)
NUMBERS: Final = (2**63 - 1, -(2**63), 0, 2**53 + 1)
HOSTILE: Final = (
    b"[" * 20_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"subject":"x","occurred_at":"2026-01-01T00:00:00Z","number":1e400}',
    b'{"subject":"x","occurred_at":"2026-01-01T00:00:00Z","number":NaN}',
    b'{"subject":"x","occurred_at":"2026-01-01T00:00:00Z","number":' + b"9" * 5_000 + b"}",
    b'{"subject":"x","subject":"y","occurred_at":"yesterday","number":7}',
    b'{"subject":"x","occurred_at":"2026-01-01T00:00:00Z","numb',
    b"null",
    b"\x00\x00\x00",
)


@scenario("D-160", "D-161", "D-162", "D-163", "D-164", "D-010")
def sizes_scripts_and_numbers(site: Site, case: Case) -> None:
    """The smallest event, one of 60 kB, texts in many scripts, the ends of 64 bits, and twins."""
    begin(site, case, 1)
    site.offer_lines([event(1)])
    case.until("D-160", lambda: site.has(1, 2), site.absent(1, 2))
    long = "大" * 20_000
    site.offer_lines([event(2, long)])
    case.until("D-161", lambda: [e.text for e in _found(site, 2)] == [long], site.absent(2, 3))
    site.offer_lines([event(10 + at, text) for at, text in enumerate(TEXTS)])
    case.until("D-162", lambda: site.has(10, 10 + len(TEXTS)), site.absent(10, 10 + len(TEXTS)))
    for at, text in enumerate(TEXTS):
        found = [entry.text for entry in _found(site, 10 + at)]
        case.check("D-162", found == [text], f"{text!r} arrived as {found!r}")
    site.offer_lines([event(20 + at, value=number) for at, number in enumerate(NUMBERS)])
    case.until("D-163", lambda: site.has(20, 20 + len(NUMBERS)), site.absent(20, 20 + len(NUMBERS)))
    values = [[entry.value for entry in _found(site, 20 + at)] for at in range(len(NUMBERS))]
    case.check("D-163", values == [[number] for number in NUMBERS], values)
    site.offer_lines([event(30, "twin"), event(30, "twin")])
    case.until("D-164", lambda: len(_found(site, 30)) == 2, lambda: f"{len(_found(site, 30))} arrived")
    case.check("D-010", lambda: all(e.identity is not None for e in site.agent.landing.events()), "without identity")


@scenario("D-166", "D-167", "D-168", "D-169", "D-170", "D-171", "D-181", "D-183")
def what_is_no_event(site: Site, case: Case) -> None:
    """Empty, not text, hostile, too large: each between good events, which must arrive."""
    begin(site, case, 10)
    number = 10
    for name, bad in (
        ("D-166", [b""]),
        ("D-167", [b"\xff\xfe\x80 no text", event(0, "cut").replace(b"cut", b"\xc3\x28")]),
        ("D-168", list(HOSTILE)),
        ("D-169", [event(0, "x" * 300_000)]),
    ):
        site.offer_lines([*events(number, number + 5), *bad, *events(number + 5, number + 10)])
        number += 10
        case.until(name, partial(site.has, 0, number), site.absent(0, number))
        case.check(name, site.agent.wait(0) is None, "it has ended")
    site.offer_lines([event(number, value="warm"), *events(number + 1, number + 3)])
    total = number + 3 + 1 + 2 + len(HOSTILE) + 1
    refusals = site.agent.landing.refusals
    case.until("D-170", lambda: any(r.check == "value.type" for r in refusals()), lambda: [r.check for r in refusals()])
    case.check("D-171", lambda: any('"warm"' in r.original for r in refusals()), "the original is gone")
    accounts = site.agent.landing.accounts
    case.until("D-181", lambda: sum(a.count for a in accounts()) == total, lambda: _told(site, total), 30)
    dropped = [a for a in accounts() if a.fate == "dropped"]
    case.check("D-183", lambda: bool(dropped) and all("@" in a.rule and a.reason for a in dropped), dropped)


@scenario("D-165", "D-180", "D-181", "D-182", "D-185", "D-186", "D-018")
def a_burst(site: Site, case: Case) -> None:
    """10,000 events at once, and the account of them."""
    begin(site, case, 1)
    site.offer(1, 10_000)
    case.until("D-165", lambda: site.has(0, 10_000), site.absent(0, 10_000), 75)
    accounts = site.agent.landing.accounts
    case.until("D-180", lambda: sum(a.count for a in accounts()) >= 10_000, lambda: _told(site, 10_000), 30)
    case.check("D-181", lambda: sum(a.count for a in accounts()) == 10_000, _told(site, 10_000))
    kept = sum(entry.count for entry in accounts() if entry.fate == "kept")
    case.check("D-182", lambda: kept == len(site.agent.landing.events()), f"{kept} kept")
    case.until("D-185", lambda: site.agent.sums() == {"kept": kept}, lambda: f"{site.agent.sums()}, told {kept}", 10)
    at = 0
    for first, end in sorted({(entry.first, entry.end) for entry in accounts()}):
        case.check("D-186", first == at, f"a range begins at {first} where {at} was expected")
        at = end
    case.check("D-186", at == 10_000, f"ranges end at {at}")
    site.each_once(case, "D-018", 10_000)


def _found(site: Site, number: int) -> list[Landed]:
    return [entry for entry in site.agent.landing.events() if entry.number == number]


def _told(site: Site, expected: int) -> str:
    return f"the lake was told of {sum(a.count for a in site.agent.landing.accounts())} events, expected {expected}"
