"""Messages of enrolment: what goes out comes back, and what is none is refused without being repeated."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import enrolment, topics
from contracts.enrolment import (
    INVITATION_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    DeviceEntry,
    Devices,
    EnrolRequest,
    Granted,
    Invitation,
    Invite,
    Invited,
    ListDevices,
    Refused,
    RenewRequest,
    Revoke,
    Revoked,
)
from contracts.errors import EnrolmentMessageError, OperatorMustActError

TEXT = st.text(max_size=40)
TIME = st.integers(0, 2**53)
ENTRY = st.builds(DeviceEntry, TEXT, TEXT, TEXT, TEXT, TIME, TIME)
DECODERS: list[Callable[[bytes], object]] = [
    enrolment.decode_invitation,
    enrolment.decode_enrol,
    enrolment.decode_renew,
    enrolment.decode_answer,
    enrolment.decode_operator_request,
    enrolment.decode_operator_answer,
]


@given(st.builds(Invitation, TEXT, TEXT, TEXT, TIME, TIME, TEXT, TEXT, TEXT, TEXT, TIME))
def test_an_invitation_comes_back(message: Invitation) -> None:
    assert enrolment.decode_invitation(enrolment.encode(message)) == message


@given(st.builds(EnrolRequest, TEXT, TEXT), st.builds(RenewRequest, TEXT))
def test_requests_come_back(first: EnrolRequest, following: RenewRequest) -> None:
    assert enrolment.decode_enrol(enrolment.encode(first)) == first
    assert enrolment.decode_renew(enrolment.encode(following)) == following


@given(st.builds(Granted, TEXT, TEXT, TEXT, TIME, TIME) | st.builds(Refused, TEXT, TEXT, st.booleans(), TEXT))
def test_answers_come_back(message: Granted | Refused) -> None:
    assert enrolment.decode_answer(enrolment.encode(message)) == message


@given(
    st.builds(Invite, TEXT, TEXT, TEXT, TEXT, TIME) | st.builds(Revoke, TEXT, TEXT) | st.builds(ListDevices, TEXT),
    st.builds(Invited, TEXT, TIME)
    | st.builds(Revoked, TEXT, TIME, TIME)
    | st.builds(Devices, st.lists(ENTRY, max_size=3).map(tuple), st.booleans()),
)
def test_what_operators_say_and_hear_comes_back(
    request: Invite | Revoke | ListDevices, answer: Invited | Revoked | Devices
) -> None:
    assert enrolment.decode_operator_request(enrolment.encode(request)) == request
    assert enrolment.decode_operator_answer(enrolment.encode(answer)) == answer


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("data", [b"", b"{", b"null", b"\xff", b"[" * 5_000, b'{"type": "other"}'])
def test_rubbish_is_a_typed_error(decode: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(EnrolmentMessageError):
        decode(data)


@pytest.mark.parametrize(
    ("decode", "most"),
    [(decode, MESSAGE_BYTES_MAX) for decode in DECODERS[1:5]] + [(DECODERS[0], INVITATION_BYTES_MAX)],
)
def test_what_is_too_long_is_not_parsed(decode: Callable[[bytes], object], most: int) -> None:
    with pytest.raises(EnrolmentMessageError, match=f"at most {most} bytes"):
        decode(b" " * (most + 1))


def test_an_error_does_not_repeat_a_token() -> None:
    with pytest.raises(EnrolmentMessageError) as caught:
        enrolment.decode_enrol(b'{"csr_pem": 1, "token": "SECRET"}')
    assert "SECRET" not in str(caught.value)


@given(st.text(max_size=70))
def test_a_name_that_is_none_has_no_topic(name: str) -> None:
    makers = (topics.enrol_request, topics.enrol_answer, topics.renew_request, topics.certificate)
    for make in makers:
        if topics.is_origin(name):
            assert make(name).split("/").count(name) >= 1
        else:
            with pytest.raises(OperatorMustActError):
                make(name)
