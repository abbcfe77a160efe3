"""What a swap of bundles costs a device that goes on with live chunks. A part of the edge's figures.

Two bundles take turns, with other models, rules and dictionaries: each is loaded beside the one in force, tried,
swapped in and kept, by the agent's own code in a process of the device's environment. Figures are of the swaps after a
warm-up.

- Pause: the longest time in which the loop did nothing but a part of a swap. What loading costs the chunks beside it,
  and the first chunk after a swap, stand in the result too.
- Unscored: events that the ledger does not account for, and rows that went without a score, which all should have.
- Memory: growth of the process, between the first swaps after the warm-up and the last ones.
"""

import hashlib
import os
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from benchmarks.device.swapping import MEMORY_SWAPS, STREAM, Swapped, Work
from benchmarks.device.workload import readings, write_bundle
from benchmarks.edge_codec import telemetry
from contracts import bundle as bundles
from contracts.bundle import BUNDLE_FILE, Dictionary
from contracts.edge_rules import Compare, EdgeRule, Keep
from contracts.errors import OperatorMustActError
from edge_agent.environment import AGENT_ENVIRONMENT
from infra.setup.paths import edge_python, repo_root, shuttle_csv_gz
from onnx_models import read_sensor_record
from onnx_models.factory import MODEL_FILE, build_filter, write_filter
from onnx_models.training import ForestOptions

SWAPS: Final = 1_000
WARM_UP: Final = 50
CHUNK_EVENTS: Final = 200  # a fifth of a second at 1,000 events/s
EVENTS: Final = 40_000
ENDS_WITHIN_S: Final = 1_800.0
LOG_TAIL_CHARS: Final = 600


def measure(
    progress: Callable[[str], None], swaps: int = SWAPS, warm_up: int = WARM_UP
) -> tuple[dict[str, float | int], dict[str, Any]]:
    """Return the figures, and what was done and seen for them. Raises OperatorMustActError."""
    with TemporaryDirectory(prefix="fieldlake-swap-") as name:
        folder = Path(name)
        progress("swap: making two bundles ...")
        work = Work(str(folder), _bundles(folder), str(_events(folder)), swaps, warm_up, CHUNK_EVENTS)
        progress(f"swap: {warm_up} + {swaps} swaps ...")
        seen = _swapped(work)
    edge = max(1, min(MEMORY_SWAPS, len(seen.memory_mb) // 2))
    grown_mb = statistics.median(seen.memory_mb[-edge:]) - statistics.median(seen.memory_mb[:edge])
    figures = {
        "swap_pause_ms": round(max(seen.pauses_ms), 2),
        "swap_unscored": seen.observed - seen.accounted + seen.unscored,
        "swap_memory_mb": round(grown_mb, 1),
    }
    how = {
        "swaps": len(seen.pauses_ms),
        "events": seen.observed,
        "rules and models in the ledger": seen.versions,
        "pause, median ms": round(statistics.median(seen.pauses_ms), 2),
        "chunk, median ms": round(statistics.median(seen.chunks_ms), 2),
        "chunk beside loading, median and most ms": _median_and_most(seen.chunks_while_loading_ms),
        "first chunk after a swap, median and most ms": _median_and_most(seen.first_chunks_ms),
        "PSS at most, MB": round(max(seen.memory_mb), 1),
        "plot": {"pss": list(enumerate(seen.memory_mb)), "pause": list(enumerate(seen.pauses_ms))},
    }
    return figures, how


def _median_and_most(values: list[float]) -> list[float]:
    return [round(statistics.median(values), 2), round(max(values), 2)]


def _bundles(folder: Path) -> tuple[str, str]:
    """Write two bundles that keep much the same, by other means."""
    one, other = folder / "one", folder / "other"
    document = write_bundle(one)
    write_bundle(other)
    write_filter(build_filter(shuttle_csv_gz(), seed=1, options=ForestOptions()), other)
    manifest = msgspec.json.decode((other / "model.json").read_bytes(), type=bundles.Model)
    dictionary = telemetry().dictionary
    (other / "telemetry.zdict").write_bytes(dictionary)
    rule = EdgeRule("all-alike", 1, Keep(), Compare("f1", "eq", -1_000_000))
    stream = replace(document.streams[0], model=manifest.id, rules=(rule,))
    changed = replace(document, version="2", streams=(stream,), models=(manifest,), dictionaries=(_entry(dictionary),))
    (other / BUNDLE_FILE).write_bytes(bundles.encode(changed))
    assert (other / MODEL_FILE).exists()
    return str(one), str(other)


def _entry(data: bytes) -> Dictionary:
    return Dictionary(int.from_bytes(data[4:8], "little"), STREAM, "telemetry.zdict", hashlib.sha256(data).hexdigest())


def _events(folder: Path) -> Path:
    path = folder / "events.jsonl"
    with path.open("wb") as file:
        for block in readings(read_sensor_record(shuttle_csv_gz()), EVENTS, 4, 1_000):
            file.write(block)
    return path


def _swapped(work: Work) -> Swapped:
    """Run the swaps in the device's environment. Raises OperatorMustActError when they do not come to their end."""
    done = subprocess.run(
        [str(edge_python()), "-m", "benchmarks.device.swapping"],
        input=msgspec.json.encode(work),
        capture_output=True,
        cwd=repo_root(),
        env=os.environ | AGENT_ENVIRONMENT | {"PYTHONPATH": str(repo_root())},
        timeout=ENDS_WITHIN_S,
        check=False,
    )
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace")[-LOG_TAIL_CHARS:].strip()
        raise OperatorMustActError(f"swap: expected {work.swaps} swaps, the device ended with: {tail}")
    return msgspec.json.decode(done.stdout, type=Swapped)
