"""Lines of a CSV file to events, however the lines come in: a record with a quoted line break is one event."""

import csv
from collections.abc import Iterator, Sequence

import msgspec

from edge_agent.core.refusal import EVENT_BYTES_MAX


class CsvRecords:
    """Records as JSON objects of text; an empty cell is a field that is not there.

    What is no record is an event too, and none that a contract accepts: another number of cells becomes an array, text
    that is not UTF-8 or a quote that stays open for more than an event's length a string.
    """

    def __init__(self) -> None:
        self._header: list[str] | None = None
        self._pending: list[bytes] = []  # lines of a record that has not ended

    def feed(self, lines: Sequence[bytes]) -> list[bytes]:
        """Return the events that these lines complete."""
        self._pending += lines
        events: list[bytes] = []
        while self._pending and self._parse(events, final=False):
            pass
        return events

    def finish(self) -> list[bytes]:
        """Return the record that the end of the file cut off, and begin anew with a header."""
        events: list[bytes] = []
        while self._pending and self._parse(events, final=True):
            pass
        self._header = None
        return events

    def _parse(self, events: list[bytes], *, final: bool) -> bool:
        """Parse what is pending; say whether to go on, behind a line that is given up.

        A record of several lines that is longer than an event is given up whether its end is there or not: what becomes
        of a line must not depend on how much had been read by then.
        """
        lines = _Lines(self._pending)
        records = csv.reader(lines)
        begin = 0
        while begin < len(self._pending):
            try:
                record: list[str] | str = next(records)
            except csv.Error as error:
                record = f"not a CSV record: {error}"
            size = sum(map(len, self._pending[begin : lines.at])) if lines.at > begin + 1 or lines.ran_dry else 0
            if size > EVENT_BYTES_MAX or (lines.ran_dry and final):
                self._take(f"not a CSV record: {_text(self._pending[begin])}", events)
                del self._pending[: begin + 1]
                return True
            if lines.ran_dry:
                break
            self._take(record, events)
            begin = lines.at
        del self._pending[:begin]
        return False

    def _take(self, record: list[str] | str, events: list[bytes]) -> None:
        if isinstance(record, list) and self._header is None:
            self._header = record
        else:
            events.append(self._event(record))

    def _event(self, record: list[str] | str) -> bytes:
        header = self._header or []
        try:
            if isinstance(record, str) or len(record) != len(header):
                return msgspec.json.encode(record)
            return msgspec.json.encode({name: cell for name, cell in zip(header, record, strict=True) if cell})
        except UnicodeEncodeError:
            text = record if isinstance(record, str) else ",".join(record)
            return msgspec.json.encode(f"not UTF-8: {text.encode('utf-8', 'surrogateescape').decode(errors='replace')}")


class _Lines(Iterator[str]):
    """Lines as the CSV parser asks for them: `at` is how many it had, `ran_dry` that it wanted more."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines
        self.at = 0
        self.ran_dry = False

    def __next__(self) -> str:
        if self.at == len(self._lines):
            self.ran_dry = True
            raise StopIteration
        line = _text(self._lines[self.at])
        self.at += 1
        return line + "\n"


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
