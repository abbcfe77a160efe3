"""Run scenarios with one agent, several at a time: most of what they do is wait."""

import shutil
import tempfile
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import tests.delivery.scenarios as _all  # noqa: F401 - registers the scenarios
from tests.delivery import small_disk
from tests.delivery.agent import Maker
from tests.delivery.case import SCENARIOS, CannotGoOnError, Case, Finding, Outcome, Scenario
from tests.delivery.site import Site

AT_ONCE: Final = 6  # scenarios; each is an agent and a broker, and two cores keep up with so many
ORDER: Final = (Outcome.PASSED, Outcome.NOT_OFFERED, Outcome.NOT_RUN, Outcome.FAILED)  # the worst one counts


def run(
    maker: Maker,
    names: Collection[str] | None = None,
    at_once: int = AT_ONCE,
    on_scenario: Callable[[str, tuple[Finding, ...]], None] = lambda _name, _findings: None,
) -> list[Finding]:
    """Try an agent in the named scenarios, in all by default; return every finding in the order of registration.

    Scenarios that wait longest begin first.
    """
    chosen = [entry for name, entry in SCENARIOS.items() if names is None or name in names]
    folder = Path(tempfile.mkdtemp(prefix="delivery-"))

    def one(entry: Scenario) -> tuple[Finding, ...]:
        findings = try_out(maker, entry, folder / entry.name)
        on_scenario(entry.name, findings)
        return findings

    try:
        with ThreadPoolExecutor(at_once, thread_name_prefix="scenario") as pool:
            begun = {entry.name: pool.submit(one, entry) for entry in sorted(chosen, key=lambda entry: not entry.slow)}
            return [finding for entry in chosen for finding in begun[entry.name].result()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def try_out(maker: Maker, scenario: Scenario, folder: Path) -> tuple[Finding, ...]:
    """Return what one scenario finds out; a folder of its own is made and removed."""
    case = Case(scenario.name, scenario.assertions, maker.capabilities)
    if not scenario.is_for(maker.capabilities):
        return case.findings()
    if scenario.small_disk and not small_disk.is_possible():
        case.leave_open("no mount namespaces here: unshare and nsenter are missing")
        return case.findings()
    folder.mkdir(parents=True)
    try:
        site = Site(folder, maker, scenario)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        case.leave_open(f"the site could not be built: {error}")
        return case.findings()
    try:
        scenario.run(site, case)
    except CannotGoOnError as error:
        case.fail_open(str(error))
    except Exception as error:  # noqa: BLE001 - whatever an agent or its adapter does, the other scenarios go on
        where = traceback.extract_tb(error.__traceback__)[-1]
        case.fail_open(f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})")
    finally:
        site.close()
    return case.findings()


def verdicts(findings: Collection[Finding]) -> dict[str, Finding]:
    """Return the worst finding about each assertion."""
    worst: dict[str, Finding] = {}
    for finding in findings:
        before = worst.get(finding.assertion)
        if before is None or ORDER.index(finding.outcome) > ORDER.index(before.outcome):
            worst[finding.assertion] = finding
    return worst
