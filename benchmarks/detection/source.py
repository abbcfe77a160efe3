"""Where the sets lie. They are not part of the repository."""

import os
from pathlib import Path
from typing import Final

from contracts.errors import OperatorMustActError
from infra.setup.paths import repo_root

DATA_DIR_VARIABLE: Final = "FIELDLAKE_DATA_DIR"


def data_dir() -> Path:
    """Return the folder of the data sets: what the variable names, else `../shared/data` beside the checkout."""
    named = os.environ.get(DATA_DIR_VARIABLE, "")
    return Path(named) if named else repo_root().parent / "shared" / "data"


def set_dir(name: str) -> Path:
    """Return the folder of one set. Raises OperatorMustActError when it is not there."""
    folder = data_dir() / name
    if not folder.is_dir():
        raise OperatorMustActError(
            f"data set {name!r}: expected the folder {folder}, found none: "
            f"put it there, or name the folder of all sets in {DATA_DIR_VARIABLE}"
        )
    return folder


def malformed(path: Path, expected: str, found: object) -> OperatorMustActError:
    """Return the error for a file that is not what the set's description says."""
    return OperatorMustActError(f"{path}: expected {expected}, found {found!r}: fetch the data set again")
