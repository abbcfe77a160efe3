"""Plots of a run as PNG files, for people who would rather look."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")  # no display: it writes files only
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

DOTS_PER_INCH: Final = 110
SIZE_INCHES: Final = (9.0, 4.5)


def distributions(path: Path, title: str, series: Mapping[str, Sequence[float]], aims_ms: Mapping[str, float]) -> None:
    """Draw each series of latencies (ms) as a cumulative distribution, its aim as a dashed line in its colour.

    Nothing is drawn without a series.
    """
    if not series:
        return
    figure, axes = plt.subplots(figsize=SIZE_INCHES)
    for name, samples in series.items():
        ordered = sorted(samples)
        shares = [(i + 1) / len(ordered) * 100 for i in range(len(ordered))]
        (line,) = axes.plot(ordered, shares, label=f"{name} (n={len(ordered)})")
        if name in aims_ms:
            axes.axvline(aims_ms[name], color=line.get_color(), linestyle="--", linewidth=0.8)
    axes.set(title=title, xlabel="ms (dashed: aim)", ylabel="% at most", xscale="log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper left")
    _save(figure, path)


def bars(path: Path, title: str, unit: str, values: Mapping[str, float]) -> None:
    """Draw one horizontal bar per name, largest on top, with its value."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    figure, axes = plt.subplots(figsize=(SIZE_INCHES[0], max(2.0, 0.32 * len(ordered) + 1.2)))
    drawn = axes.barh([name for name, _ in ordered], [value for _, value in ordered])
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.set(title=title, xlabel=unit)
    axes.margins(x=0.12)
    _save(figure, path)


def timeline(path: Path, title: str, points: Sequence[tuple[float, float]], marks: Mapping[str, float]) -> None:
    """Draw latency (ms) over the run's time (s), with a labelled line at each moment in `marks`, if any."""
    if not points:  # a logarithmic axis cannot be drawn over nothing
        return
    figure, axes = plt.subplots(figsize=SIZE_INCHES)
    axes.scatter([at for at, _ in points], [value for _, value in points], s=6, alpha=0.6)
    for name, at in marks.items():
        axes.axvline(at, color="tab:red", linewidth=0.8)
        axes.annotate(name, (at, axes.get_ylim()[1]), rotation=90, va="top", ha="right", fontsize=8)
    axes.set(title=title, xlabel="s since the fleet started", ylabel="ms", yscale="log")
    axes.grid(visible=True, alpha=0.3)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
