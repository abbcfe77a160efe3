"""The scenarios, by subject. Importing this package registers all of them."""

from tests.delivery.scenarios import (
    backlog,
    clock,
    damage,
    disk,
    operability,
    payloads,
    receipts,
    refusals,
    restarts,
    security,
    shutdown,
    uplink,
)

__all__ = [
    "backlog",
    "clock",
    "damage",
    "disk",
    "operability",
    "payloads",
    "receipts",
    "refusals",
    "restarts",
    "security",
    "shutdown",
    "uplink",
]
