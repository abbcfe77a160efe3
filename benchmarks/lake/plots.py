"""Pictures of the lakehouse's figures: what grows, falls or stays over time, beside what it is told by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")  # no display: it writes files only
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOTS_PER_INCH: Final = 80
PANEL_INCHES: Final = (10.0, 3.6)
MANY: Final = 300  # points; more of them are a cloud, fewer are to be seen one by one
DOT: Final = 2.0
MARK: Final = 6.0

Points = Sequence[tuple[float, float]]
Lines = Mapping[str, Points]


def bars_and_lines(path: Path, bars_title: str, bars: Mapping[str, float], lines_title: str, lines: Lines) -> None:
    """Write a picture of some heights, and of some curves over seconds below it."""
    figure, axes = _panels(2)
    axes[0].bar(list(bars), list(bars.values()))
    for place, height in enumerate(bars.values()):
        axes[0].annotate(f"{height:,.0f}", (place, height), ha="center", va="bottom")
    axes[0].set(title=bars_title)
    axes[0].margins(y=0.15)
    _draw(axes[1], lines, lines_title, "s", "")
    _write(figure, path)


def panels(path: Path, shown: Sequence[tuple[str, str, str, Lines]], dots: bool = False) -> None:
    """Write a picture of panels below each other, each a title, the axes' labels and its curves; `dots`: no lines."""
    figure, axes = _panels(len(shown))
    for axis, (title, x_label, y_label, lines) in zip(axes, shown, strict=True):
        _draw(axis, lines, title, x_label, y_label, "." if dots else "-")
    _write(figure, path)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    size = (PANEL_INCHES[0], PANEL_INCHES[1] * count)
    figure, axes = plt.subplots(count, 1, figsize=size, squeeze=False)
    return figure, list(axes[:, 0])


def _draw(axis: Axes, lines: Lines, title: str, x_label: str, y_label: str, style: str = "-") -> None:
    for name, points in lines.items():
        size = DOT if len(points) > MANY else MARK
        axis.plot([x for x, _ in points], [y for _, y in points], style, label=name, markersize=size)
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    axis.set_ylim(bottom=0)
    if len(lines) > 1:
        axis.legend()


def _write(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
