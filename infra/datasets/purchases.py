"""The CDNOW purchases of 1997 and 1998, as two shop collectors saw them.

The file has days, no hours: every purchase is put at midnight UTC of its day. A collector sees whole customers, in the
order of days. Some lines of the file are equal to each other; they are purchases like any other and all stay.
"""

from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from infra.datasets.errors import SourceFileError
from infra.datasets.replay import Provenance, Replay, iso_times, thinned

CONTRACT: Final = "purchases"
COLLECTORS: Final = ("shop-01", "shop-02")
_COLUMNS: Final = 4


class Purchase(Struct, frozen=True):
    """One purchase, as the contract names its fields."""

    customer_id: str
    occurred_at: str
    number_of_cds: int
    dollar_value: float


def customer_id(number: int) -> str:
    """Return our name of a customer of the file, who has a number from 1."""
    return f"C-{number:05d}"


def read_purchases(path: Path, fraction: float) -> list[Replay]:
    """Return the purchases of an evenly spread `fraction` of the customers. Raises SourceFileError."""
    customers, days_us, counts, amounts = _read_columns(path)
    numbers = np.unique(customers)
    chosen = np.isin(customers, numbers[thinned(len(numbers), fraction)])
    order = np.lexsort((np.arange(len(customers)), days_us))
    order = order[chosen[order]]
    replays = []
    for index, collector in enumerate(COLLECTORS):
        rows = order[customers[order] % len(COLLECTORS) == (index + 1) % len(COLLECTORS)]
        columns = (customers[rows].tolist(), iso_times(days_us[rows]), counts[rows].tolist(), amounts[rows].tolist())
        events = [
            Purchase(customer_id(customer), time, count, amount)
            for customer, time, count, amount in zip(*columns, strict=True)
        ]
        replays.append(Replay(CONTRACT, collector, events, {Provenance.REAL: len(events)}))
    return replays


def read_customer_numbers(path: Path) -> list[int]:
    """Return the number of every customer of the file, ascending. Raises SourceFileError."""
    numbers: list[int] = np.unique(_read_columns(path)[0]).tolist()
    return numbers


_Integers = NDArray[np.int64]
_Floats = NDArray[np.float64]


def _read_columns(path: Path) -> tuple[_Integers, _Integers, _Integers, _Floats]:
    """Return customer number, day in microseconds, number of CDs and amount of every line below the header."""
    try:
        words = path.read_text(encoding="ascii").partition("\n")[2].split()
        table = np.array(words, dtype=np.float64).reshape(-1, _COLUMNS)
    except (OSError, ValueError) as error:
        raise SourceFileError(
            f"{path}: expected {_COLUMNS} numbers a line ({error}): install lifetimes again"
        ) from error
    days = table[:, 1].astype(np.int64).astype(np.str_)
    try:
        iso_days = [f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in days.tolist()]
        times_us = np.array(iso_days, dtype="datetime64[us]").astype(np.int64)
    except ValueError as error:
        raise SourceFileError(f"{path}: expected days as YYYYMMDD ({error}): install lifetimes again") from error
    return table[:, 0].astype(np.int64), times_us, table[:, 2].astype(np.int64), table[:, 3]
