"""When to look for a newer bundle, and what came of it. Values only."""

from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

POLL_S: Final = 900.0  # s; announcements come within seconds, the poll finds what a lost or withheld one did not tell
POLL_JITTER: Final = 0.2  # of the pause, so that devices which came up together do not ask together
RETRY_FIRST_S: Final = 5.0  # s after a try that failed for reasons which pass
RETRY_MAX_S: Final = 900.0
SPREAD_S: Final = 2.0  # s; an announcement reaches all devices of a group at once, their questions should not

Outcome = Literal["current", "staged", "activated", "refused", "failed"]


class Verdict(Struct, frozen=True):
    """What one run of the updating process found.

    `current`: nothing newer. `staged`: `release` lies beside the active one, checked and ready for its trial.
    `activated`: the first bundle of this device is in force. `refused`: not to be trusted, or not for this device.
    `failed`: for a reason that passes. `reason` is a code of `edge_agent.updating.errors`, `detail` a line for the log.
    """

    outcome: Outcome
    release: int | None = None
    active: int | None = None
    timestamp_version: int = 0
    fetched_bytes: int = 0
    reason: str = ""
    detail: str = ""


class Watch(Struct, frozen=True):
    """When to look next, on the caller's clock; `announced` is the newest timestamp version heard of."""

    due_s: float
    announced: int = 0
    seen: int = 0
    failures: int = 0


def announced(watch: Watch, version: int, now_s: float, random: float) -> Watch:
    """Return the watch after an announcement; one that tells nothing new changes nothing. `random` is in [0, 1)."""
    if version <= max(watch.announced, watch.seen):
        return watch
    return replace(watch, announced=version, due_s=min(watch.due_s, now_s + SPREAD_S * random), failures=0)


def concluded(watch: Watch, verdict: Verdict, now_s: float, random: float) -> Watch:
    """Return the watch after a run. A refusal is looked at again with the next poll: the server may be set right."""
    seen = max(watch.seen, verdict.timestamp_version)
    spread = 1.0 + POLL_JITTER * (2.0 * random - 1.0)
    if verdict.outcome != "failed":
        return Watch(now_s + POLL_S * spread, watch.announced, seen)
    pause_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(watch.failures, 16))
    return Watch(now_s + pause_s * spread, watch.announced, seen, watch.failures + 1)
