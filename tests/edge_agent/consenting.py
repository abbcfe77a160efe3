"""Agents that take events of people, in the simulated world: an app that numbers and sends again, people who decide."""

import base64
import datetime
import heapq
import json
from collections.abc import Iterable, Iterator
from typing import Any

import zstandard

from contracts import microbatch
from contracts.contract import Contract
from contracts.offshoots import sampled_of
from edge_agent.adapters.cipher import KEY_BYTES, LibraryCipher
from edge_agent.agent import Agent, Settings
from edge_agent.app import resume
from edge_agent.consent import ConsentDesk
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.codec.payload import PayloadDecoder
from edge_agent.core.consent import person_keys, register
from edge_agent.core.consent.person_keys import PersonKeys, file_of
from edge_agent.core.consent.pseudonyms import Pseudonyms
from edge_agent.core.consent.register import REGISTER_FILE
from edge_agent.core.filter.filtering import Filter
from edge_agent.core.filter.rules import Rules
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Plan
from edge_agent.core.sources.offers import Asked, Offered, Outcome, Settled, Wish
from edge_agent.core.sources.producers import Producers
from edge_agent.core.spool.identity import FORMAT, Identity, open_spool
from edge_agent.core.spool.record import scan
from edge_agent.core.spool.segment import block_id
from edge_agent.core.spool.spool import Spool
from edge_agent.core.stream import StreamPlan
from edge_agent.core.uplink.link import LinkEvent
from edge_agent.feeds import Feeds
from edge_agent.lite.filtering import LiteFilter
from edge_agent.lite.lists import LISTS
from edge_agent.lite.rules import LiteRules
from edge_agent.reception import Reception
from edge_agent.report import Report
from tests.edge_agent.plant import CONTRACTS, Json, Lake
from tests.edge_agent.simulated import DEVICE, World
from tests.edge_agent.worlds import Crash, MemoryDisk

VISITS = CONTRACTS["visits"]
SAMPLED = sampled_of(VISITS)
DEVICE_KEY = bytes(range(KEY_BYTES))
PSEUDONYMS = Pseudonyms(DEVICE_KEY)
BEGUN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SOURCE = "tablet"


def visit(seq: int, person: str, **changes: Any) -> Json:
    """Return a valid event of a person, whose name stands in its text too."""
    moment = (BEGUN + datetime.timedelta(seconds=7 * seq)).isoformat().replace("+00:00", "Z")
    event = {"contact_id": person, "topic": "sample", "note": f"{person} 要样品 {seq}", "duration_s": seq / 4}
    return event | {"occurred_at": moment} | changes


def line_of(event: Json) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def desk_of(disk: MemoryDisk, world: Any, contracts: Iterable[Contract] = (VISITS,)) -> tuple[ConsentDesk, PersonKeys]:
    """Return a desk over a disk; `world` is clock and randomness."""
    keys = PersonKeys(disk, LibraryCipher(DEVICE_KEY, world.rng.randbytes), library, world.rng.randbytes)
    desk = ConsentDesk(disk, PSEUDONYMS, keys, world)
    desk.concern(contracts)
    return desk, keys


def library(key: bytes) -> LibraryCipher:
    return LibraryCipher(key)


class Tablet:
    """The app: it has events for ever, knows which were acknowledged, and passes decisions on until it is answered."""

    name = SOURCE
    trouble: str | None = None

    def __init__(self, world: "ConsentWorld", lines: list[bytes]) -> None:
        self.lines = lines
        self.sent = 0  # all below were handed to this agent
        self.settled_to = 0  # all below are taken
        self.wishes: list[tuple[str, Wish]] = []
        self.answered: list[tuple[str, Wish, Settled]] = []
        self._world = world
        self._open: dict[int, tuple[int, int] | None] = {}
        self._tickets = 0
        self._asked: int | None = None

    def start(self) -> None:
        """A new agent is there: ask it what it has."""
        self._asked = None
        self._ask_again()

    def close(self) -> None:
        return

    def offer(self, count: int | None) -> None:
        """Hand over the next lines; None only asks."""
        self._tickets += 1
        ticket, first = self._tickets, self.sent
        lines = () if count is None else tuple(self.lines[first : first + count])
        self._open[ticket] = (first, len(lines)) if count is not None else None
        self.sent += len(lines)
        number = first if count is not None else None
        self._world.soon(lambda: Offered(SOURCE, ticket, VISITS.id, lines, "平板", number))

    def decide(self) -> None:
        """Pass the next decision on, if there is one that nobody has answered."""
        if self.wishes and self._asked is None:
            self._tickets += 1
            ticket, (person, wish) = self._tickets, self.wishes[0]
            self._asked = ticket
            self._world.soon(lambda: Asked(SOURCE, ticket, person, wish))

    def settle(self, ticket: int, settled: Settled) -> None:
        if ticket == self._asked:
            self._asked = None
            if settled.outcome is Outcome.TAKEN:
                person, wish = self.wishes.pop(0)
                self.answered.append((person, wish, settled))
                self._world.decided(person, wish)
            return
        if ticket not in self._open:
            return  # of a connection that has ended
        place = self._open.pop(ticket)
        if settled.outcome is not Outcome.TAKEN:
            self._ask_again()
            return
        next_number = settled.next_number or 0
        self.settled_to = next_number if settled.held_from is None else settled.held_from
        if place is None:
            self.sent = self.settled_to
        else:
            assert settled.accepted + settled.duplicate + settled.held == place[1]

    def _ask_again(self) -> None:
        """Connect anew: nothing more goes before the agent has said where to go on."""
        self._open.clear()
        self.offer(None)

    @property
    def is_waiting(self) -> bool:
        """Say whether an answer is due."""
        return bool(self._open) or self._asked is not None

    @property
    def may_offer(self) -> bool:
        """Say whether there is something to hand over, and a connection that was greeted."""
        return self.sent < len(self.lines) and None not in self._open.values()


class ConsentWorld(World):
    """A world with one stream that needs consent, and an app on the tablet."""

    def __init__(self, seed: int, lines: list[bytes], rules: tuple[Any, ...] = (), *, stores: bool = True) -> None:
        super().__init__(seed, [])
        self.tablet = Tablet(self, lines)
        self.lake = Lake(DEVICE, {**CONTRACTS, SAMPLED.id: SAMPLED})
        self.pace_s = 0.5
        self.refused: set[str] = set()
        self.granted: set[str] = set()
        self.ever_granted: set[str] = set()
        self.scans = 0
        self._heard_s = 0.0
        self._rules = rules
        self._stores = stores
        self._lite = seed % 4 > 1

    def start(self, *, followed: bool = False) -> Agent:
        self.runs += 1
        self._coming.clear()
        self.desk, keys = desk_of(self.disk, self)
        spool = self.opened(keys)
        newest = spool.recovered.newest
        intake = Intake(self.plan_for(spool.epoch), newest, keys)
        resume(intake, spool, {}, self.now_ms())
        producers = newest.producers if newest is not None else Producers()
        reception = Reception((self.tablet,), {VISITS.id}, producers, self.desk, {SOURCE: (VISITS.id,)})
        self.agent = Agent(
            Settings(DEVICE, until_drained=False), intake, spool, Feeds(()), reception, self, self, self,
            self.rng.random, lambda: None, self._status,
        )  # fmt: skip
        self._later(self._act, self.pace_s)
        return self.agent

    def plan_for(self, epoch: int) -> Plan:
        """Return a plan whose rules remember nothing yet, for a device with numpy or one without."""
        rules: Any = None
        if self._rules:
            rules = (LiteRules if self._lite else Rules)(self._rules, VISITS, DEVICE, 1)
        stream = StreamPlan(
            source=VISITS,
            filter=(LiteFilter if self._lite else Filter)(rules=rules),
            sampled=SAMPLED,
            sample_ratio=0.3,
            stores=self._stores,
        )
        ledger, quarantine, consents = (CONTRACTS[name] for name in ("ledger", "quarantine", "consents"))
        return Plan(DEVICE, 0, epoch, ledger, quarantine, (stream,), LISTS if self._lite else ARRAYS, consents=consents)

    def opened(self, keys: PersonKeys) -> Spool:
        wanted = Identity(DEVICE, self.now_ms() // 1_000, {}, FORMAT)
        cipher = LibraryCipher(DEVICE_KEY, self.rng.randbytes)
        return open_spool(self.disk, wanted, cipher, self.retention, persons=keys)

    def soon(self, event: Any) -> None:
        """Let something arrive in the agent's inbox."""
        # What goes over one connection keeps its order.
        self._heard_s = max(self.now_s, self._heard_s) + self.rng.random() * 0.02
        self._order += 1
        heapq.heappush(self._coming, (self._heard_s, self._order, event))

    def decided(self, person: str, wish: Wish) -> None:
        """An app has heard that a decision holds: from now on no file may give a refused person away."""
        if wish is Wish.REFUSE:
            self.refused.add(person)
            self.granted.discard(person)
            self.scan()
        elif wish is Wish.GRANT:
            self.granted.add(person)
            self.ever_granted.add(person)
            self.refused.discard(person)

    def scan(self) -> None:
        """Assert that no file holds a person who has refused, or has never granted."""
        self.scans += 1
        persons = {json.loads(line)["contact_id"] for line in self.tablet.lines}
        hidden = (persons - self.ever_granted) | self.refused
        pending = {person for person, _ in self.tablet.wishes}  # a grant may be durable and not answered
        assert_hidden(self.disk, hidden - (pending - self.refused))

    def _act(self) -> LinkEvent | None:
        tablet = self.tablet
        if tablet.wishes and self.rng.random() < 0.3:
            tablet.decide()
        if tablet.may_offer and self.rng.random() < 0.8:
            tablet.offer(self.rng.randint(1, 12))
        self._later(self._act, self.pace_s)
        return None

    def is_quiet(self, report: Report) -> bool:
        """Say whether all is sent, decided, told and in the lake."""
        tablet = self.tablet
        assert report.consent is not None
        return (
            not tablet.wishes
            and tablet.sent >= len(tablet.lines)
            and not tablet.is_waiting
            and report.consent.open_decisions == 0
            and report.drained
            and not self.desk.is_due
            and not self.owes(report)
        )

    def owes(self, report: Report) -> bool:
        """Say whether ledger entries wait for the next batch of them; a stopped device leaves them to a start."""
        visits = report.streams.get(VISITS.id)
        told = sum(row["count"] for row in self.lake.rows("ledger") if row["stream"] == VISITS.id)
        return visits is not None and told != visits.observed

    def run_until_quiet(self) -> Report:
        """Run an agent to the point where nothing is left to do; a crash raises Crash."""
        agent = self.start()

        def on_status(report: Report) -> None:
            if self.is_quiet(report):
                agent.stop()

        self.on_status = on_status
        return agent.run()

    def run_with_crashes(self, crashes: int, steps: tuple[int, int]) -> Report:
        """Crash at random steps so many times, then run to the end."""
        for _ in range(crashes):
            self.disk.crash_after = self.rng.randint(*steps)
            try:
                report = self.run_until_quiet()
            except Crash:
                self.crash()
                continue
            self.disk.crash_after = None
            return report
        self.disk.crash_after = None
        return self.run_until_quiet()


def marks_of(person: str) -> list[bytes]:
    """Return how a name may lie in a file."""
    raw = person.encode()
    found = [raw, person.encode("utf-16-le"), person.encode("utf-16-be"), json.dumps(person)[1:-1].encode()]
    found += [raw.hex().encode(), raw.hex().upper().encode()]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        found.append(encoded[4 if shift else 0 : len(encoded) - 2])  # what stands whatever is around it
    return found


def assert_hidden(disk: MemoryDisk, persons: Iterable[str], device_key: bytes = DEVICE_KEY) -> None:
    """Assert that no file of a disk holds these persons in bytes that any key that is left opens."""
    texts = {**disk.files, **dict(opened_with_every_key(disk, device_key))}
    for person in persons:
        for mark in marks_of(person):
            assert [name for name, data in texts.items() if mark in data] == [], person


def opened_with_every_key(disk: MemoryDisk, device_key: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield all that blocks hold, each tried with every key that lies on the disk, and unpacked."""
    device = LibraryCipher(device_key)
    keys = []
    for name, data in disk.files.items():
        if name.startswith(person_keys.PREFIX) and name.endswith(person_keys.SUFFIX):
            number = int(name[len(person_keys.PREFIX) : -len(person_keys.SUFFIX)], 16)
            key = device.open(data, b"person/%d" % number)
            if key is not None:
                keys.append(LibraryCipher(key))
    spool = json.loads(disk.files.get("spool.json", b'{"epoch":0}'))
    for name, data in disk.files.items():
        if not (name.startswith("segment-") and name.endswith(".log")):
            continue
        for frame in scan(data).frames:
            at = frame.body_offset
            refs = [*frame.meta.batches, *frame.meta.stored]
            for place, ref in enumerate(refs):
                block = data[at : at + ref.length + device.overhead_bytes]
                at += len(block)
                found = device.open(block, b"%d/%d" % (spool["epoch"], block_id(frame.meta.number, place)))
                kinds = ("travels", "windowed", "stored")
                labels = [person_keys.label_of(ref.contract, ref.first_seq, kind) for kind in kinds]
                opened = [found] + [key.open(found, label) for key in keys for label in labels if found is not None]
                for plain in opened:
                    if plain is not None:
                        yield f"{name} record {frame.meta.number} block {place}", unpacked(ref.contract, plain)


def unpacked(contract: str, plain: bytes) -> bytes:
    """Return the rows of a batch or block as text; what is neither as it is."""
    source = {**CONTRACTS, SAMPLED.id: SAMPLED}[contract]
    decoder = PayloadDecoder(source)
    if plain.startswith(microbatch.MAGIC):
        header, payload = microbatch.parse(plain)
        rows = decoder.decode(bytes(payload), header.rows, header.raw_bytes, header.codec)
        return repr(rows.columns).encode()
    if plain.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompress(plain, max_output_size=8_388_608)
    return plain


def register_of(disk: MemoryDisk) -> register.Register:
    """Return what the register on a disk says, an empty one if there is none."""
    if REGISTER_FILE not in disk.files:
        return register.Register()
    return register.decode(disk.files[REGISTER_FILE], PSEUDONYMS)


def key_files(disk: MemoryDisk) -> set[str]:
    """Return the names of all keys of persons."""
    return {name for name in disk.files if name.startswith(person_keys.PREFIX)}


__all__ = ["ConsentWorld", "Tablet", "assert_hidden", "desk_of", "file_of", "key_files", "register_of", "visit"]
