"""What changes from one version of a contract to another, by field id, and whether it may be published. Pure.

A change is *free*, must be *accepted* by name (it takes something away from somebody), or is *refused* (it cannot be
followed without mixing values that mean different things). What it does to whom, `contracts.consequences` says.
"""

from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from typing import Final

from msgspec import Struct

from contracts.contract import FLOATS, Contract, Field, FieldType, fingerprint
from contracts.errors import ContractError
from contracts.rules import Rule, conditions


class Kind(Enum):
    """What was changed; the value is the word by which it is accepted."""

    ADDED = "added"
    DROPPED = "dropped"
    RENAMED = "renamed"
    MOVED = "moved"
    WIDENED = "widened"
    NARROWED = "narrowed"
    RETYPED = "retyped"
    CONVERTED = "converted"
    REMEASURED = "remeasured"  # another unit, and no conversion to it
    UNIT = "unit"  # a unit stated where none was, or no longer
    LOOSENED = "loosened"
    TIGHTENED = "tightened"
    DIFFERENCE = "difference"
    CHECKS = "checks"
    CLASSIFICATION = "classification"
    DESCRIPTION = "description"
    SUBJECT = "subject"
    EVENT_TIME = "event-time"
    SORT = "sort"
    RETENTION = "retention"
    CONSENT = "consent"
    PLACE = "place"


class Need(Enum):
    """What it takes to publish a change."""

    FREE = "free"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class Change(Struct, frozen=True):
    """One change. `name` is the field's in the newer version (the older one when it is gone), empty: the contract's.

    `rules`: ids of the rules in force that this change is felt by.
    """

    kind: Kind
    name: str
    before: str
    after: str
    need: Need
    rules: tuple[str, ...] = ()


# What takes something away from somebody even when no rule reads the field.
_ACCEPTED: Final = frozenset({Kind.DROPPED, Kind.TIGHTENED, Kind.RETYPED, Kind.CONVERTED, Kind.CONSENT, Kind.SUBJECT})
_REFUSED: Final = frozenset({Kind.REMEASURED, Kind.PLACE})
# What a rule that compares the field feels: it finds no field, or other values than it was written for.
_FELT_BY_RULES: Final = frozenset({Kind.DROPPED, Kind.RENAMED, Kind.RETYPED, Kind.CONVERTED})
_FELT_BY_ALL_RULES: Final = frozenset({Kind.SUBJECT, Kind.EVENT_TIME})
INCOMPATIBLE: Final = frozenset({Kind.RETYPED, Kind.CONVERTED})


def family(kind: FieldType) -> FieldType:
    """Return the widest type that a column of this type may become without being written anew."""
    if kind is FieldType.INT:
        return FieldType.LONG
    return FieldType.DOUBLE if kind is FieldType.FLOAT else kind


def wider(one: FieldType, other: FieldType) -> FieldType:
    """Return the wider of two types of one family."""
    return one if one is other else family(one)


def unit_of(field: Field) -> str | None:
    """Return the unit in which a field's numbers are, None when it has none or is no number."""
    return field.unit if field.type in FLOATS or family(field.type) is FieldType.LONG else None


def diff(old: Contract, new: Contract, rules: Sequence[Rule] = ()) -> tuple[Change, ...]:
    """Return the changes from one version to another. Raises ContractError when they are of different contracts."""
    if old.id != new.id:
        raise ContractError(f"contract {new.id}: expected another version of {old.id}: its id is its identity")
    before, after = {f.id: f for f in old.fields}, {f.id: f for f in new.fields}
    found: list[tuple[Kind, str, str, str]] = []
    found += [(Kind.DROPPED, f.name, _kind(f), "") for f in old.fields if f.id not in after]
    found += [(Kind.ADDED, f.name, "", _kind(f)) for f in new.fields if f.id not in before]
    for field in new.fields:
        if field.id in before:
            found += _of_field(before[field.id], field)
    kept = [f.id for f in old.fields if f.id in after]
    if kept != [f.id for f in new.fields if f.id in before]:
        found.append((Kind.MOVED, "", _names(old), _names(new)))
    found += _of_contract(old, new)
    return tuple(_change(old, new, rules, entry) for entry in found)


def problems(
    new: Contract, published: Sequence[Contract], rules: Sequence[Rule] = (), accepted: Collection[Kind] = ()
) -> tuple[str, ...]:
    """Return why a version may not be published, a sentence each that says what to do; none when it may.

    `published`: every version of the contract that is on the log.
    """
    if not published or new in published:
        return ()
    newest = max(published, key=lambda contract: contract.number)
    changes = diff(newest, new, rules)
    found: list[str] = []
    if new.number <= newest.number:
        found.append(f"version {new.version}: {newest.version} is published: give it a higher one")
    elif new.number[0] == newest.number[0] and any(change.kind in INCOMPATIBLE for change in changes):
        found.append(f"version {new.version}: a type or unit changes: give it the version {new.number[0] + 1}.0.0")
    for change in changes:
        what = f"{change.kind.value} {change.name}".strip()
        if change.need is Need.REFUSED:
            found.append(f"{what}: {_REASONS[change.kind].format(before=change.before, after=change.after)}")
        elif change.need is Need.ACCEPTED and change.kind not in accepted:
            felt = f", rules in force feel it: {', '.join(change.rules)}" if change.rules else ""
            found.append(f"{what}: it takes something away{felt}: accept it with --accept {change.kind.value}")
    found += _against_all(new, published, newest)
    return tuple(found)


def means_otherwise(one: Contract, other: Contract) -> bool:
    """Say whether a field's numbers are in one unit in one version and in another unit in the other."""
    units = {f.id: unit_of(f) for f in one.fields}
    pairs = [(units.get(f.id), unit_of(f)) for f in other.fields]
    return any(a is not None and b is not None and a != b for a, b in pairs)


_REASONS: Final = {
    Kind.REMEASURED: "its unit was {before} and is {after}: state in `conversions` how one becomes the other",
    Kind.PLACE: "its table is {before} and cannot move to {after}: publish a contract with another id",
}


def _against_all(new: Contract, published: Sequence[Contract], newest: Contract) -> Iterator[str]:
    """Yield what stands between a version and one that is not the newest, but whose rows may still be on their way."""
    present = {field.id for field in newest.fields}
    for old in published:
        before = {field.id: field for field in old.fields}
        for field in new.fields:
            was = before.get(field.id)
            if was is None:
                continue
            if field.id not in present and (was.name, family(was.type)) != (field.name, family(field.type)):
                yield (
                    f"field id {field.id}: it was {was.name} {was.type.value} in {old.version} and is dropped: "
                    f"an id is never used again, give {field.name} another one"
                )
            told = old is newest and family(was.type) is family(field.type)  # among the changes, as remeasured
            if _needs_conversion(was, field) and not told:
                yield f"field {field.name}: {old.version} has it in {unit_of(was)}: state how in `conversions`"
        if old is not newest and fingerprint(old) == fingerprint(new) and means_otherwise(old, new):
            yield (
                f"its batches could not be told from those of {old.version}, whose units are others: go on stating the "
                "conversions"
            )


def _needs_conversion(was: Field, field: Field) -> bool:
    unit, now = unit_of(was), unit_of(field)
    differ = unit is not None and now is not None and unit != now
    return differ and unit not in {conversion.unit for conversion in field.conversions}


def _change(old: Contract, new: Contract, rules: Sequence[Rule], entry: tuple[Kind, str, str, str]) -> Change:
    kind, name, before, after = entry
    asked = before if kind is Kind.RENAMED else _name_in(old, new, name)
    felt = _readers(rules, old.id, asked) if kind in _FELT_BY_RULES else ()
    if kind in _FELT_BY_ALL_RULES:
        felt = _readers(rules, old.id, None)
    need = Need.FREE
    if kind in _REFUSED:
        need = Need.REFUSED
    elif kind in _ACCEPTED or felt or _takes_away(kind, before, after):
        need = Need.ACCEPTED
    return Change(kind, name, before, after, need, felt)


def _takes_away(kind: Kind, before: str, after: str) -> bool:
    if kind is Kind.RETENTION:
        return int(after) < int(before)
    return kind is Kind.CLASSIFICATION and before == "personal"


def _name_in(old: Contract, new: Contract, name: str) -> str:
    """Return what the older version calls a field of the newer one."""
    of_new = next((field.id for field in new.fields if field.name == name), None)
    return next((field.name for field in old.fields if field.id == of_new), name)


def _readers(rules: Sequence[Rule], contract_id: str, name: str | None) -> tuple[str, ...]:
    """Return the rules over a contract that compare a field; over any of its events when the name is None."""
    return tuple(
        rule.id
        for rule in rules
        if any(
            condition.contract == contract_id
            and (name is None or any(comparison.field == name for comparison in condition.where))
            for condition in conditions(rule)
        )
    )


def _of_field(old: Field, new: Field) -> Iterator[tuple[Kind, str, str, str]]:
    if old.name != new.name:
        yield Kind.RENAMED, new.name, old.name, new.name
    if family(old.type) is not family(new.type):
        yield Kind.RETYPED, new.name, _kind(old), _kind(new)
    elif old.type is not new.type:
        kind = Kind.WIDENED if wider(old.type, new.type) is new.type else Kind.NARROWED
        yield kind, new.name, old.type.value, new.type.value
    if unit_of(old) != unit_of(new) and family(old.type) is family(new.type):
        yield _unit_change(old, new), new.name, old.unit or "", new.unit or ""
    elif old.unit != new.unit and unit_of(old) == unit_of(new):
        yield Kind.DESCRIPTION, new.name, old.unit or "", new.unit or ""
    if old.required != new.required:
        kind = Kind.TIGHTENED if new.required else Kind.LOOSENED
        yield kind, new.name, _presence(old), _presence(new)
    if old.difference != new.difference:
        yield Kind.DIFFERENCE, new.name, str(old.difference).lower(), str(new.difference).lower()
    if old.checks != new.checks:
        yield Kind.CHECKS, new.name, _checks(old), _checks(new)
    if old.classification != new.classification:
        yield Kind.CLASSIFICATION, new.name, old.classification, new.classification
    if old.description != new.description:
        yield Kind.DESCRIPTION, new.name, old.description, new.description


def _unit_change(old: Field, new: Field) -> Kind:
    if unit_of(old) is None or unit_of(new) is None:
        return Kind.UNIT
    return Kind.REMEASURED if _needs_conversion(old, new) else Kind.CONVERTED


def _of_contract(old: Contract, new: Contract) -> Iterator[tuple[Kind, str, str, str]]:
    names_before, names_after = {f.name: f.id for f in old.fields}, {f.name: f.id for f in new.fields}

    def same(before: str | None, after: str | None) -> bool:
        return (before is None) == (after is None) and names_before.get(before or "") == names_after.get(after or "")

    subjects = [" ".join(filter(None, (c.subject_kind, c.subject_field))) for c in (old, new)]
    if old.subject_kind != new.subject_kind or not same(old.subject_field, new.subject_field):
        yield Kind.SUBJECT, "", subjects[0], subjects[1]
    if not same(old.event_time_field, new.event_time_field):
        yield Kind.EVENT_TIME, "", old.event_time_field or "", new.event_time_field or ""
    if not same(old.consent_field, new.consent_field):
        yield Kind.CONSENT, "", old.consent_field or "", new.consent_field or ""
    if [names_before[name] for name in old.sort_fields] != [names_after[name] for name in new.sort_fields]:
        yield Kind.SORT, "", ", ".join(old.sort_fields), ", ".join(new.sort_fields)
    if old.retention_days != new.retention_days:
        yield Kind.RETENTION, "", str(old.retention_days), str(new.retention_days)
    places = [f"{c.catalog}.{c.namespace}" for c in (old, new)]
    if places[0] != places[1]:
        yield Kind.PLACE, "", places[0], places[1]
    words = [f"{c.title}; {c.purpose}; {c.owner}" for c in (old, new)]
    if words[0] != words[1]:
        yield Kind.DESCRIPTION, "", words[0], words[1]


def _kind(field: Field) -> str:
    unit = "" if field.unit is None else f" {field.unit}"
    return f"{field.type.value}{unit}"


def _names(contract: Contract) -> str:
    return ", ".join(field.name for field in contract.fields)


def _presence(field: Field) -> str:
    return "required" if field.required else "optional"


def _checks(field: Field) -> str:
    checks = field.checks
    stated = {
        "minimum": checks.minimum,
        "maximum": checks.maximum,
        "maxLength": checks.max_length,
        "validValues": None if checks.valid_values is None else "|".join(checks.valid_values),
    }
    return ", ".join(f"{name} {value}" for name, value in stated.items() if value is not None) or "none"
