"""Which events a pull means, over a chunk of them; `edge_agent.lite.meaning` says the same without numpy."""

import numpy as np

from contracts.contract import Contract
from contracts.pulls import PullRequest
from edge_agent.core.events import Events, Mask
from edge_agent.core.filter.conditions import Chunk, matcher
from edge_agent.core.pulls.selection import Meant


def meant_by(contract: Contract, request: PullRequest) -> Meant:
    """Return what counts the events of the time asked for, and says which events are meant."""
    assert contract.event_time_field is not None
    time, holds = contract.event_time_field, matcher(request.when, contract)

    def meant(events: Events) -> tuple[int, Mask]:
        times = np.asarray(events.columns[time], dtype=np.int64)
        asked = (times >= request.from_us) & (times < request.to_us)
        examined = int(np.count_nonzero(asked))
        if not examined:
            return 0, asked
        return examined, asked & holds(Chunk(contract, events.columns, len(times)))

    return meant
