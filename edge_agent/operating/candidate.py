"""A bundle that a sample of events goes through, and what it decides about each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from contracts.bundle import Bundle
from contracts.ledger import Fate
from edge_agent.adapters import bundle_files
from edge_agent.config import AgentConfig
from edge_agent.core.events import Reader
from edge_agent.core.filter.outcomes import outcomes_of
from edge_agent.core.folding import cleaned
from edge_agent.core.intake import Intake

EXAMPLE_CHARS_MAX: Final = 300

Label = tuple[str, str, str]  # fate, rule, reason


class Example(Struct, frozen=True):
    """An event by its place in the sample; `passed` are the rules that concerned it and let it go on."""

    number: int
    line: str
    score: float | None = None
    passed: tuple[str, ...] = ()


class Sent(Struct, frozen=True):
    """What of one contract would travel. `payload_bytes` are whole micro-batches."""

    contract: str
    batches: int
    rows: int
    payload_bytes: int


class Decision(Struct, frozen=True):
    """What became of one event of the sample."""

    label: Label
    example: Example


class Candidate:
    """A bundle that events of one contract go through, in their order."""

    def __init__(self, config: AgentConfig, folder: Path, contract: str, *, lax: bool) -> None:
        """Raises BundleError, ContractError, RuleError."""
        self.bundle = bundle_files.load(folder)
        self._contract = contract
        self._source = self.bundle.contract(contract)
        self._flush_ms = config.flush_interval_ms
        # Two of everything: a filter remembers what it kept, and the one that explains must see each event once too.
        plan, other = (
            bundle_files.plan_of(
                self.bundle, folder, device=config.device, shard=config.shard, epoch=0,
                streams={contract: lax}, stores=False, profile=config.profile,
            )
            for _ in range(2)
        )  # fmt: skip
        self._intake = Intake(plan, None)
        self._filter = other.streams[0].filter
        self._reader = Reader(self._source, plan.profile, lax=lax)
        self._fates = _fates(self.bundle, contract)
        self._now_ms = 0
        self._observed = self._json_bytes = self._packet_bytes = 0
        self._sent: dict[str, Sent] = {}

    def take(self, lines: Sequence[bytes]) -> list[Decision]:
        """Return what becomes of the next events, one decision a line."""
        checked = self._reader.read(self._observed, lines)
        decisions: dict[int, Decision] = {}
        for one in self._filter.explain(checked.events):
            label = (self._fates[one.rule, one.reason, one.kept], one.rule, one.reason)
            decisions[one.seq] = self._decision(lines, label, one.seq, one.score, one.passed)
        rule = f"{self._source.id}@{self._source.version}"
        for refused in checked.refused:
            decisions[refused.seq] = self._decision(lines, (Fate.DROPPED.value, rule, refused.code), refused.seq)
        self._flush(lines, ends=False)
        first, self._observed = self._observed, self._observed + len(lines)
        return [decisions[seq] for seq in range(first, self._observed)]

    def end(self) -> None:
        """The sample is over: windows close, the ledger is sent."""
        self._flush((), ends=True)

    def sent(self) -> tuple[Sent, ...]:
        """Return what would travel so far, by contract."""
        return tuple(self._sent[name] for name in sorted(self._sent))

    @property
    def json_bytes(self) -> int:
        """Size of the sample as it was read, newlines counted."""
        return self._json_bytes

    @property
    def packet_bytes(self) -> int:
        """Size of the MQTT packets that would carry what is sent."""
        return self._packet_bytes

    def rules(self) -> tuple[str, ...]:
        """Return the labels of the stream's rules, in their order."""
        return tuple(rule.label for rule in self.bundle.stream(self._contract).rules)

    def _decision(
        self, lines: Sequence[bytes], label: Label, seq: int, score: float | None = None, passed: tuple[str, ...] = ()
    ) -> Decision:
        line = lines[seq - self._observed][: 4 * EXAMPLE_CHARS_MAX].decode(errors="replace")
        return Decision(label, Example(seq, cleaned(line)[:EXAMPLE_CHARS_MAX], score, passed))

    def _flush(self, lines: Sequence[bytes], *, ends: bool) -> None:
        self._now_ms += self._flush_ms
        final = (self._contract,) if ends else ()
        group = self._intake.take({self._contract: lines}, self._now_ms, final=final, ends=ends)
        if group is None:
            return
        self._json_bytes += group.meta.wire.observed_json_bytes
        self._packet_bytes += group.meta.wire.all_packet_bytes
        for batch in group.batches:
            before = self._sent.get(batch.contract, Sent(batch.contract, 0, 0, 0))
            self._sent[batch.contract] = Sent(
                batch.contract,
                before.batches + 1,
                before.rows + batch.rows,
                before.payload_bytes + len(batch.data),
            )


def _fates(bundle: Bundle, contract: str) -> dict[tuple[str, str, bool], str]:
    """Return the fate by what an explanation says."""
    stream = bundle.stream(contract)
    model = next((entry for entry in bundle.models if entry.id == stream.model), None)
    fates = {}
    for outcome in outcomes_of(stream.rules, model, aggregates=stream.otherwise == "aggregate"):
        counted = bool(stream.windows) and outcome.windowed
        fate = Fate.KEPT if outcome.kept else Fate.AGGREGATED if counted else Fate.DROPPED
        fates[outcome.rule, outcome.reason, outcome.kept] = fate.value
    return fates
