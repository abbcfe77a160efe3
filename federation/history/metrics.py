"""Counters of the endpoint and their Prometheus text. One event loop writes them, so they need no lock."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Final

from federation.history.follower import FollowerStatus

# Seconds; the target at the client is 50 ms at p99, and the buckets around it are narrow.
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)


class RequestMetrics:
    """Answers by status code, and how long they took inside the process."""

    def __init__(self) -> None:
        self._answers: Counter[int] = Counter()
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._seconds = 0.0

    def count(self, status: int, seconds: float) -> None:
        """Count one answer."""
        self._answers[status] += 1
        self._buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds += seconds

    def render(self, follower: FollowerStatus) -> str:
        """Return the Prometheus text exposition of these counters and the follower's."""
        return "".join(f"{line}\n" for line in self._lines(follower))

    def _lines(self, follower: FollowerStatus) -> Iterator[str]:
        yield "# HELP fieldlake_history_answers_total Answers by HTTP status."
        yield "# TYPE fieldlake_history_answers_total counter"
        for status, answers in sorted(self._answers.items()):
            yield f'fieldlake_history_answers_total{{status="{status}"}} {answers}'
        yield "# HELP fieldlake_history_answer_seconds Time from request to answer inside the process."
        yield "# TYPE fieldlake_history_answer_seconds histogram"
        below = 0
        for bound, answers in zip((*BUCKETS_S, "+Inf"), self._buckets, strict=True):
            below += answers
            yield f'fieldlake_history_answer_seconds_bucket{{le="{bound}"}} {below}'
        yield f"fieldlake_history_answer_seconds_sum {self._seconds:.6f}"
        yield f"fieldlake_history_answer_seconds_count {below}"
        gauges = {
            "refreshes_total": ("counter", "Versions of the table taken up.", follower.refreshes),
            "segment_misses_total": ("counter", "Data files read from the store.", follower.segment_misses),
            "files": ("gauge", "Live data files of the version in use.", follower.files),
            "segment_bytes": ("gauge", "Bytes of rows kept in memory.", follower.segment_bytes),
            "following": ("gauge", "1 while the table can be followed.", int(follower.trouble is None)),
        }
        for name, (kind, text, value) in gauges.items():
            yield f"# HELP fieldlake_history_{name} {text}"
            yield f"# TYPE fieldlake_history_{name} {kind}"
            yield f"fieldlake_history_{name} {value}"
