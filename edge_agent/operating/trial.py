"""What a bundle would do with a sample of events: the real rules, model, windows and codec, without spool or broker.

Rules that remember and rules that draw lots decide as on a device whose spool begins with the sample, in epoch 0.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from msgspec import Struct

from contracts.ledger import Fate
from edge_agent.adapters.source_files import is_csv, open_source
from edge_agent.config import AgentConfig, contracts_of
from edge_agent.errors import ConfigError
from edge_agent.operating.bundles import folder_in_force
from edge_agent.operating.candidate import Candidate, Example, Label, Sent

EXAMPLES_MAX: Final = 3  # examples per reason, by default
EXAMPLE_CHARS_MAX: Final = 300
FLUSH_EVENTS: Final = 200  # events per batch, by default: what a flush of 200 ms has at 1,000 events/s


class Why(Struct, frozen=True):
    """`count` events met this fate by this rule (`id@version`, or empty) for this reason."""

    fate: str
    rule: str
    reason: str
    count: int
    examples: tuple[Example, ...] = ()


class Trial(Struct, frozen=True):
    """What a bundle would do. `packet_bytes` are the MQTT packets of all that is sent, ledger entries and all.

    `silent_rules` decided about no event of the sample.
    """

    bundle_version: str
    contract: str
    observed: int
    whys: tuple[Why, ...]
    silent_rules: tuple[str, ...]
    sent: tuple[Sent, ...]
    json_bytes: int
    packet_bytes: int

    def count(self, fate: Fate) -> int:
        """Return how many events met a fate."""
        return sum(why.count for why in self.whys if why.fate == fate.value)


class Change(Struct, frozen=True):
    """`count` events that another bundle treats otherwise."""

    before: Why
    after: Why
    count: int
    examples: tuple[Example, ...] = ()


class Comparison(Struct, frozen=True):
    """Two bundles over one sample, event by event."""

    before: Trial
    after: Trial
    changes: tuple[Change, ...]


class Tally:
    """Counts by label, with the first examples of each."""

    def __init__(self, examples: int) -> None:
        self._examples = examples
        self._counts: dict[tuple[Label, ...], int] = {}
        self._shown: dict[tuple[Label, ...], list[Example]] = {}

    def add(self, labels: tuple[Label, ...], example: Example) -> None:
        """Count one event."""
        self._counts[labels] = self._counts.get(labels, 0) + 1
        shown = self._shown.setdefault(labels, [])
        if len(shown) < self._examples:
            shown.append(example)

    def items(self) -> Iterator[tuple[tuple[Label, ...], int, tuple[Example, ...]]]:
        """Yield labels, counts and examples, the most frequent first."""
        for labels, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0])):
            yield labels, count, tuple(self._shown[labels])


class Trying:
    """One bundle over a sample, or two beside each other."""

    def __init__(self, candidates: Sequence[Candidate], examples: int) -> None:
        self._candidates = tuple(candidates)
        self._tallies = tuple(Tally(examples) for _ in candidates)
        self._changes = Tally(examples)

    def take(self, lines: Sequence[bytes]) -> None:
        """Let the next events through."""
        decided = [candidate.take(lines) for candidate in self._candidates]
        for tally, decisions in zip(self._tallies, decided, strict=True):
            for decision in decisions:
                tally.add((decision.label,), decision.example)
        if len(decided) > 1:
            for before, after in zip(*decided, strict=True):
                if before.label != after.label:
                    self._changes.add((before.label, after.label), after.example)

    def end(self, contract: str) -> tuple[Trial, ...]:
        """Return what came of it, by candidate."""
        for candidate in self._candidates:
            candidate.end()
        return tuple(
            _trial(candidate, tally, contract) for candidate, tally in zip(self._candidates, self._tallies, strict=True)
        )

    def changes(self) -> tuple[Change, ...]:
        """Return what the second candidate treats otherwise."""
        return tuple(
            Change(Why(*before, count), Why(*after, count), count, examples)
            for (before, after), count, examples in self._changes.items()
        )


def run(
    config: AgentConfig,
    sample: Path,
    *,
    contract: str | None = None,
    other_bundle: Path | None = None,
    examples: int = EXAMPLES_MAX,
    flush_events: int = FLUSH_EVENTS,
) -> Trial | Comparison:
    """Let a sample go through the configured bundle, and through another one beside it if there is one.

    Raises ConfigError, BundleError, ContractError, RuleError, SourceError.
    """
    name = _contract_of(config, contract)
    folders = [folder_in_force(config), *([other_bundle] if other_bundle is not None else [])]
    lax = is_csv(sample.name)
    trying = Trying([Candidate(config, folder, name, lax=lax) for folder in folders], examples)
    with closing(open_source(sample, follow=False)) as source:
        while lines := source.read(flush_events):
            trying.take(lines)
    trials = trying.end(name)
    return trials[0] if len(trials) == 1 else Comparison(trials[0], trials[1], trying.changes())


def _trial(candidate: Candidate, tally: Tally, contract: str) -> Trial:
    whys = tuple(Why(*label, count, examples) for (label,), count, examples in tally.items())
    decided = {why.rule for why in whys}
    return Trial(
        bundle_version=candidate.bundle.version,
        contract=contract,
        observed=sum(why.count for why in whys),
        whys=whys,
        silent_rules=tuple(rule for rule in candidate.rules() if rule not in decided),
        sent=candidate.sent(),
        json_bytes=candidate.json_bytes,
        packet_bytes=candidate.packet_bytes,
    )


def _contract_of(config: AgentConfig, wanted: str | None) -> str:
    known = tuple(dict.fromkeys(name for source in config.sources for name in contracts_of(source)))
    if wanted is not None:
        return wanted
    if len(known) != 1:
        raise ConfigError(f"the device has events of {', '.join(known)}: say with --contract which the sample is of")
    return known[0]
