"""`python -m benchmarks NAME`: run one benchmark, print its figures, write its result and plots."""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import benchmarks
from benchmarks.result import write
from contracts.errors import FieldlakeError

PARTS = frozenset({"edge_codec", "edge_throughput", "edge_reduction"})  # of a benchmark that is run as a whole
NOT_BENCHMARKS = PARTS | {"__main__", "result", "probe", "steady", "detection", "device", "crm_events", "hostile"}


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
    name = parser.parse_args(arguments).name
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    try:
        measured = module.run(lambda text: sys.stderr.write(text + "\n"))
    except (FieldlakeError, OSError) as error:
        sys.stderr.write(f"benchmark {name}: {error}\n")
        return 1
    path = write(measured)
    for key, value in measured.figures.items():
        sys.stdout.write(f"{key:28} {value}\n")
    sys.stdout.write(f"written to {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
