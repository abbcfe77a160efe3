"""What rules and filters of both profiles have in common: all that does not look into a chunk's columns."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Self, TypeVar

from contracts.bundle import Model
from contracts.contract import Contract
from contracts.edge_rules import EdgeRule
from contracts.sampling import seed_of
from edge_agent.core.events import Events
from edge_agent.core.filter import repeats
from edge_agent.core.filter.outcomes import outcomes_of


class RememberingRules:
    """The checked rules of a stream, and what they remember of the events that were kept."""

    def __init__(self, rules: tuple[EdgeRule, ...], contract: Contract, origin: str, epoch: int) -> None:
        self.rules = rules
        self._contract = contract
        self._keyed = repeats.keyed_of(rules, contract)
        self._seeds = [seed_of(origin, epoch, contract.id, f"rule {rule.id}") for rule in rules]

    @property
    def horizon_ms(self) -> int:
        """How long a kept event can bear on later ones; 0 when none does."""
        return max((memory.horizon_ms for memory in self._keyed.values()), default=0)

    @property
    def keys(self) -> int:
        """How many keys are remembered."""
        return sum(map(len, self._keyed.values()))

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Remember nothing of what is decided meanwhile."""
        kept, self._keyed = self._keyed, repeats.copied(self._keyed)
        try:
            yield
        finally:
            self._keyed = kept

    def inherit(self, before: Self) -> None:
        """Remember what the rules of another bundle do, where these are the same."""
        self._keyed = repeats.inherited(self.rules, self._keyed, before.rules, before._keyed)

    def forget(self) -> None:
        """Remember nothing any more."""
        self._keyed = repeats.keyed_of(self.rules, self._contract)


RulesT = TypeVar("RulesT", bound=RememberingRules)
ScorerT = TypeVar("ScorerT")
VerdictT = TypeVar("VerdictT")
SeenT = TypeVar("SeenT")


class DecidingFilter(ABC, Generic[RulesT, ScorerT, VerdictT, SeenT]):
    """Asks the stream's rules, then its model for what these left undecided; the stream's rest is kept or aggregated.

    `aggregates` says that what nobody decided about only counts in windows. The model scores before the rules that
    remember refuse anything: what they remember is what was kept, which the model has a say in.
    """

    def __init__(
        self,
        model: Model | None = None,
        scorer: ScorerT | None = None,
        rules: RulesT | None = None,
        *,
        aggregates: bool = False,
    ) -> None:
        self._model = model
        self._scorer = scorer
        self._rules = rules
        self._outcomes = outcomes_of(rules.rules if rules is not None else (), model, aggregates=aggregates)

    @property
    def horizon_ms(self) -> int:
        """How long a kept event can bear on later ones: what `refill` must see again after a restart."""
        return self._rules.horizon_ms if self._rules is not None else 0

    def decide(self, events: Events) -> VerdictT:
        """Return what becomes of events, and remember those that are kept where a rule asks for it."""
        return self._decide(events)[0]

    def consider(self, events: Events) -> VerdictT:
        """Decide as `decide` does, and remember nothing of it."""
        if self._rules is None:
            return self.decide(events)
        with self._rules.forgetting():
            return self.decide(events)

    def inherit(self, before: Self) -> None:
        """Remember what another bundle's filter does, where the rules are the same."""
        if self._rules is not None and before._rules is not None:
            self._rules.inherit(before._rules)

    def forget(self) -> None:
        """Remember nothing any more."""
        if self._rules is not None:
            self._rules.forget()

    @abstractmethod
    def _decide(self, events: Events) -> tuple[VerdictT, SeenT]:
        """Return the verdict, and for each rule which events came to it."""
