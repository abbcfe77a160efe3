"""The edge agent: what an event costs in bytes, time and memory, from one batch to a week without a network.

Each part is a module of its own and says there how it measures. `--only` runs some parts and keeps what the result file
has of the others; the result says of each part when, and at which commit, it was measured.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from benchmarks import (
    edge_backlog,
    edge_codec,
    edge_memory,
    edge_pull,
    edge_pull_lake,
    edge_reduction,
    edge_swap,
    edge_throughput,
)
from benchmarks.edge_plots import draw
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from contracts.errors import OperatorMustActError

NAME: Final = "edge"
MEMORY_S: Final = 600.0
CGROUP_MIB: Final = 91  # MiB; no more than 96 MB of 10^6 bytes
Progress = Callable[[str], None]
Measured = tuple[Mapping[str, float | None], Any]


def _codec(progress: Progress) -> Measured:
    figures, curves = edge_codec.measure(progress)
    return figures, {"rows": "held out of filter and dictionary", "plot": curves}


def _memory(progress: Progress) -> Measured:
    found = edge_memory.measure("full", MEMORY_S, progress)
    progress(f"memory, full profile: within {CGROUP_MIB} MiB ...")
    figures = {
        "pss_full_median_mb": found["median_mb"],
        "pss_full_max_mb": found["max_mb"],
        "cgroup_96mb_ok": edge_memory.cgroup_ok(CGROUP_MIB, MEMORY_S),
    }
    return figures, _memory_how("full", found) | {"cgroup": f"{CGROUP_MIB} MiB without swap, the whole run again"}


def _memory_lite(progress: Progress) -> Measured:
    found = edge_memory.measure("lite", MEMORY_S, progress)
    return {"pss_lite_median_mb": found["median_mb"], "pss_lite_max_mb": found["max_mb"]}, _memory_how("lite", found)


def _memory_how(profile: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {"seconds": MEMORY_S, "events_per_s": found["events_per_s"], "plot": {profile: found["samples"]}}


def _pull(progress: Progress) -> Measured:
    on_device = edge_pull.measure(progress)
    figures, how = edge_pull_lake.measure(progress)
    return {**on_device, **figures}, {"ring": edge_pull.RING, "device": edge_pull.ASKED, "lake": how}


PARTS: Final[dict[str, Callable[[Progress], Measured]]] = {
    "codec": _codec,
    "reduction": edge_reduction.measure,
    "throughput": edge_throughput.measure,
    "memory": _memory,
    "memory_lite": _memory_lite,
    "backlog": edge_backlog.measure,
    "swap": edge_swap.measure,
    "pull": _pull,
}


def run(progress: Progress, only: Sequence[str] = ()) -> Result:
    """Measure all parts, or some. Raises OperatorMustActError for a part that is none."""
    if unknown := set(only) - PARTS.keys():
        raise OperatorMustActError(f"edge: expected parts of {', '.join(PARTS)}, found {', '.join(sorted(unknown))}")
    before = _before() if only else None
    figures: Figures = dict(before.figures) if before is not None else {}
    how: dict[str, Any] = dict(before.how) if before is not None else {}
    for name in only or PARTS:
        progress(f"{name} ...")
        found, said = PARTS[name](progress)
        stamp = result(NAME, {}, {})
        how[name] = said | {"figures": sorted(found), "commit": stamp.commit, "when": stamp.when}
        figures |= found
    draw(RESULTS_DIR / f"{NAME}.png", {name: said["plot"] for name, said in how.items() if "plot" in said})
    return result(NAME, how, figures)


def _before() -> Result | None:
    path = RESULTS_DIR / f"{NAME}.json"
    return msgspec.json.decode(path.read_bytes(), type=Result) if path.exists() else None
