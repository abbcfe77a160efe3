"""The log is bounded whatever is logged: by kinds, by lines, by bytes, and it holds no secret."""

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import logs
from edge_agent.core import folding
from edge_agent.core.folding import INTERVAL_S, LINE_CHARS_MAX, LINES_MAX, SAME_MAX, Folding, Line, cleaned
from edge_agent.errors import ConfigError
from edge_agent.logs import FILE_BYTES_MAX, FILES_MAX, BoundedHandler, RotatedFile


class Clock:
    at_s = 100.0

    def now_s(self) -> float:
        return self.at_s


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was afterwards."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield root
    for handler in [one for one in root.handlers if one not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def line(text: str, level: int = logging.WARNING) -> Line:
    return Line(level, "edge_agent.courier", text)


def handler_to(written: list[str], clock: Clock, *, journal: bool = False) -> BoundedHandler:
    return BoundedHandler(written.append, clock.now_s, journal=journal)


def log(handler: BoundedHandler, text: str, *arguments: object, level: int = logging.WARNING) -> None:
    handler.emit(logging.LogRecord("edge_agent.courier", level, __file__, 1, text, arguments, None))


def test_repeats_are_written_a_few_times_and_then_counted() -> None:
    written: list[str] = []
    clock = Clock()
    handler = handler_to(written, clock)
    for number in range(1_000):
        log(handler, "segment %d cannot be read: trying again", number)
    assert len(written) == SAME_MAX
    clock.at_s += INTERVAL_S
    handler.tick()
    assert written[-1].endswith(
        f"edge_agent.courier {1_000 - SAME_MAX} more like: segment 0 cannot be read: trying again\n"
    )
    log(handler, "segment %d cannot be read: trying again", 7)
    assert len(written) == SAME_MAX + 2


def test_what_was_counted_is_told_when_the_process_ends() -> None:
    written: list[str] = []
    handler = handler_to(written, Clock())
    for _ in range(SAME_MAX + 3):
        log(handler, "the same")
    handler.close()
    assert "3 more like: the same" in written[-1]


def test_a_burst_of_different_lines_is_bounded_too() -> None:
    written: list[str] = []
    clock = Clock()
    handler = handler_to(written, clock)
    for number in range(20_000):
        log(handler, f"trouble {chr(0x4E00 + number % 2_000)}{chr(97 + number % 23)} {'x' * 5_000}")
    assert len(written) <= LINES_MAX
    assert sum(map(len, written)) <= LINES_MAX * (LINE_CHARS_MAX + 100)
    clock.at_s += INTERVAL_S
    handler.tick()
    assert f"more {logs.MANY_KINDS}" in written[-1]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 30)), max_size=300))
def test_every_line_is_written_or_counted(steps: list[tuple[str, float]]) -> None:
    fold, now_s, written, counted = Folding(), 0.0, 0, 0
    for text, wait_s in steps:
        now_s += wait_s
        counted += sum(repeated.count for repeated in fold.due(now_s))
        written += fold.admits(line(text), now_s)
    counted += sum(repeated.count for repeated in fold.due(now_s, ends=True))
    assert written + counted == len(steps)
    assert fold.due(now_s + 2 * INTERVAL_S) == ()


def test_levels_and_loggers_are_kinds_of_their_own_and_memory_is_bounded() -> None:
    fold = Folding()
    assert all(fold.admits(line("x", level), 0.0) for level in (logging.INFO, logging.ERROR) for _ in range(SAME_MAX))
    for number in range(10 * folding.KINDS_MAX):
        fold.admits(line("k" * (number % 100) + chr(0x4E00 + number)), 0.0)
    assert len(fold._seen) <= folding.KINDS_MAX + 1
    assert sum(len(one.text) for one in fold._first.values()) <= LINES_MAX * LINE_CHARS_MAX


def test_a_clock_that_jumps_back_ends_an_interval() -> None:
    fold = Folding()
    for _ in range(SAME_MAX + 1):
        fold.admits(line("x"), 1_000.0)
    assert [repeated.count for repeated in fold.due(10.0)] == [1]


@pytest.mark.parametrize(
    "text",
    [
        "token: Gh7_s3cr3t-value",
        "refused, header Authorization: Bearer Gh7_s3cr3t-value",
        "password=Gh7_s3cr3t-value&x=1",
        'config {"api_key": "Gh7_s3cr3t-value"}',
        "-----BEGIN PRIVATE KEY-----\nGh7_s3cr3t-value\n-----END PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY----- Gh7_s3cr3t-value and no end",
    ],
)
def test_what_looks_like_a_secret_is_left_out(text: str) -> None:
    assert "s3cr3t" not in cleaned(text)
    assert "[secret left out]" in cleaned(text)


def test_a_line_is_one_line_of_bounded_length() -> None:
    shown = cleaned("可疑\n2026-01-01 INFO forged line\x1b[31m\u2028" + "长" * 5_000)
    assert shown.isprintable()
    assert len(shown) == LINE_CHARS_MAX
    assert shown.startswith("可疑 2026-01-01 INFO forged line [31m 长")
    assert cleaned("device token_file is fine") == "device token_file is fine"


def test_the_journal_is_given_priorities(root: logging.Logger) -> None:
    written: list[str] = []
    handler = handler_to(written, Clock(), journal=True)
    log(handler, "a", level=logging.ERROR)
    log(handler, "b", level=logging.INFO)
    assert [text[:3] for text in written] == ["<3>", "<6>"]


def test_files_are_bounded_in_size_and_number_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    file = RotatedFile(path, bytes_max=1_000, files_max=3)
    for number in range(500):
        file.write(f"{number:04d} {'日志' * 10}\n")
    file.close()
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["agent.log", "agent.log.1", "agent.log.2"]
    assert all(one.stat().st_size <= 1_000 for one in tmp_path.iterdir())
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in tmp_path.iterdir())
    text = "".join((tmp_path / name).read_text() for name in reversed(names))
    numbers = [int(one[:4]) for one in text.splitlines()]
    assert numbers == list(range(numbers[0], 500))


def test_a_file_goes_on_where_it_was(tmp_path: Path) -> None:
    for text in ("one\n", "two\n"):
        file = RotatedFile(tmp_path / "agent.log")
        file.write(text)
        file.close()
    assert (tmp_path / "agent.log").read_text() == "one\ntwo\n"


def test_a_burst_of_everything_stays_below_the_files_limit(tmp_path: Path, root: logging.Logger) -> None:
    clock = Clock()
    handler = logs.begin(tmp_path / "agent.log", clock.now_s)
    for minute in range(60):
        clock.at_s += INTERVAL_S
        for number in range(200):
            log(handler, f"{chr(0x4E00 + number)} {'x' * 2_000} {minute}")
    handler.close()
    root.removeHandler(handler)
    sizes = [one.stat().st_size for one in tmp_path.iterdir()]
    assert len(sizes) <= FILES_MAX
    assert max(sizes) <= FILE_BYTES_MAX
    assert sum(sizes) > FILE_BYTES_MAX  # it did turn over


def test_a_disk_that_takes_no_line_costs_the_line() -> None:
    def full(_text: str) -> None:
        raise OSError(28, "No space left on device")

    handler = BoundedHandler(full, Clock().now_s)
    log(handler, "x")
    assert handler.unwritten == 1


def test_a_log_file_that_cannot_be_is_said_at_the_start(tmp_path: Path, root: logging.Logger) -> None:
    with pytest.raises(ConfigError, match="expected a file that can be written"):
        logs.begin(tmp_path / "nowhere" / "agent.log", Clock().now_s)


def test_an_exception_is_told_in_its_line() -> None:
    written: list[str] = []
    handler = handler_to(written, Clock())
    try:
        raise ValueError("密码 password=abc123xyz")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
        handler.emit(logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), info))
    assert "ValueError" in written[0]
    assert "abc123xyz" not in written[0]
    assert written[0].count("\n") == 1
