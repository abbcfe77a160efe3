"""Rows as text: a table for people, CSV and JSON for programs."""

import csv
import datetime as dt
import io
from typing import Any

import msgspec

from federation.trino import Result


def render(result: Result, output: str) -> str:
    """Return the rows as `table`, `csv` or `json` (one object per row), without a final line break."""
    if output == "json":
        return msgspec.json.format(msgspec.json.encode(result.dicts(), enc_hook=str)).decode()
    rows = [[_text(value) for value in row] for row in result.rows]
    return _csv(result.columns, rows) if output == "csv" else table(result.columns, rows)


def render_history(document: dict[str, Any]) -> str:
    """Return an asset's history as a table, then the statement of completeness."""
    columns = ("occurred_at", "kind", "work_order_id", "status", "part_no", "technician", "note")
    rows = [[_text(entry.get(name)) for name in columns] for entry in document["entries"]]
    complete = document["complete_up_to"]
    return (
        f"{document['asset_id']}: {len(rows)} entries\n{table(columns, rows)}\n"
        f"complete up to snapshot {complete['snapshot_id']}, committed {complete['committed_at']}"
    )


def table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return aligned columns; East Asian characters count for two."""
    from rich.cells import cell_len

    widths = [max(cell_len(text) for text in (name, *(row[i] for row in rows))) for i, name in enumerate(columns)]

    def line(cells: list[str]) -> str:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(list(columns)), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def _csv(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().rstrip("\n")


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)
