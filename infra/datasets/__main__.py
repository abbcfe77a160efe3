"""`python -m infra.datasets --out DIR`: write the replay files, their truth, the CRM seed and a manifest."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from contracts.errors import OperatorMustActError
from infra.datasets.collection import DEFAULT_SEED, DEFAULT_START, Sources, write_datasets
from infra.setup import paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 after writing everything, 1 with one line on standard error otherwise."""
    options = _parser().parse_args(arguments)
    sources = Sources(options.shuttle, options.purchases, options.clicks)
    try:
        manifest = write_datasets(
            sources, options.out, seed=options.seed, fraction=options.fraction, start=options.start
        )
    except (OperatorMustActError, OSError) as error:
        sys.stderr.write(f"infra.datasets: {error}\n")
        return 1
    rows: Counter[tuple[str, str]] = Counter()
    for file in manifest.files:
        for kind, count in file.provenance.items():
            rows[file.contract or file.path, kind.value] += count
    for (what, provenance), count in rows.items():
        sys.stdout.write(f"{what:24} {count:>8,} rows, {provenance}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.datasets",
        description="Turn the data sets into one replay file per device, with truth files and the CRM seed.",
        epilog="example: python -m infra.datasets --out .fieldlake/data --fraction 0.1",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--fraction", type=float, default=1.0, metavar="F", help="share of the data, above 0 to 1")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of all that is generated")
    parser.add_argument(
        "--start",
        type=_instant,
        default=DEFAULT_START,
        metavar="TIME",
        help="first telemetry reading, with its zone",
    )
    parser.add_argument("--shuttle", type=Path, default=paths.shuttle_csv_gz(), metavar="FILE")
    parser.add_argument("--purchases", type=Path, default=paths.cdnow_purchases_txt(), metavar="FILE")
    parser.add_argument("--clicks", type=Path, default=paths.shop_clicks_csv_gz(), metavar="FILE")
    return parser


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a time like 2026-11-02T08:00:00Z, found {text!r}") from error
    if instant.tzinfo is None:
        raise argparse.ArgumentTypeError(f"expected a time with its zone, like 2026-11-02T08:00:00Z, found {text!r}")
    return instant


if __name__ == "__main__":
    sys.exit(main())
