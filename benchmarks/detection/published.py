"""What was published of other detectors on the Numenta set, file by file."""

import csv
from collections.abc import Mapping
from pathlib import Path

from benchmarks.detection import nab
from benchmarks.detection.source import malformed


def read(path: Path) -> dict[str, tuple[float, nab.Outcome]]:
    """Return threshold and outcome by file. Raises OperatorMustActError for a table that is not as described."""
    with path.open(encoding="ascii", newline="") as lines:
        try:
            return {
                row["File"]: (
                    float(row["Threshold"]),
                    nab.Outcome(float(row["Score"]), int(row["TP"]), int(row["FP"]), int(row["FN"]), int(row["TN"])),
                )
                for row in csv.DictReader(lines)
            }
        except (KeyError, ValueError) as error:
            raise malformed(path, "a threshold, a score and four counts by file", str(error)) from error


def scores_on(folder: Path, profile: str, corpus: Mapping[str, nab.Rows], costs: nab.Costs) -> dict[str, float]:
    """Return the scaled score of every detector that was run on all series of `corpus`, on these alone."""
    found: dict[str, float] = {}
    windows = nab.window_count(list(corpus.values()))
    for path in sorted((folder / "reference" / "per_file_scores").glob(f"*_{profile}.csv")):
        table = read(path)
        if corpus.keys() <= table.keys():
            total = sum(table[name][1].score for name in corpus)
            found[path.name.removesuffix(f"_{profile}.csv")] = round(nab.scaled(total, windows, costs), 1)
    return found
