"""Which steps are needed, and whether there is room for them."""

from hypothesis import given
from hypothesis import strategies as st

from infra.setup import plan, survey
from infra.setup.plan import Room, Step

STEPS = (
    Step("tools", "t1"),
    Step("lake", "l1", after=("tools",)),
    Step("project", "p1", after=("lake",), rebuilt_by=("lake",)),
    Step("trino", "q1", after=("tools",)),
)
DONE = {step.name: step.stamp for step in STEPS}


def names(steps: tuple[Step, ...]) -> list[str]:
    return [step.name for step in steps]


def test_a_fresh_machine_needs_every_step() -> None:
    assert plan.needed(STEPS, {}) == STEPS


def test_a_finished_machine_needs_none() -> None:
    assert plan.needed(STEPS, DONE) == ()


def test_an_interrupted_run_goes_on_where_it_stopped() -> None:
    assert names(plan.needed(STEPS, {"tools": "t1", "trino": "q1"})) == ["lake", "project"]


def test_a_changed_requirement_file_repeats_its_step_and_what_that_destroys() -> None:
    assert names(plan.needed(STEPS, DONE | {"lake": "l0"})) == ["lake", "project"]


def test_waiting_for_a_step_is_not_being_rebuilt_by_it() -> None:
    assert names(plan.needed(STEPS, DONE | {"tools": "t0"})) == ["tools"]


@given(st.dictionaries(st.sampled_from(list(DONE)), st.sampled_from(["stale", "t1", "l1", "p1", "q1"])))
def test_doing_what_is_needed_leaves_nothing_to_do(found: dict[str, str]) -> None:
    done = found | {step.name: step.stamp for step in plan.needed(STEPS, found)}
    assert plan.needed(STEPS, done) == ()


def test_the_real_steps_come_after_what_they_wait_for() -> None:
    for wanted in ((), ("python3.11-venv",)):
        earlier: set[str] = set()
        for step in survey.steps(wanted):
            assert earlier.issuperset(step.after)
            assert set(step.after).issuperset(step.rebuilt_by)
            earlier.add(step.name)


def test_room_on_one_disk_is_counted_together_and_packages_once() -> None:
    steps = (Step("lake", "", tree_mb=1600, packages_mb=1600), Step("trino", "", cache_mb=900))
    tree, packages, cache = Room(1, "/tree", 2000), Room(1, "/uv", 2000), Room(1, "/cache", 2000)
    (line,) = plan.shortfalls(steps, tree, packages, cache)
    assert "needs 2.5 GB for /tree and /cache" in line
    assert "found 2.0 GB free: free 0.5 GB" in line


def test_every_disk_is_judged_alone() -> None:
    steps = (Step("lake", "", tree_mb=1600, packages_mb=1600), Step("trino", "", cache_mb=900))
    lines = plan.shortfalls(steps, Room(1, "/tree", 1600), Room(2, "/uv", 1599), Room(3, "/cache", 900))
    assert len(lines) == 1
    assert "1.6 GB for /uv" in lines[0]
