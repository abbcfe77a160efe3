"""Fieldlake's agent keeps every assertion that it offers, except those on the list of known failures."""

from pathlib import Path

import pytest

from tests.delivery.case import SCENARIOS, Finding, Outcome
from tests.delivery.fieldlake import Fieldlake
from tests.delivery.known_failures import KNOWN
from tests.delivery.report import looked_at
from tests.delivery.runner import run, verdicts

pytestmark = [
    pytest.mark.stack,
    # A broker that speaks old TLS is one of those that the agent must refuse.
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> dict[str, Finding]:
    """Run the scenarios that the chosen tests ask about, several at a time."""
    chosen = {
        item.callspec.params["assertion"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == Path(__file__)
    }
    names = [name for name, entry in SCENARIOS.items() if chosen.intersection(entry.assertions)]
    return verdicts(run(Fieldlake(), names))


@pytest.mark.parametrize("assertion", sorted(looked_at()))
def test_delivers(assertion: str, found: dict[str, Finding]) -> None:
    finding = found[assertion]
    if finding.outcome is Outcome.NOT_RUN:
        pytest.skip(finding.found)
    reason = KNOWN["fieldlake"].get(assertion)
    if reason is None:
        assert finding.outcome is Outcome.PASSED, f"{finding.scenario}: {finding.found}"
        return
    assert finding.outcome is Outcome.FAILED, f"{assertion} holds by now: take it off the list of known failures"
    pytest.xfail(reason)
