"""Pulls: asking a device for events that it still has, by time and condition, whatever became of them when they came.

A request is a retained message on `fl/v1/down/{device}/pull/{id}`. The rows arrive in the lake as `ID_pulled` (see
`contracts.offshoots`), and one row of the contract `pulls` says how many there were and what is no longer there.
"""

import re
from enum import Enum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from contracts import edge_rule_check
from contracts.contract import Contract
from contracts.edge_rules import Condition, EdgeRule, Keep
from contracts.errors import PullError, RuleError
from contracts.malformed import MALFORMED

PULLS: Final = "pulls"  # id of the contract of the answers
ID_BYTES: Final = 8
REQUEST_BYTES_MAX: Final = 8_192  # bytes; while a pull is under way, the metadata of every record holds its request
ROWS_MAX: Final = 10_000_000  # rows; three hours of 1,000 events a second
BYTES_MAX: Final = 1_073_741_824  # bytes; as much as a device's ring
VALID_MS_MAX: Final = 2_592_000_000  # ms, thirty days; a device that comes back later has no ring of that time left
NAME_CHARS_MAX: Final = 64
REASON_CHARS_MAX: Final = 256
MISSING_RANGES_MAX: Final = 64  # ranges named in an answer; more of them are joined

MicrosUtc: TypeAlias = Annotated[int, Meta(ge=-62_135_596_800_000_000, le=253_402_300_799_999_999)]  # years 1 to 9999
MillisUtc: TypeAlias = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]

_ID: Final = re.compile(r"[0-9a-f]{16}")


class Outcome(Enum):
    """What became of a pull; the value is the word in the lake."""

    ANSWERED = "answered"
    LIMITED = "limited"  # more would have matched than the request allows
    EXPIRED = "expired"  # the device heard of it too late
    WITHDRAWN = "withdrawn"  # the request was taken back while it was worked on
    REFUSED = "refused"  # the reason says why


class PullRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Events of one contract with `from_us` <= event time < `to_us` for which the condition holds, all without one.

    Times are microseconds since 1970-01-01 UTC. At most `rows_max` rows are sent, and no further batch once these have
    `bytes_max` bytes. A device that hears of it at `expires_at_ms` (Unix time) or later does not begin.
    """

    id: str
    contract: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
    from_us: MicrosUtc
    to_us: MicrosUtc
    asked_at_ms: MillisUtc
    expires_at_ms: MillisUtc
    when: Condition | None = None
    rows_max: Annotated[int, Meta(ge=1, le=ROWS_MAX)] = 1_000_000
    bytes_max: Annotated[int, Meta(ge=1, le=BYTES_MAX)] = 67_108_864
    asked_by: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""


def is_id(text: str) -> bool:
    """Say whether a text may be a pull's id: 16 hexadecimal digits."""
    return _ID.fullmatch(text) is not None


def encode(request: PullRequest) -> bytes:
    """Return the JSON form. Raises PullError when it is too large to be sent."""
    data = msgspec.json.encode(request)
    if len(data) > REQUEST_BYTES_MAX:
        raise PullError(
            f"pull {request.id}: expected up to {REQUEST_BYTES_MAX} bytes, found {len(data)}: write a shorter condition"
        )
    return data


def decode(data: bytes) -> PullRequest:
    """Parse the JSON form. Raises PullError."""
    if len(data) > REQUEST_BYTES_MAX:
        raise PullError(f"pull request: expected up to {REQUEST_BYTES_MAX} bytes, found {len(data)}")
    try:
        request = msgspec.json.decode(data, type=PullRequest)
    except MALFORMED as error:
        raise PullError(f"pull request: expected its JSON form, found {data[:80]!r}: {error}") from error
    if not is_id(request.id):
        raise PullError(f"pull {request.id[:40]!r}: id: expected 16 hexadecimal digits")
    if request.from_us >= request.to_us:
        raise PullError(
            f"pull {request.id}: expected a time that ends after it begins, found {request.from_us} to {request.to_us}"
        )
    if not 0 < request.expires_at_ms - request.asked_at_ms <= VALID_MS_MAX:
        raise PullError(
            f"pull {request.id}: expected it to be valid for up to {VALID_MS_MAX} ms, found "
            f"{request.expires_at_ms - request.asked_at_ms}"
        )
    return request


def check(request: PullRequest, contract: Contract) -> None:
    """Raise PullError when events of the contract cannot be pulled, or not by this condition."""
    time = contract.event_time_field
    if time is None or not contract.field(time).required:
        raise PullError(f"pull {request.id}: contract {contract.id}: expected a required event time to look for")
    if request.when is None:
        return
    try:
        edge_rule_check.check((EdgeRule("pull", 1, Keep(), request.when),), contract)
    except RuleError as error:
        raise PullError(f"pull {request.id}: {error}") from error
