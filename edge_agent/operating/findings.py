"""One thing that was looked at, and what to do about it."""

from collections.abc import Iterable
from enum import Enum

from msgspec import Struct


class Level(Enum):
    """How a finding is; only `bad` makes a device unhealthy."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"
    SKIPPED = "skipped"


class Finding(Struct, frozen=True):
    """`remedy` says what a person can do; empty where nothing needs doing."""

    check: str
    level: Level
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(check, Level.OK, found)


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Say whether nothing is bad."""
    return all(finding.level is not Level.BAD for finding in findings)


def lines_of(findings: Iterable[Finding]) -> list[str]:
    """Return findings for a terminal: level, check, what was found, and the remedy below."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.level.value:<8} {finding.check:<16} {finding.found}")
        if finding.remedy:
            lines.append(f"{'':<25} -> {finding.remedy}")
    return lines
