"""`python -m infra.packaging`: build the agent's Debian package."""

import argparse
import os
import sys
from pathlib import Path

from contracts.errors import FieldlakeError
from infra.packaging import debian, tree
from infra.setup.paths import repo_root


def main() -> int:
    """Build it; return 0, or 1 when that did not work."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.packaging",
        description="Build the Debian package of the edge agent; the same sources give the same bytes.",
        epilog="example: python -m infra.packaging --out out/deb",
    )
    parser.add_argument("--out", type=Path, default=repo_root() / "out" / "deb", metavar="DIR", help="where it goes")
    parser.add_argument("--architecture", help="Debian's name of it [default: this machine's]")
    parser.add_argument("--packages", type=Path, metavar="DIR", help="installed packages, for another architecture")
    options = parser.parse_args()
    try:
        recipe = tree.recipe(options.architecture or debian.architecture(), options.packages)
        made = debian.build(recipe, options.out, debian.source_date_s(os.environ))
    except (FieldlakeError, OSError) as error:
        sys.stderr.write(f"package: {error}\n")
        return 1
    sys.stdout.write(f"{made} {made.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
