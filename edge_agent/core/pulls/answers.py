"""The row that says what became of a pull."""

import msgspec

from contracts.pulls import REASON_CHARS_MAX, Outcome, PullRequest
from edge_agent.core.codec.record_batch import Column
from edge_agent.core.pulls.progress import Progress


def answer_columns(
    request: PullRequest, outcome: Outcome, reason: str, progress: Progress | None, answered_at_ms: int
) -> dict[str, Column]:
    """Return one row of the contract `pulls`; a pull that was not begun has no progress."""
    found = progress if progress is not None else Progress(request.id, b"", 0, 0)
    condition = msgspec.json.encode(request.when).decode() if request.when is not None else None
    return {
        "pull_id": [request.id],
        "stream": [request.contract],
        "outcome": [outcome.value],
        "reason": [reason[:REASON_CHARS_MAX]],
        "asked_from": [request.from_us],
        "asked_to": [request.to_us],
        "condition": [condition],
        "asked_by": [request.asked_by],
        "answered_at": [answered_at_ms * 1_000],
        "examined": [found.examined],
        "matched": [found.matched],
        "sent": [found.sent],
        "missing": [found.missing_events],
        "missing_ranges": [msgspec.json.encode(found.missing).decode()],
        "held_since": [found.held_since_us],
    }
