"""Plans of windows: what a bundle may say of them, and what it is refused for."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import contracts
from contracts import bundle, odcs
from contracts.bundle import OVERLAP_MAX, RANKED, SHAPE, WINDOW_MS_MAX, Bundle, Measure, Stream, WindowKind, Windows
from contracts.errors import ContractError

DOCUMENTS = Path(str(contracts.__file__)).parent / "documents"
TARGET = odcs.contract_of(yaml.safe_load((DOCUMENTS / "telemetry_windows.odcs.yaml").read_text()))


def plan(**changes: Any) -> Windows:
    return Windows(**({"contract": TARGET.id, "window_ms": 60_000, "sensors": ("f1", "f2")} | changes))


def sliding(**changes: Any) -> Windows:
    return plan(**({"kind": WindowKind.SLIDING, "slide_ms": 20_000} | changes))


def session(**changes: Any) -> Windows:
    return plan(**({"kind": WindowKind.SESSION, "gap_ms": 5_000} | changes))


def read(*windows: Windows) -> tuple[Windows, ...]:
    """Return plans after their way through a bundle's JSON form."""
    data = bundle.encode(Bundle("7", (TARGET,), (Stream(TARGET.id, windows=windows),)))
    return bundle.decode(data).stream(TARGET.id).windows


def test_plans_of_every_kind_survive_and_say_how_far_they_overlap() -> None:
    plans = (plan(), sliding(), session(sketch=True, measures=(Measure.SUM, Measure.P90)))
    assert read(*plans) == plans
    assert [(found.pane_ms, found.overlap) for found in plans[:2]] == [(60_000, 1), (20_000, 3)]


def test_every_measure_is_a_column_of_the_contract() -> None:
    for measure in Measure:
        assert not TARGET.field(measure.value).required
    assert RANKED < set(SHAPE) < set(Measure)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (plan(window_ms=0), "window_ms of 1 to"),
        (plan(window_ms=WINDOW_MS_MAX + 1), "window_ms of 1 to"),
        (plan(sensors=()), "sensors, each named once"),
        (plan(sensors=("f1", "f1")), "sensors, each named once"),
        (plan(measures=(Measure.SUM, Measure.SUM)), "each measure once, found .*sum"),
        (plan(slide_ms=1_000), "slide_ms for sliding windows and for no others, found 1000"),
        (sliding(slide_ms=None), "slide_ms for sliding windows and for no others, found None"),
        (sliding(slide_ms=0), "slide_ms of 1 to window_ms 60000, found 0"),
        (sliding(slide_ms=60_001), "slide_ms of 1 to window_ms"),
        (sliding(slide_ms=7_000), "times slide_ms, found 60000 and 7000"),
        (sliding(window_ms=OVERLAP_MAX + 1, slide_ms=1), "times slide_ms"),
        (session(gap_ms=None), "gap_ms for session windows"),
        (session(gap_ms=0), "gap_ms of 1 to"),
        (session(window_ms=4_999), "gap_ms of 1 to window_ms 4999, found 5000"),
        (plan(gap_ms=10), "gap_ms for session windows and for no others"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(wrong: Windows, says: str) -> None:
    with pytest.raises(ContractError, match=f"stream {TARGET.id}: {wrong.kind.value} windows: .*{says}"):
        read(wrong)


@pytest.mark.parametrize(
    "plans",
    [
        (plan(), plan(sensors=("f2", "f3"))),
        (sliding(), sliding(slide_ms=30_000)),
        (session(), session(gap_ms=9_000, window_ms=90_000)),
    ],
)
def test_rows_of_two_plans_must_be_told_apart(plans: tuple[Windows, ...]) -> None:
    with pytest.raises(ContractError, match="differ in length or sensors"):
        read(*plans)


def test_plans_that_differ_may_stand_side_by_side() -> None:
    plans = (plan(), plan(window_ms=30_000), plan(sensors=("f3",)), sliding(), session())
    assert read(*plans) == plans
