"""The result of the detectors as one picture: a bar for every file, and some files with what was told of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")  # no display: it writes files only
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.detection import nab, skab
from edge_agent.core.filter.level import LEVEL_ALARM

DOTS_PER_INCH: Final = 90
SIZE_INCHES: Final = (15.0, 17.0)
EXAMPLES_SKAB: Final = ("valve1/10", "other/9")
EXAMPLES_NAB: Final = (
    "realKnownCause/machine_temperature_system_failure.csv",
    "realKnownCause/ec2_request_latency_system_failure.csv",
    "realTraffic/speed_7578.csv",
    "realTweets/Twitter_volume_UPS.csv",
)

Scores = NDArray[np.float64]


def draw(
    path: Path,
    records: Sequence[skab.Record],
    levels: Mapping[str, Scores],
    corpus: Sequence[nab.Series],
    novelties: Mapping[str, Scores],
    nab_how: Mapping[str, Any],
) -> None:
    """Write the picture; examples that are not in the sets are left out."""
    figure, axes = plt.subplots(4, 2, figsize=SIZE_INCHES, height_ratios=(3, 1, 1, 1))
    _skab_bars(axes[0, 0], records, levels)
    _nab_bars(axes[0, 1], nab_how)
    shown_records = [record for record in records if record.name in EXAMPLES_SKAB]
    for panel, record in zip(axes[1], shown_records, strict=False):
        _record(panel, record, levels[record.name])
    shown_series = [series for series in corpus if series.name in EXAMPLES_NAB]
    for panel, series in zip(axes[2:].ravel(), shown_series, strict=False):
        _series(panel, series, novelties[series.name], float(nab_how["thresholds"]["standard"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _skab_bars(axes: Axes, records: Sequence[skab.Record], levels: Mapping[str, Scores]) -> None:
    rest = slice(skab.LEARN_ROWS, None)
    counts = [skab.count(r.anomaly[rest], levels[r.name][rest] >= LEVEL_ALARM) for r in records]
    places = np.arange(len(records))
    axes.barh(places - 0.2, [one.f1 for one in counts], height=0.4, label="F1")
    axes.barh(places + 0.2, [one.false_alarm_rate for one in counts], height=0.4, label="false alarm rate")
    axes.set_yticks(places, [record.name for record in records], fontsize=7)
    axes.set(title="Skoltech rig: level shifts, by file", xlim=(0, 1))
    axes.invert_yaxis()
    axes.legend()


def _nab_bars(axes: Axes, how: Mapping[str, Any]) -> None:
    names = list(how["by_file"])
    values = [how["by_file"][name]["score"] for name in names]
    axes.barh(np.arange(len(names)), values)
    axes.set_yticks(np.arange(len(names)), [name.partition("/")[2].removesuffix(".csv") for name in names], fontsize=7)
    axes.axvline(0.0, color="black", linewidth=0.6)
    axes.set(title="Numenta set: novelty, points by series in the standard profile")
    axes.invert_yaxis()


def _record(axes: Axes, record: skab.Record, scores: Scores) -> None:
    axes.plot(scores, linewidth=0.7, label="score")
    axes.axhline(LEVEL_ALARM, color="black", linewidth=0.6, linestyle="--", label="threshold")
    axes.axvline(skab.LEARN_ROWS, color="tab:green", linewidth=0.8, label="learned until")
    axes.fill_between(
        np.arange(len(scores)), 0, 1, where=record.anomaly, transform=axes.get_xaxis_transform(), alpha=0.2, color="red"
    )
    axes.set_yscale("symlog", linthresh=LEVEL_ALARM)
    axes.set(title=f"{record.name}: anomaly in red")
    axes.legend(fontsize=7)


def _series(axes: Axes, series: nab.Series, scores: Scores, threshold: float) -> None:
    axes.plot(series.values, linewidth=0.5)
    for first, last in series.windows:
        axes.axvspan(first, last, alpha=0.2, color="red")
    told = np.flatnonzero(scores >= threshold)
    told = told[told >= series.probation_rows]
    axes.plot(told, series.values[told], "v", color="black", markersize=4)
    axes.axvline(series.probation_rows, color="tab:green", linewidth=0.8)
    axes.set_title(f"{series.name.partition('/')[2]}: windows in red, alarms as triangles", fontsize=9)
