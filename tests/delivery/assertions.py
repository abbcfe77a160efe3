"""The assertions as values: `assertions.yaml`, read once and checked."""

from enum import Enum
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import yaml
from msgspec import Struct

from tests.delivery.agent import Capability

FILE: Final = Path(__file__).with_name("assertions.yaml")


class Level(Enum):
    """`must` is what delivery means; `should` is what a good agent does besides."""

    MUST = "must"
    SHOULD = "should"


class Assertion(Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence about an agent. It says nothing of agents that lack one of the capabilities it needs."""

    id: str
    level: Level
    says: str
    needs: tuple[Capability, ...] = ()


class Group(Struct, frozen=True, forbid_unknown_fields=True):
    """Assertions on one subject."""

    group: str
    assertions: tuple[Assertion, ...]


@cache
def groups() -> tuple[Group, ...]:
    """Return all groups in the order of the file."""
    return msgspec.convert(yaml.safe_load(FILE.read_text(encoding="utf-8")), type=tuple[Group, ...])


@cache
def assertions() -> dict[str, Assertion]:
    """Return all assertions by id."""
    return {entry.id: entry for group in groups() for entry in group.assertions}
