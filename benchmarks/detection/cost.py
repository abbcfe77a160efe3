"""What the detectors cost a device, measured in a process that holds nothing else: prints one line of JSON.

Run by the environment of the device: `python -m benchmarks.detection.cost`.
"""

import json
import time
from typing import Final

import numpy as np

from edge_agent.adapters.process import pss_mb
from edge_agent.core.filter.detection import AnyDetector, save
from edge_agent.core.filter.level import LevelShift
from edge_agent.core.filter.novelty import Novelty

CHUNK_ROWS: Final = 64  # rows that the agent scores at once
CHUNKS: Final = 2_000
SENSORS: Final = 8


def measure() -> dict[str, float | None]:
    """Return processor time per event, bytes of state, and by how much the process grew over numpy (MB, 10^6 bytes)."""
    rows = np.random.default_rng(0).normal(size=(CHUNK_ROWS * CHUNKS, SENSORS))
    before_mb = pss_mb()
    novelty, novelty_us = _run(Novelty.start(), rows[:, :1])
    level, level_us = _run(LevelShift.start(SENSORS), rows)
    after_mb = pss_mb()
    return {
        "novelty_us_per_event": round(novelty_us, 2),
        "level_us_per_event": round(level_us, 2),
        "novelty_state_bytes": len(save(novelty)),
        "level_state_bytes": len(save(level)),
        "detectors_pss_mb": round(after_mb - before_mb, 1) if before_mb is not None and after_mb is not None else None,
        "process_pss_mb": after_mb,
    }


def _run(detector: AnyDetector, rows: np.ndarray) -> tuple[AnyDetector, float]:
    began = time.process_time()
    for first in range(0, len(rows), CHUNK_ROWS):
        detector, _ = detector.advance(rows[first : first + CHUNK_ROWS])
    return detector, (time.process_time() - began) / len(rows) * 1e6


if __name__ == "__main__":
    print(json.dumps(measure()))
