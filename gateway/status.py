"""What the gateway says about itself: one JSON document, replaced once a second."""

import os
from pathlib import Path

import msgspec
from msgspec import Struct


class GatewayStatus(Struct, frozen=True):
    """Counters since the process started, and the state at `updated_at_ms`."""

    pid: int
    shard: int
    ready: bool
    broker_connected: bool
    kafka_available: bool
    forwarded: int
    dead: dict[str, int]  # dead letters that the log holds, by reason code
    in_flight: int
    in_flight_bytes: int
    paused: bool  # reading from the broker waits for the log
    delivery_failures: int
    connections: int
    watermarks: int
    acks_published: int
    origins: int
    last_error: str
    last_error_at_ms: int
    updated_at_ms: int


def decode(data: bytes) -> GatewayStatus:
    """Parse the JSON form."""
    return msgspec.json.decode(data, type=GatewayStatus)


def write(path: Path, status: GatewayStatus) -> None:
    """Replace the status file in one step, so that a reader never sees half of it. Raises OSError."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(msgspec.json.encode(status))
    os.replace(partial, path)
