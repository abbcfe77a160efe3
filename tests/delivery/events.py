"""The kit's own events: each carries its number, so that what arrives can be told from what was offered."""

import datetime
import json
import random
from typing import Any, Final

START: Final = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def event(number: int, text: str | None = None, **changes: Any) -> bytes:
    """Return one valid event as a line of JSON, without the newline."""
    moment = START + datetime.timedelta(milliseconds=250 * number)
    fields: dict[str, Any] = {
        "subject": f"machine-{number % 5}",
        "occurred_at": moment.isoformat().replace("+00:00", "Z"),
        "number": number,
    }
    if text is not None:
        fields["text"] = text
    return json.dumps(fields | changes, ensure_ascii=False, separators=(",", ":")).encode()


def events(first: int, end: int) -> list[bytes]:
    """Return the events [first, end)."""
    return [event(number, f"reading {number}") for number in range(first, end)]


def bulky(first: int, end: int) -> list[bytes]:
    """Return events of about 40 kB that hardly compress, so that few fit into one batch."""
    rng = random.Random(first)
    return [event(number, rng.randbytes(20_000).hex()) for number in range(first, end)]
