"""`python -m tests.delivery`: try agents, write what was found, render `docs/delivery.md`."""

import argparse
import datetime
import sys
import time
from collections import Counter
from typing import Final

from benchmarks.result import machine
from tests.delivery import report
from tests.delivery.agent import Maker
from tests.delivery.case import SCENARIOS, Finding, Outcome
from tests.delivery.fieldlake import Fieldlake
from tests.delivery.mosquitto_bridge import MosquittoBridge
from tests.delivery.runner import AT_ONCE, run, verdicts

MAKERS: Final[dict[str, Maker]] = {
    maker.name: maker
    for maker in (
        Fieldlake(),
        MosquittoBridge(saves_every_change=True),
        MosquittoBridge(saves_every_change=False),
    )
}


def main() -> int:
    """Run what the command line asks for; return 0 when the page could be written."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.delivery",
        description="Try agents against the assertions of what delivery means, and write docs/delivery.md.",
        epilog="example: python -m tests.delivery --agent fieldlake --agent mosquitto-bridge",
    )
    parser.add_argument("--agent", action="append", choices=sorted(MAKERS), default=[], help="try this one")
    parser.add_argument(
        "--scenario", action="append", choices=sorted(SCENARIOS), metavar="NAME", help="only this one; keeps nothing"
    )
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="scenarios that run at the same time")
    arguments = parser.parse_args()
    for name in arguments.agent:
        tried = try_out(MAKERS[name], arguments.scenario, arguments.at_once)
        if arguments.scenario is None:
            report.write(tried)
    if arguments.scenario is None:
        report.page_file().write_text(report.render(), encoding="utf-8")
    return 0


def try_out(maker: Maker, scenarios: list[str] | None, at_once: int) -> report.Tried:
    """Run scenarios with one agent; say how each ended."""

    def tell(name: str, findings: tuple[Finding, ...]) -> None:
        failed = [finding for finding in findings if finding.outcome is Outcome.FAILED]
        print(f"{maker.name}: {name}: {'ok' if not failed else ''}", flush=True)
        for finding in failed:
            print(f"    {finding.assertion}: {finding.found}", flush=True)

    begun = time.monotonic()
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    findings = run(maker, scenarios, at_once, tell)
    took_s = round(time.monotonic() - begun, 1)
    counts = Counter(finding.outcome.value for finding in verdicts(findings).values())
    print(f"{maker.name}: {dict(counts)} in {took_s:.0f} s", flush=True)
    return report.Tried(maker.name, maker.version(), maker.about, when, machine(), took_s, tuple(findings))


if __name__ == "__main__":
    sys.exit(main())
