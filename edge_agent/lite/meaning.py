"""Which events a pull means, without numpy; the twin of `edge_agent.core.pulls.meaning`."""

from contracts.contract import Contract
from contracts.pulls import PullRequest
from edge_agent.core.events import Events, Mask
from edge_agent.core.pulls.selection import Meant
from edge_agent.lite.conditions import Chunk, matcher


def meant_by(contract: Contract, request: PullRequest) -> Meant:
    """Return what counts the events of the time asked for, and says which events are meant."""
    assert contract.event_time_field is not None
    time, holds = contract.event_time_field, matcher(request.when, contract)

    def meant(events: Events) -> tuple[int, Mask]:
        asked = [request.from_us <= at < request.to_us for at in events.columns[time]]
        examined = sum(asked)
        if not examined:
            return 0, asked
        matching = holds(Chunk(contract, events.columns, len(asked)))
        return examined, [here and true for here, true in zip(asked, matching, strict=True)]

    return meant
