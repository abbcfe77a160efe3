"""Which messages make a round: enough to be worth a file, and soon enough for those who wait."""

from collections import deque
from collections.abc import Callable
from typing import Final

from contracts.microbatch import claimed_raw_bytes
from contracts.ports import Clock
from lakehouse.ports import Message

IDLE_WAIT_S: Final = 0.05  # seconds; how late a stop or an answer is noticed when nothing arrives
# Seconds from the first message of a quiet log to its round: batches of one event come from several origins within it.
LINGER_S: Final = 0.02
# Share of a core that rounds may take: heavy ones come less often instead of taking everybody's processor, and a larger
# round costs hardly more than a small one. What a round waits for a processor is not counted: that is others' load.
BUSY_SHARE_MAX: Final = 0.5
APART_MAX_S: Final = 1.0  # seconds; however busy, a row waits no longer than this for its round to begin
CHUNK_MESSAGES: Final = 1_000  # messages of one poll; most are some KB
ROUND_MESSAGES_MAX: Final = 8_192  # messages; bounds a round of tiny batches, each with a claim, to about a second
# Bytes once decompressed; decode and checks hold about four copies, and a round that is written two: 0.2 GB at most.
ROUND_RAW_BYTES_MAX: Final = 33_554_432

Poll = Callable[[int, float], list[Message]]  # the most messages, and for how many seconds they are waited for


class Gathering:
    """Collects messages into rounds that begin at least `interval_s` apart, unless there is a backlog."""

    def __init__(self, clock: Clock, interval_s: float) -> None:
        self._clock, self._interval_s = clock, interval_s
        self._carried: deque[Message] = deque()
        self._began_s = float("-inf")
        self._took_s = 0.0
        self.is_behind = False  # the last round left messages in the log

    def clear(self) -> None:
        """Forget what was polled and is of no round."""
        self._carried.clear()

    def took(self, seconds: float) -> None:
        """Hear how long the last round kept a processor."""
        self._took_s = seconds

    def gather(self, poll: Poll, fill: Poll) -> list[Message]:
        """Return a round's messages; none when none came for a while. `poll` and `fill` are those of a share.

        After a quiet time the first message waits only for its immediate neighbours. Later ones are not taken as they
        come: five hundred wake-ups a second cost a tenth of a core.
        """
        if not self._carried:
            self._carried.extend(poll(CHUNK_MESSAGES, IDLE_WAIT_S))
            if not self._carried:
                return []
        apart_s = max(self._interval_s, min(APART_MAX_S, self._took_s / BUSY_SHARE_MAX))
        due_s = max(self._clock.monotonic_s() + LINGER_S, self._began_s + apart_s)
        gathered: list[Message] = []
        raw_bytes = 0
        drained = False
        while len(gathered) < ROUND_MESSAGES_MAX and raw_bytes < ROUND_RAW_BYTES_MAX:
            if not self._carried:
                if drained:
                    break
                left_s = max(0.0, due_s - self._clock.monotonic_s())
                self._carried.extend(fill(CHUNK_MESSAGES, left_s))
                # A full chunk says that there is more: a backlog is taken in large rounds, however late it gets.
                drained = len(self._carried) < CHUNK_MESSAGES and self._clock.monotonic_s() >= due_s
                continue
            raw_bytes += self._take(gathered, ROUND_MESSAGES_MAX - len(gathered), ROUND_RAW_BYTES_MAX - raw_bytes)
        self._began_s = self._clock.monotonic_s()
        self.is_behind = not drained
        return gathered

    def _take(self, gathered: list[Message], messages_max: int, raw_bytes_max: int) -> int:
        taken = 0
        for _ in range(min(messages_max, len(self._carried))):
            message = self._carried.popleft()
            gathered.append(message)
            taken += claimed_raw_bytes(message.value or b"")
            if taken >= raw_bytes_max:
                break
        return taken
