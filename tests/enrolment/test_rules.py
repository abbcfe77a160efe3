"""What may happen to a device: the whole table, and the reasons of every refusal."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.enrolment.core.limits import Limiter
from gateway.enrolment.core.model import Device, InvitationRecord, State
from gateway.enrolment.core.rules import (
    EXPIRED,
    NEXT,
    NO_INVITATION,
    NOT_ACTIVE,
    REVOKED,
    TOKEN_SPENT,
    Act,
    is_reserved,
    refuse_enrol,
    refuse_renew,
)

NOW_MS = 1_000_000
LATER_MS = 2_000_000
OPEN = InvitationRecord("token", LATER_MS, "")


def device(state: State, invitation: InvitationRecord | None = OPEN) -> Device:
    return Device("press-01", "", state, 0, invitation, None)


def test_the_table_has_no_way_out_of_revoked_but_an_invitation() -> None:
    assert {act for state, act in NEXT if state is State.REVOKED} == {Act.INVITE, Act.REVOKE}
    assert all(NEXT[(state, Act.REVOKE)] is State.REVOKED for state in State)


@pytest.mark.parametrize(("state", "act"), list(product([None, *State], Act)))
def test_every_pair_is_allowed_or_refused(state: State | None, act: Act) -> None:
    known = None if state is None else device(state)
    if act is Act.ENROL:
        assert (refuse_enrol(known, "token", "key", NOW_MS) is None) == ((state, act) in NEXT)
    if act is Act.RENEW:
        assert (refuse_renew(known) is None) == ((state, act) in NEXT)


@pytest.mark.parametrize(
    ("known", "token", "key", "now_ms", "expected"),
    [
        (None, "token", "key", NOW_MS, NO_INVITATION),
        (device(State.INVITED, None), "token", "key", NOW_MS, NO_INVITATION),
        (device(State.INVITED), "other", "key", NOW_MS, NO_INVITATION),
        (device(State.REVOKED), "token", "key", NOW_MS, REVOKED),
        (device(State.INVITED), "token", "key", LATER_MS, EXPIRED),
        (device(State.ACTIVE, InvitationRecord("token", LATER_MS, "key")), "token", "other", NOW_MS, TOKEN_SPENT),
        (device(State.ACTIVE, InvitationRecord("token", LATER_MS, "key")), "token", "key", NOW_MS, None),
        (device(State.ACTIVE, InvitationRecord("token", LATER_MS, "key")), "token", "key", LATER_MS, EXPIRED),
        (device(State.ACTIVE), "token", "key", NOW_MS, None),
    ],
)
def test_a_first_certificate_needs_a_token_that_is_open(
    known: Device | None, token: str, key: str, now_ms: int, expected: object
) -> None:
    assert refuse_enrol(known, token, key, now_ms) is expected


def test_a_next_certificate_needs_an_enrolled_device() -> None:
    assert refuse_renew(None) is NOT_ACTIVE
    assert refuse_renew(device(State.INVITED)) is NOT_ACTIVE
    assert refuse_renew(device(State.REVOKED)) is REVOKED


@pytest.mark.parametrize("name", ["gateway", "enrolment", "operator", "launcher", "server", "ca", "fieldlake-x"])
def test_names_of_services_are_reserved(name: str) -> None:
    assert is_reserved(name)
    assert not is_reserved(f"x{name}")


@given(st.lists(st.floats(0, 100), max_size=200).map(sorted), st.integers(1, 5), st.floats(0.5, 20))
def test_nobody_is_admitted_more_often_than_the_bucket_allows(at_s: list[float], burst: int, refill_s: float) -> None:
    limiter = Limiter(burst, refill_s)
    admitted = [time_s for time_s in at_s if limiter.admit("press-01", time_s)]
    for first, begin_s in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= burst + (admitted[last] - begin_s) / refill_s + 1e-6


@given(st.integers(1, 5), st.floats(0.5, 20))
def test_who_waits_is_admitted_again(burst: int, refill_s: float) -> None:
    limiter = Limiter(burst, refill_s)
    assert [limiter.admit("press-01", 0.0) for _ in range(burst + 1)] == [True] * burst + [False]
    assert limiter.admit("press-01", refill_s * 1.01)


def test_the_limiter_remembers_a_bounded_number_of_names() -> None:
    limiter = Limiter(1, 10.0, names_max=3)
    for name in ("a", "b", "c", "d"):
        assert limiter.admit(name, 0.0)
    assert not limiter.admit("d", 0.0)
    assert limiter.admit("a", 0.0)  # forgotten, and so forgiven
