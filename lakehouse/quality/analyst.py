"""Expectations that analysts add: one YAML file per table in a folder, followed without a restart.

A file has the form in which Great Expectations writes a suite:

    contract: clicks
    expectations:
      - type: expect_column_values_to_be_between
        kwargs: {column: dwell_s, min_value: 0, max_value: 3600, mostly: 0.99}
        severity: warning                       # critical (the default), warning or info; the latter two are hints
        meta: {name: dwell, notes: Nobody reads for more than an hour.}

A file that cannot be followed is named with the reason; what it said last stays in force.
"""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import yaml
from msgspec import Struct

from contracts.contract import SYSTEM_COLUMNS, Checks, Contract, Field, FieldType, check
from contracts.errors import ContractError
from lakehouse.checks import require_checkable
from lakehouse.errors import ExpectationError
from lakehouse.quality.expectations import Expectation, Kind, Scalar, Severity, Source, numeric

SUFFIX: Final = ".yaml"
FILE_BYTES_MAX: Final = 262_144  # bytes; some thousand expectations, more than a pass could ask
EXPECTATIONS_MAX: Final = 200  # of one file; each costs every pass some ms
_OURS: Final = frozenset({Kind.AGE, Kind.REFERENCED, Kind.IDENTITY})


class _Kwargs(Struct, frozen=True, forbid_unknown_fields=True):
    column: str = ""
    min_value: int | float | str | None = None
    max_value: int | float | str | None = None
    value_set: tuple[Scalar, ...] = ()
    regex: str = ""
    mostly: float = 1.0


class _Meta(Struct, frozen=True):
    name: str = ""
    notes: str = ""


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    kwargs: _Kwargs = _Kwargs()
    severity: Literal["critical", "warning", "info"] = "critical"
    meta: _Meta = _Meta()


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    contract: str
    expectations: tuple[_Entry, ...]


def parse(text: str, contracts: Mapping[str, Contract]) -> tuple[str, tuple[Expectation, ...]]:
    """Return the contract's id that a file names and what it expects. Raises ExpectationError."""
    try:
        found = msgspec.convert(yaml.safe_load(text), type=_File)
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        raise ExpectationError(f"expected `contract` and a list of `expectations`: {error}") from error
    contract = contracts.get(found.contract)
    if contract is None:
        raise ExpectationError(f"contract {found.contract!r} is not published: expected one of {sorted(contracts)}")
    if len(found.expectations) > EXPECTATIONS_MAX:
        raise ExpectationError(f"{len(found.expectations)} expectations, at most {EXPECTATIONS_MAX} allowed")
    expected = tuple(_expectation(at, entry, contract) for at, entry in enumerate(found.expectations, 1))
    rules = [one.rule for one in expected]
    if len(set(rules)) != len(rules):
        raise ExpectationError(f"names must differ: {sorted(rule for rule in rules if rules.count(rule) > 1)}")
    return contract.id, expected


def _expectation(number: int, entry: _Entry, contract: Contract) -> Expectation:
    label, given = f"expectation {number} ({entry.type})", entry.kwargs
    kinds = {kind.value: kind for kind in Kind if kind not in _OURS}
    kind = kinds.get(entry.type)
    if kind is None:
        raise ExpectationError(f"{label}: expected one of {', '.join(sorted(kinds))}")
    if not 0 < given.mostly <= 1:
        raise ExpectationError(f"{label}: mostly {given.mostly}: expected more than 0 and at most 1")
    field = None if kind is Kind.ROW_COUNT else _field(label, given.column, contract)
    if kind in (Kind.BETWEEN, Kind.LENGTHS, Kind.MEAN, Kind.ROW_COUNT):
        _check_bounds(label, kind, field, given)
    if kind is Kind.IN_SET and not given.value_set:
        raise ExpectationError(f"{label}: expected a value_set")
    if kind in (Kind.PATTERN, Kind.LENGTHS) and field is not None and field.type is not FieldType.STRING:
        raise ExpectationError(f"{label}: {field.name} is {field.type.value}, expected text")
    if kind is Kind.PATTERN:
        _check_pattern(label, given.regex, contract)
    return Expectation(
        rule=entry.meta.name or f"{given.column or 'table'}.{number}",
        kind=kind,
        columns=(given.column,) if given.column else (),
        low=given.min_value,
        high=given.max_value,
        values=given.value_set,
        pattern=given.regex,
        mostly=given.mostly,
        severity=Severity.ERROR if entry.severity == "critical" else Severity.HINT,
        source=Source.ANALYST,
        notes=entry.meta.notes,
    )


def _field(label: str, name: str, contract: Contract) -> Field:
    if name in SYSTEM_COLUMNS:
        return Field(0, name, SYSTEM_COLUMNS[name], True)
    for field in contract.fields:
        if field.name == name:
            return field
    known = ", ".join(field.name for field in contract.fields)
    raise ExpectationError(f"{label}: {contract.id} has no column {name!r}: expected one of {known}")


def _check_bounds(label: str, kind: Kind, field: Field | None, given: _Kwargs) -> None:
    bounds = [bound for bound in (given.min_value, given.max_value) if bound is not None]
    if not bounds:
        raise ExpectationError(f"{label}: expected min_value or max_value")
    if kind is Kind.BETWEEN and field is not None and field.type is FieldType.TIMESTAMPTZ:
        for bound in bounds:
            _moment(label, bound)
        return
    if kind in (Kind.BETWEEN, Kind.MEAN) and (field is None or not numeric(field)):
        raise ExpectationError(f"{label}: expected a column of numbers or moments: {given.column}")
    if any(isinstance(bound, str) for bound in bounds):
        raise ExpectationError(f"{label}: expected numbers as bounds: {bounds}")


def _moment(label: str, bound: int | float | str) -> None:
    try:
        moment = dt.datetime.fromisoformat(str(bound))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ExpectationError(f"{label}: {bound!r}: expected an ISO 8601 time with its zone, in quotes")


def _check_pattern(label: str, regex: str, contract: Contract) -> None:
    """By the rules for a contract's own patterns, since the same engines follow it."""
    probe = Field(1, "probe", FieldType.STRING, checks=Checks(pattern=regex))
    asked = msgspec.structs.replace(
        contract, fields=(probe,), subject_field=None, event_time_field=None, sort_fields=(), consent_field=None
    )
    try:
        check(asked)
        require_checkable(asked)
    except ContractError as error:
        raise ExpectationError(f"{label}: {error}") from error
    if not regex:
        raise ExpectationError(f"{label}: expected a regex")


class Shelf:
    """The files of the folder that are in force. `good` is the text that each was followed with last."""

    def __init__(self, folder: Path, good: Mapping[str, str]) -> None:
        self._folder = folder
        self._read: dict[str, str] = {}
        self.good = dict(good)
        self.broken: dict[str, str] = {}
        self._expected: dict[str, dict[str, tuple[Expectation, ...]]] = {}
        self._contracts: dict[str, Contract] = {}

    def expected(self, contract_id: str) -> tuple[Expectation, ...]:
        """Return what analysts expect of a contract's table."""
        files = self._expected.get(contract_id, {})
        return tuple(one for name in sorted(files) for one in files[name])

    def look(self, contracts: Mapping[str, Contract]) -> dict[str, str]:
        """Follow the folder; return what is newly broken, by file name."""
        texts, unreadable = self._texts()
        if texts == self._read and dict(contracts) == self._contracts:
            return {}
        before, self._read, self._contracts = self.broken, texts, dict(contracts)
        self.broken, self._expected = dict(unreadable), {}
        self.good = {name: text for name, text in self.good.items() if name in texts}
        for name, text in texts.items():
            self._follow(name, text, contracts)
        return {name: why for name, why in self.broken.items() if before.get(name) != why}

    def _follow(self, name: str, text: str, contracts: Mapping[str, Contract]) -> None:
        try:
            contract, expected = parse(text, contracts)
            self.good[name] = text
        except ExpectationError as error:
            self.broken.setdefault(name, str(error))
            try:
                contract, expected = parse(self.good[name], contracts)
            except (KeyError, ExpectationError):
                return
        self._expected.setdefault(contract, {})[name] = expected

    def _texts(self) -> tuple[dict[str, str], dict[str, str]]:
        texts: dict[str, str] = {}
        broken: dict[str, str] = {}
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                raw = path.read_bytes()
                texts[path.name] = raw[: FILE_BYTES_MAX + 1].decode()
                if len(raw) > FILE_BYTES_MAX:
                    broken[path.name] = f"{len(raw)} bytes, at most {FILE_BYTES_MAX} allowed"
                    texts[path.name] = ""
            except (OSError, UnicodeDecodeError) as error:
                texts[path.name] = ""
                broken[path.name] = f"cannot be read as UTF-8: {error}"
        return texts, broken


def bound(value: Any) -> Any:
    """Return a bound as Python compares it: a moment's text as a moment."""
    return dt.datetime.fromisoformat(value) if isinstance(value, str) else value
