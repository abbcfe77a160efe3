"""Finding the error in a log, and reading memory from the kernel's roll-up."""

from pathlib import Path

import pytest

from infra.launcher.logs import LINE_CHARS_MAX, TAIL_BYTES, last_error_in, last_error_line
from infra.launcher.processes import proportional_set_bytes


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-22T05:01:57,903 ERROR Exiting Kafka due to fatal exception (kafka.Kafka$)",
        "2026-11-22 05:01:57.903 UTC [12] FATAL:  lock file exists",
        "java.net.BindException: Address already in use",
        "ModuleNotFoundError: No module named 'gateway'",
        "F1122 05:01:45.906148 s3.go:12 cannot bind",
        "Error: Unable to open config file",
        "panic: runtime error",
    ],
)
def test_the_error_line_of_each_kind_of_log_is_found(line: str) -> None:
    assert last_error_in(f"INFO began\n{line}\n    at some.Class(Line.java:1)\nINFO ended\n") == line


def test_the_last_error_wins_and_a_clean_log_has_none() -> None:
    assert last_error_in("ERROR first\nERROR second\nINFO no errors found\n") == "ERROR second"
    assert last_error_in("INFO all is well\nerrors=0\n") is None


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_text("ERROR early\n" + "x" * TAIL_BYTES + "\n")
    assert last_error_line(log) is None
    log.write_text("ERROR " + "y" * 1_000 + "\n")
    assert len(last_error_line(log) or "") == LINE_CHARS_MAX
    assert last_error_line(tmp_path / "absent.log") is None


def test_the_proportional_set_is_taken_from_its_own_line() -> None:
    rollup = "00400000-7ffe [rollup]\nRss:   2000 kB\nPss:   1500 kB\nPss_Dirty:   100 kB\n"
    assert proportional_set_bytes(rollup) == 1_500 * 1_024
    assert proportional_set_bytes("") == 0
