"""What the enrolment service says about itself: one JSON document, replaced once a second."""

import os
from pathlib import Path

import msgspec
from msgspec import Struct


class EnrolmentStatus(Struct, frozen=True):
    """Answers since the process started, by kind or by reason of refusal."""

    pid: int
    connected: bool
    answered: dict[str, int]
    waiting: int
    updated_at_ms: int


def decode(data: bytes) -> EnrolmentStatus:
    """Parse the JSON form."""
    return msgspec.json.decode(data, type=EnrolmentStatus)


def write(path: Path, status: EnrolmentStatus) -> None:
    """Replace the status file in one step. Raises OSError."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(msgspec.json.encode(status))
    os.replace(partial, path)
