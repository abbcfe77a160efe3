"""Stored data that a power cut tore or a disk let rot. Everything is accepted offline, damaged, and sent then."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.delivery.case import Case, observe, scenario
from tests.delivery.site import Site

RECORD: Final = 20  # events offered together; a record holds no more than these
RECORDS: Final = 5
SETTLED_S: Final = 75.0  # s; an agent may wait for receipts of earlier sendings before it calls anything lost


def store(site: Site, case: Case) -> int:
    """Have events accepted offline in several records and two runs, and kill the agent; return how many."""
    site.proxy.hang_up()
    site.offer(0, RECORD)
    site.agent.start()
    case.need(site.is_accepted, "the first events are accepted")
    for record in range(1, RECORDS):
        site.accept(case, record * RECORD, (record + 1) * RECORD)
        if record == 1:
            site.kill()
            site.agent.start()
    site.kill()
    site.agent.forget_accepted()
    case.need(lambda: bool(site.agent.durable_files()), "acknowledged events are in a file", 1)
    return RECORD * RECORDS


def send(site: Site) -> None:
    """Start the agent again, with an upstream."""
    site.open()
    site.proxy.flow()
    site.agent.start()


def tail(site: Site, case: Case, name: str, damage: Callable[[Path], None]) -> None:
    """Damage what lies behind the last durable byte: nothing may be lost."""
    end = store(site, case)
    damage(site.agent.durable_files()[0])
    send(site)
    site.offer(end, end + 10)
    case.until(name, lambda: site.has(0, end + 10), site.absent(0, end + 10))


@scenario("D-110", opened=False)
def torn_write(site: Site, case: Case) -> None:
    """Garbage follows the last whole record."""
    tail(site, case, "D-110", lambda path: append(path, bytes(range(1, 256)) * 3))


@scenario("D-111", opened=False)
def zeros_at_the_end(site: Site, case: Case) -> None:
    """The file system has made the file longer than what was written: zeros."""
    tail(site, case, "D-111", lambda path: append(path, bytes(5_000)))


@scenario("D-112", opened=False)
def half_a_record(site: Site, case: Case) -> None:
    """A record was written in part."""
    tail(site, case, "D-112", lambda path: append(path, path.read_bytes()[16 : 16 + path.stat().st_size // 3]))


@scenario("D-113", opened=False)
def leftover_temporary_file(site: Site, case: Case) -> None:
    """A crash between writing and renaming left a file beside each."""

    def leave(path: Path) -> None:
        for file in (path, *path.parent.iterdir()):
            file.with_name(f"{file.name}.tmp").write_bytes(b"half")
            file.with_name(f"{file.name}.new").write_bytes(b"half")

    tail(site, case, "D-113", leave)


@scenario("D-114", "D-115", "D-116", "D-121", opened=False, slow=True)
def flipped_byte(site: Site, case: Case) -> None:
    """One bit in the middle of stored events is another."""
    end = store(site, case)
    path = site.agent.durable_files()[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    send(site)
    site.offer(end, end + 20)
    case.until("D-114", lambda: site.has(end, end + 20), site.absent(end, end + 20))
    case.until("D-115", lambda: len(site.missing(0, end)) <= RECORD, site.absent(0, end))
    losses_are_said(site, case, "D-116", end + 20)


@scenario("D-117", "D-118", "D-121", opened=False, slow=True)
def missing_file(site: Site, case: Case) -> None:
    """The newest file with events is gone."""
    end = store(site, case)
    site.agent.durable_files()[0].unlink()
    send(site)
    observe(2)
    if site.agent.wait(0) is not None:
        case.check("D-117", bool(site.agent.log().strip()), "it ended and said nothing")
        case.check("D-118", False, "it does not start")
        case.check("D-121", True)
        return
    site.offer(end, end + 20)
    case.until("D-117", lambda: site.has(end, end + 20), site.absent(end, end + 20))
    losses_are_said(site, case, "D-118", end + 20)


@scenario("D-119", "D-116", "D-121", opened=False, slow=True)
def shortened_file(site: Site, case: Case) -> None:
    """The newest file with events has lost its second half."""
    end = store(site, case)
    path = site.agent.durable_files()[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    send(site)
    site.offer(end, end + 20)
    case.until("D-119", lambda: site.has(end, end + 20) and site.has(0, RECORD), site.absent(0, end + 20))
    losses_are_said(site, case, "D-116", end + 20)


def append(path: Path, data: bytes) -> None:
    """Add bytes to a file."""
    with path.open("ab") as file:
        file.write(data)


def losses_are_said(site: Site, case: Case, name: str, end: int) -> None:
    """Check that what is missing is lost in the account, and nothing that arrived is."""

    def lost() -> set[int]:
        entries = [entry for entry in site.agent.landing.accounts() if entry.fate == "lost"]
        return {seq for entry in entries for seq in range(entry.first, entry.end)}

    def arrived() -> set[int]:
        return {landed.identity[1] for landed in site.agent.landing.events() if landed.identity is not None}

    case.until(
        name,
        lambda: len(lost() | arrived()) == end,
        lambda: f"{len(arrived())} arrived, {len(lost())} are said to be lost, of {end}; {site.agent.status()}",
        SETTLED_S,
    )
    case.check("D-121", lambda: not lost() & arrived(), lambda: sorted(lost() & arrived())[:5])
