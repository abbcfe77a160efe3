"""`python -m benchmarks NAME`: run one benchmark, print its figures, write its result and plots."""

import argparse
import importlib
import pkgutil
import signal
import sys
from collections.abc import Sequence
from typing import Any

import benchmarks
from benchmarks.result import QUICK_DIR, RESULTS_DIR, write
from contracts.errors import FieldlakeError

NOT_BENCHMARKS = frozenset(
    {"__main__", "result", "probe", "steady", "detection", "chaos", "device", "crm_events", "hostile", "lake"}
    # Parts of `edge`.
    | {
        "edge_backlog",
        "edge_codec",
        "edge_memory",
        "edge_plots",
        "edge_pull",
        "edge_reduction",
        "edge_swap",
        "edge_throughput",
    }
)


def names() -> list[str]:
    """Return the names that may be asked for."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name.replace("_", "-") for name in found if name not in NOT_BENCHMARKS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 after writing the result, 1 with one line on standard error otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run one benchmark; figures go to benchmarks/results/NAME.json, plots beside it.",
        epilog="example: python -m benchmarks spine",
    )
    parser.add_argument("name", choices=names(), help="which one")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; into benchmarks/out")
    parser.add_argument("--only", default="", help="parts of it, separated by commas, where it has parts")
    parsed = parser.parse_args(arguments)
    name, only = parsed.name, [part for part in parsed.only.split(",") if part]
    if only and name != "edge":
        parser.error(f"--only: {name} is measured as a whole")
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    if parsed.quick and not hasattr(module, "QUICK"):
        parser.error(f"--quick: {name} has one size")
    folder = QUICK_DIR if parsed.quick else RESULTS_DIR
    options: dict[str, Any] = {"only": only} if only else {}
    options |= {"sizes": module.QUICK, "folder": folder} if parsed.quick else {}
    # Whatever started this and however it is told to end: what a benchmark has started is stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        measured = module.run(lambda text: sys.stderr.write(text + "\n"), **options)
    except (FieldlakeError, OSError) as error:
        sys.stderr.write(f"benchmark {name}: {error}\n")
        return 1
    path = write(measured, folder)
    for key, value in measured.figures.items():
        sys.stdout.write(f"{key:28} {value}\n")
    sys.stdout.write(f"written to {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
