"""What a run leaves behind, `results/AGENT.json`, and the page that is rendered from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tests.delivery.assertions import Assertion, Group, Level, assertions, groups
from tests.delivery.case import SCENARIOS, Finding, Outcome
from tests.delivery.known_failures import KNOWN
from tests.delivery.runner import verdicts

RESULTS_DIR: Final = Path(__file__).with_name("results")
ROOT: Final = Path(__file__).resolve().parents[2]
MARKS: Final = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "**failed**",
    Outcome.NOT_OFFERED: "not offered",
    Outcome.NOT_RUN: "not run",
}


class Tried(Struct, frozen=True):
    """One run with one agent. `took_s` is of the whole run, several scenarios at a time."""

    agent: str
    version: str
    about: str
    when: str
    machine: str
    took_s: float
    findings: tuple[Finding, ...]


def write(tried: Tried) -> Path:
    """Write a result and return its path."""
    RESULTS_DIR.mkdir(exist_ok=True)
    path = RESULTS_DIR / f"{tried.agent}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(tried)) + b"\n")
    return path


def results() -> list[Tried]:
    """Return all results, by name."""
    return [msgspec.json.decode(path.read_bytes(), type=Tried) for path in sorted(RESULTS_DIR.glob("*.json"))]


def page_file() -> Path:
    """Return where the page lies."""
    return ROOT / "docs" / "delivery.md"


def looked_at() -> frozenset[str]:
    """Return the ids of all assertions that some scenario looks at."""
    return frozenset(name for entry in SCENARIOS.values() for name in entry.assertions)


def render() -> str:
    """Return the page."""
    tried = results()
    parts = [_INTRODUCTION, _summary(tried), "## How each was run", *map(_how, tried)]
    parts += [_group(group, tried) for group in groups()]
    parts += ["## What failed", *map(_failures, tried), _COMING, _coming()]
    return "\n\n".join(parts) + "\n"


def counts(tried: Tried, level: Level) -> dict[str, int]:
    """Return how many assertions of a level ended how; `to come` are those that no scenario looks at yet."""
    found = verdicts(tried.findings)
    sums = {"passed": 0, "failed": 0, "not offered": 0, "not run": 0, "to come": 0}
    for entry in assertions().values():
        if entry.level is level:
            sums[found[entry.id].outcome.value if entry.id in found else "to come"] += 1
    return sums


def _summary(tried: list[Tried]) -> str:
    rows = []
    for one in tried:
        for level in Level:
            sums = counts(one, level)
            rows.append((one.agent, level.value, *map(str, sums.values())))
    return _table(("agent", "level", "passed", "failed", "not offered", "not run", "to come"), rows)


def _how(tried: Tried) -> str:
    return (
        f"**{tried.agent}**, {tried.version}, on {tried.when} in {tried.took_s:.0f} s ({tried.machine}). {tried.about}"
    )


def _group(group: Group, tried: list[Tried]) -> str:
    found = [verdicts(one.findings) for one in tried]
    entries = [entry for entry in group.assertions if entry.id in looked_at()]
    rows = [
        (entry.id, entry.level.value, entry.says, *(_mark(entry, one) for one in found), _scenarios(entry))
        for entry in entries
    ]
    if not rows:
        return f"## {group.group}\n\nSee the end of this page."
    return f"## {group.group}\n\n" + _table(
        ("id", "level", "assertion", *(one.agent for one in tried), "scenarios"), rows
    )


def _mark(entry: Assertion, found: dict[str, Finding]) -> str:
    return MARKS[found[entry.id].outcome] if entry.id in found else "not run"


def _scenarios(entry: Assertion) -> str:
    return ", ".join(f"`{name}`" for name, found in SCENARIOS.items() if entry.id in found.assertions)


def _failures(tried: Tried) -> str:
    known = KNOWN.get(tried.agent, {})
    found = verdicts(tried.findings)
    rows = [
        (finding.assertion, finding.scenario, finding.found, known.get(finding.assertion, ""))
        for finding in sorted(found.values(), key=lambda finding: finding.assertion)
        if finding.outcome is Outcome.FAILED
    ]
    parts = [f"### {tried.agent}", _table(("id", "scenario", "found", "why"), rows) if rows else "Nothing."]
    if lucky := [name for name in known if name in found and found[name].outcome is Outcome.PASSED]:
        parts.append(f"Passed in this run and failed in others, by a race: {', '.join(sorted(lucky))}.")
    return "\n\n".join(parts)


def _coming() -> str:
    rows = [
        (entry.id, entry.level.value, entry.says, ", ".join(need.value for need in entry.needs))
        for group in groups()
        for entry in group.assertions
        if entry.id not in looked_at()
    ]
    return _table(("id", "level", "assertion", "needs"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


_INTRODUCTION: Final = """# Delivery

What "delivered" means at an edge, as numbered assertions, and which agents keep them. Rendered by
`python -m tests.delivery` from the results in `tests/delivery/results`; `--agent NAME` tries an agent first.

Each scenario gives the agent an upstream of its own (a real mosquitto, or a broker that answers as it is told), a link
that can be cut, stalled, slowed and hung up, a lake behind the broker that writes receipts or does not, and papers of
an authority made for it. The producer of the events forgets an event as soon as the agent has acknowledged it; after
every kill the kit makes sure that no copy is left but the agent's. An assertion holds when it held in every scenario
that looks at it. What an agent does not offer (receipts, an identity, a ledger) is counted apart and never as passed.

To try another agent, write an adapter with the classes of `tests/delivery/agent.py` and add it to `MAKERS`."""
_COMING: Final = """## To come

Assertions that no scenario looks at yet, because no agent here offers what they are about."""
