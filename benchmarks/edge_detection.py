"""The detectors of the agent on public sets of labelled anomalies, each by the set's own rules, and what they cost.

1. skab  `LevelShift` on every file of the Skoltech set: it learns from the first 400 rows, as all on its leaderboard.
2. nab   `Novelty` on every series of the Numenta set, with one threshold for all, as that set prescribes.
3. cost  both in a process of the device's environment.

Nothing is told a detector about the file that it reads. What was chosen by looking at labels is said in the result,
with what comes out when the choice is made without the files that it is judged on.
"""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.detection import nab, skab
from benchmarks.detection.plots import draw
from benchmarks.detection.published import scores_on
from benchmarks.detection.source import set_dir
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from contracts.errors import OperatorMustActError
from edge_agent.core.filter.level import LEVEL_ALARM, LevelSettings, LevelShift
from edge_agent.core.filter.novelty import NOVELTY_ALARM, Novelty, NoveltySettings
from infra.setup.paths import edge_env, python_of, repo_root

STANDARD: Final = "standard"
SPLITS: Final = 100  # random halves of the series; the mean over them is known to about half a point
SPLIT_SEED: Final = 20_240_811
CALM_LEARN_ROWS: Final = (400, 1_600, 3_200)  # seconds
CALM_FIRST_ROWS: Final = (0, 2_400)  # seconds; the rig is started at 0 and warms up
CALM_HORIZONS_ROWS: Final = (400, 1_600, 5_400)
THRESHOLDS: Final = np.arange(1.0, 8.0, 0.05)  # spreads, from which a left-out file's threshold is chosen

Scores = NDArray[np.float64]


def run(tell: Callable[[str], None]) -> Result:
    """Measure all three. Raises OperatorMustActError when a set is not there."""
    skab_dir, nab_dir = set_dir("skab"), set_dir("nab")
    records, corpus = skab.read_records(skab_dir), nab.read_corpus(nab_dir)
    tell(f"skab: {len(records)} files ...")
    levels = {record.name: LevelShift.start(len(skab.SENSORS)).advance(record.rows)[1] for record in records}
    skab_figures, skab_how = _judge_skab(records, levels)
    skab_how |= {"calm_record": _calm(skab.read_calm(skab_dir))}
    tell(f"nab: {len(corpus)} series ...")
    novelties = {series.name: Novelty.start().advance(series.values)[1] for series in corpus}
    nab_figures, nab_how = _judge_nab(nab_dir, corpus, novelties)
    tell("cost ...")
    cost = _cost()
    draw(RESULTS_DIR / "edge-detection.png", records, levels, corpus, novelties, nab_how)
    figures: Figures = {**skab_figures, **nab_figures, **cost}
    how = {"skab": skab_how, "nab": nab_how, "cost": "processor time for chunks of 64 events, 8 sensors for the level"}
    return result("edge-detection", how, figures)


def _judge_skab(records: tuple[skab.Record, ...], scores: Mapping[str, Scores]) -> tuple[dict[str, float], Any]:
    rest, whole = slice(skab.LEARN_ROWS, None), slice(None)
    judged = {record.name: _counts(record, scores, LEVEL_ALARM, rest) for record in records}
    together = skab.total(judged.values())
    files = skab.total(_counts(record, scores, LEVEL_ALARM, whole) for record in records)
    left_out = _left_out(records, scores)
    groups = sorted({name.partition("/")[0] for name in judged})
    figures = {
        "skab_f1": round(together.f1, 3),
        "skab_far": round(together.false_alarm_rate, 3),
        "skab_mar": round(together.missed_alarm_rate, 3),
        "skab_left_out_f1": round(left_out.f1, 3),
        "skab_left_out_far": round(left_out.false_alarm_rate, 3),
        "skab_whole_files_f1": round(files.f1, 3),
        "skab_whole_files_far": round(files.false_alarm_rate, 3),
    }
    how = {
        "protocol": "learned per file from its first 400 rows, judged on the other rows; counts of all files added up",
        "files": len(records),
        "detector": "edge_agent.core.filter.level, no opinion counts as no alarm",
        "settings": msgspec.to_builtins(LevelSettings()),
        "threshold": LEVEL_ALARM,
        "chosen": "settings and threshold by F1 on these files; left out: the threshold of each file by F1 on the rest",
        "whole_files": "rows that were learned from counted too, as in earlier versions of the leaderboard",
        "groups": {
            group: _shown(skab.total(found for name, found in judged.items() if name.startswith(f"{group}/")))
            for group in groups
        },
        "by_file": {name: _shown(found) for name, found in judged.items()},
    }
    return figures, how


def _calm(record: skab.Record) -> dict[str, Any]:
    """Return false alarm rates over hours without an anomaly, by how long and from which row the detector learned."""
    rates: dict[str, Any] = {
        "what": "share of rows alarmed in the record without an anomaly, in the rows after learning"
    }
    for learn_rows in CALM_LEARN_ROWS:
        for first in CALM_FIRST_ROWS:
            detector = LevelShift.start(len(skab.SENSORS), LevelSettings(learn_rows=learn_rows))
            judged = detector.advance(record.rows[first:])[1][learn_rows:] >= LEVEL_ALARM
            found = {f"next {rows}": round(float(judged[:rows].mean()), 3) for rows in CALM_HORIZONS_ROWS}
            rates[f"learned {learn_rows} rows from {first}"] = found
    return rates


def _left_out(records: tuple[skab.Record, ...], scores: Mapping[str, Scores]) -> skab.Counts:
    """Judge each file by the threshold that is best for all the others."""
    rest = slice(skab.LEARN_ROWS, None)
    table = [[_counts(record, scores, threshold, rest) for threshold in THRESHOLDS.tolist()] for record in records]
    judged = []
    for out, row in enumerate(table):
        others = [skab.total(column) for column in zip(*(r for n, r in enumerate(table) if n != out), strict=True)]
        judged.append(row[int(np.argmax([counts.f1 for counts in others]))])
    return skab.total(judged)


def _counts(record: skab.Record, scores: Mapping[str, Scores], threshold: float, rows: slice) -> skab.Counts:
    return skab.count(record.anomaly[rows], scores[record.name][rows] >= threshold)


def _shown(counts: skab.Counts) -> dict[str, float]:
    return {
        "f1": round(counts.f1, 3),
        "far": round(counts.false_alarm_rate, 3),
        "mar": round(counts.missed_alarm_rate, 3),
    }


def _judge_nab(
    folder: Path, corpus: tuple[nab.Series, ...], novelties: Mapping[str, Scores]
) -> tuple[dict[str, float], Any]:
    rows = {series.name: nab.rows_of(series) for series in corpus}
    scores = {series.name: novelties[series.name][series.probation_rows :] for series in corpus}
    profiles = nab.read_profiles(folder)
    thresholds = {name: nab.best_threshold(rows, scores, costs) for name, costs in profiles.items()}
    found = {name: nab.corpus_score(rows, scores, thresholds[name], costs) for name, costs in profiles.items()}
    costs = profiles[STANDARD]
    by_file = {name: nab.outcome(rows[name], scores[name] >= thresholds[STANDARD], costs) for name in rows}
    groups = sorted({name.partition("/")[0] for name in rows})
    figures = {
        "nab_standard": round(found[STANDARD], 1),
        **{f"nab_{name}": round(value, 1) for name, value in found.items() if name != STANDARD},
        "nab_default_threshold": round(nab.corpus_score(rows, scores, NOVELTY_ALARM, costs), 1),
        "nab_other_half": round(_other_half(rows, scores, costs), 1),
    }
    how = {
        "protocol": "windows and probation as labelled, one threshold per profile, the best for all series",
        "series": len(corpus),
        "windows": nab.window_count(list(rows.values())),
        "detector": "edge_agent.core.filter.novelty, no opinion counts as no alarm",
        "settings": msgspec.to_builtins(NoveltySettings()),
        "thresholds": thresholds,
        "chosen": "settings by the standard score on these series; default threshold: the one in the code; "
        f"other half: the threshold that is best for a random half of the series, judged on the others, mean of "
        f"{SPLITS} halves",
        "groups": {group: _group(group, rows, scores, thresholds[STANDARD], costs) for group in groups},
        "by_file": {name: msgspec.to_builtins(one) for name, one in by_file.items()},
        "published_on_these_series": scores_on(folder, STANDARD, rows, costs),
        "published": "by thresholds that were the best for the whole set of 58 series",
    }
    return figures, how


def _group(
    group: str, rows: Mapping[str, nab.Rows], scores: Mapping[str, Scores], threshold: float, costs: nab.Costs
) -> float | None:
    """Return a group's score; None for the group without a window."""
    part = {name: one for name, one in rows.items() if name.startswith(f"{group}/")}
    return round(nab.corpus_score(part, scores, threshold, costs), 1) if nab.window_count(list(part.values())) else None


def _other_half(rows: Mapping[str, nab.Rows], scores: Mapping[str, Scores], costs: nab.Costs) -> float:
    rng, names = np.random.default_rng(SPLIT_SEED), sorted(rows)
    found = []
    for _ in range(SPLITS):
        order = rng.permutation(len(names))
        fitted, judged = (
            {names[place]: rows[names[place]] for place in half} for half in np.split(order, [len(names) // 2])
        )
        found.append(nab.corpus_score(judged, scores, nab.best_threshold(fitted, scores, costs), costs))
    return float(np.mean(found))


def _cost() -> dict[str, float | None]:
    command = [str(python_of(edge_env())), "-m", "benchmarks.detection.cost"]
    done = subprocess.run(command, cwd=repo_root(), capture_output=True, check=False)
    if done.returncode != 0:
        raise OperatorMustActError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.decode()[-500:]}")
    return msgspec.json.decode(done.stdout, type=dict[str, float | None])
