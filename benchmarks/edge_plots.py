"""The edge's figures as one picture, a panel for each part that has something to show."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no display: it writes files only
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

DOTS_PER_INCH: Final = 80
PANEL_INCHES: Final = (8.0, 4.0)


def draw(path: Path, plots: Mapping[str, Any]) -> None:
    """Write the picture of the parts that there are data of."""
    panels = [(name, PANELS[name], data) for name, data in plots.items() if name in PANELS]
    if not panels:
        return
    size = (PANEL_INCHES[0], PANEL_INCHES[1] * len(panels))
    figure, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False)
    for axis, (name, panel, data) in zip(axes[:, 0], panels, strict=True):
        panel(axis, data)
        axis.set_title(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _codec(axes: Axes, curves: Any) -> None:
    for name, sizes in curves.items():
        places = sorted((int(size), value) for size, value in sizes.items())
        axes.plot(*zip(*places, strict=True), marker="o", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("rows per batch")
    axes.set_ylabel("bytes per event")
    axes.legend()


def _memory(axes: Axes, samples: Any) -> None:
    for name, points in samples.items():
        axes.plot(*zip(*points, strict=True), label=name)
    axes.set_xlabel("s")
    axes.set_ylabel("PSS, MB")
    axes.set_ylim(bottom=0)
    axes.legend()


def _backlog(axes: Axes, data: Any) -> None:
    at_s, size_bytes = np.array(data["drained"]).T
    axes.plot(at_s, np.cumsum(size_bytes) / 1e6, label="at the lake")
    axes.set_xlabel("s since the restart")
    axes.set_ylabel("MB")
    memory = axes.twinx()
    memory.plot(*zip(*data["pss"], strict=True), color="tab:red", label="PSS")
    memory.set_ylabel("PSS, MB")
    memory.set_ylim(bottom=0)


def _swap(axes: Axes, data: Any) -> None:
    axes.plot(*zip(*data["pause"], strict=True), linewidth=0.7, label="pause")
    axes.set_xlabel("swap")
    axes.set_ylabel("pause, ms")
    axes.set_ylim(bottom=0)
    memory = axes.twinx()
    memory.plot(*zip(*data["pss"], strict=True), color="tab:red", label="PSS")
    memory.set_ylabel("PSS, MB")
    memory.set_ylim(bottom=0)


PANELS: Final[dict[str, Callable[[Axes, Any], None]]] = {
    "codec": _codec,
    "memory": _memory,
    "memory_lite": _memory,
    "backlog": _backlog,
    "swap": _swap,
}
