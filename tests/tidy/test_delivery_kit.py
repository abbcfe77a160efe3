"""Every assertion of the delivery kit is looked at or plainly to come, and the published page is what was found."""

from tests.delivery import report
from tests.delivery.agent import Capability
from tests.delivery.assertions import Level, assertions, groups
from tests.delivery.case import SCENARIOS
from tests.delivery.fieldlake import Fieldlake
from tests.delivery.known_failures import KNOWN

ASSERTIONS_MIN = 100  # what the kit promises to look at


def test_ids_are_in_order_and_given_once() -> None:
    ids = [entry.id for group in groups() for entry in group.assertions]
    assert ids == sorted(set(ids))
    assert len(ids) == len(assertions())
    assert all(entry.says.endswith(".") for entry in assertions().values())


def test_scenarios_name_assertions_that_exist_and_say_what_they_do() -> None:
    assert report.looked_at() <= assertions().keys()
    assert len(report.looked_at()) >= ASSERTIONS_MIN
    for entry in SCENARIOS.values():
        assert entry.assertions, entry.name
        assert len(set(entry.assertions)) == len(entry.assertions), entry.name
        assert entry.run.__doc__, entry.name


def test_every_must_is_looked_at_unless_nobody_offers_it_yet() -> None:
    offered = Fieldlake().capabilities
    left = [
        entry.id
        for entry in assertions().values()
        if entry.level is Level.MUST and offered.issuperset(entry.needs) and entry.id not in report.looked_at()
    ]
    assert left == []


def test_what_is_to_come_waits_for_a_capability() -> None:
    coming = [entry for entry in assertions().values() if entry.id not in report.looked_at()]
    offered = Fieldlake().capabilities
    assert [entry.id for entry in coming if offered.issuperset(entry.needs)] == []
    used = {need for entry in assertions().values() for need in entry.needs}
    assert used == set(Capability)


def test_known_failures_name_assertions_that_are_looked_at() -> None:
    for agent, known in KNOWN.items():
        assert known.keys() <= report.looked_at(), agent
        assert all(known.values()), agent


def test_the_page_is_what_the_results_say() -> None:
    written = report.page_file().read_text(encoding="utf-8")
    assert written == report.render(), "write it again: python -m tests.delivery"
