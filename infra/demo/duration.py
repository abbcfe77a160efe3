"""How long the demo took as the person at the keyboard counts it: set-up and all."""

import time
from typing import Final

import msgspec
import psutil
from msgspec import Struct

from infra.setup.paths import last_setup_file

SAME_COMMAND_S: Final = 30.0  # s from the end of a set-up to the demo that it was made for


class _Setup(Struct, frozen=True):
    ended_at_s: float
    seconds: float


def duration() -> dict[str, float | None]:
    """Return `demo_cold_s` or `demo_warm_s`, the other None: cold when set-up had something to do just before."""
    began_s = psutil.Process().create_time()
    took_s = time.time() - began_s
    file = last_setup_file()
    setup = msgspec.json.decode(file.read_bytes(), type=_Setup) if file.exists() else None
    # Not "after": the kernel tells a process's start from the boot, some hundredths of a second off the wall clock.
    if setup is not None and abs(began_s - setup.ended_at_s) < SAME_COMMAND_S:
        return {"demo_cold_s": round(setup.seconds + took_s, 1), "demo_warm_s": None}
    return {"demo_cold_s": None, "demo_warm_s": round(took_s, 1)}
