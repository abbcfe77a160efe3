"""What a change of a contract does: to its table, to checks, to what hides personal values, to jobs, to devices. Pure.

The sentences are for the person who is about to publish, so each says what will be seen and, where something is taken
away, what to do first.
"""

from typing import Final

from msgspec import Struct

from contracts.contract import Contract, fingerprint
from contracts.evolution import Change, Kind, diff
from contracts.rules import Rule


class Effect(Struct, frozen=True):
    """What one change does to one part: `table`, `checks`, `masks`, `jobs`."""

    on: str
    says: str


class Outlook(Struct, frozen=True):
    """A change in a few words, whether it may be published, and its effects."""

    change: Change
    says: str
    effects: tuple[Effect, ...]


_SAYS: Final = {
    Kind.ADDED: "adds {name}, {after}",
    Kind.DROPPED: "drops {name}, {before}",
    Kind.RENAMED: "renames {before} to {after}",
    Kind.MOVED: "puts fields into another order",
    Kind.WIDENED: "widens {name} from {before} to {after}",
    Kind.NARROWED: "narrows {name} from {before} to {after}",
    Kind.RETYPED: "changes the type of {name} from {before} to {after}",
    Kind.CONVERTED: "changes the unit of {name} from {before} to {after}, with a conversion",
    Kind.REMEASURED: "changes the unit of {name} from {before} to {after}, without a conversion",
    Kind.UNIT: "states the unit of {name} as {after!r}, it was {before!r}",
    Kind.LOOSENED: "lets {name} be null",
    Kind.TIGHTENED: "requires {name}",
    Kind.DIFFERENCE: "changes how {name} travels: as differences {after}, was {before}",
    Kind.CHECKS: "changes the checks of {name} from {before} to {after}",
    Kind.CLASSIFICATION: "classifies {name} as {after}, was {before}",
    Kind.DESCRIPTION: "describes {what} in other words",
    Kind.SUBJECT: "changes the subject from {before!r} to {after!r}",
    Kind.EVENT_TIME: "changes the event time from {before!r} to {after!r}",
    Kind.SORT: "sorts by {after!r}, was {before!r}",
    Kind.RETENTION: "keeps rows for {after} days, was {before}",
    Kind.CONSENT: "changes whose consent is needed from {before!r} to {after!r}",
    Kind.PLACE: "moves the table from {before} to {after}",
}

_ALONGSIDE: Final = (
    "{name} is a column of its own from now on; the one before stays as {was}__v{major}, with what older versions say, "
    "and {name} has what of that can be cast, else null; rows that are there already are cast when files are merged"
)
_EFFECTS: Final[dict[Kind, dict[str, str]]] = {
    Kind.ADDED: {
        "table": "a new column {name}, null in the rows of older versions",
        "checks": "its checks run on rows of the new version only",
    },
    Kind.DROPPED: {
        "table": "the column {name} is gone, for old rows too; devices that still send {old} lose its values: to keep "
        "them, leave the field and make it optional",
        "jobs": "a condition on {name} never holds for rows of the new version",
    },
    Kind.RENAMED: {
        "table": "the column is called {after}, for old rows too, whichever version a device sends; queries that say "
        "{before} fail",
        "checks": "refused rows name the rule as {after}.*",
        "jobs": "a condition on {before} never holds for rows of the new version: apply a rule that says {after} "
        "beside the one that says {before}, and delete that one when no device sends {old} any more",
    },
    Kind.MOVED: {"table": "columns come in the new order, which SELECT * shows"},
    Kind.WIDENED: {"table": "the column {name} becomes {after}; no file is written anew"},
    Kind.NARROWED: {"table": "the column {name} stays {before}: old rows may need it"},
    Kind.RETYPED: {
        "table": _ALONGSIDE,
        "checks": "rows are checked as they were sent, before they are cast",
        "jobs": "a condition on {name} compares {after} with the value in the rule",
    },
    Kind.CONVERTED: {
        "table": _ALONGSIDE,
        "checks": "bounds are in the new unit for rows of the new version, in the old one for the others",
        "jobs": "a condition on {name} compares values in {after} with the number in the rule",
    },
    Kind.REMEASURED: {"table": "values of two units would lie in one column"},
    Kind.UNIT: {"table": "nothing; values are taken to be in the unit that is stated"},
    Kind.LOOSENED: {
        "table": "nothing: columns always allow nulls",
        "checks": "rows of the new version without {name} are taken",
    },
    Kind.TIGHTENED: {
        "table": "nothing: columns always allow nulls, and old rows keep theirs",
        "checks": "rows of the new version without {name} go to the quarantine; see first that no sender leaves it "
        "out: SELECT origin, count(*) FROM {table} WHERE {was} IS NULL GROUP BY origin",
    },
    Kind.DIFFERENCE: {"table": "nothing: it is undone when a row is read"},
    Kind.CHECKS: {
        "checks": "rows of the new version that break them go to the quarantine; those of {old} are checked by its own"
    },
    Kind.CLASSIFICATION: {
        "masks": "what hides values by their classification treats {name} as {after}, in old rows too",
    },
    Kind.DESCRIPTION: {"table": "the comment of a column follows its description"},
    Kind.SUBJECT: {
        "table": "old rows stay as they are sorted until they are merged",
        "jobs": "rules count by the new subject; what they have counted by the old one does not carry over",
    },
    Kind.EVENT_TIME: {"jobs": "rules go by the new time: what is within a window may change"},
    Kind.SORT: {
        "table": "files are sorted so from the next merge on; lookups of older files open more of them till then"
    },
    Kind.RETENTION: {"table": "rows older than {after} days are removed, those that are there already too"},
    Kind.CONSENT: {"masks": "events wait on the device for the consent of another person, or of nobody"},
    Kind.PLACE: {"table": "a table does not move"},
}


def outlook(old: Contract, new: Contract, rules: tuple[Rule, ...] = ()) -> tuple[Outlook, ...]:
    """Return what every change from one version to another does."""
    return tuple(_outlook(change, old, new) for change in diff(old, new, rules))


def on_devices(old: Contract, new: Contract) -> str:
    """Return what devices notice of a new version."""
    if fingerprint(old) == fingerprint(new):
        return (
            f"rows of {old.version} and {new.version} travel alike and count as {new.version}; devices check by "
            f"{new.version} once a bundle carries it"
        )
    return (
        f"devices send {old.version} until a bundle carries {new.version} (`fieldlake bundle publish`); rows of both "
        "land side by side, and contract_version says which it was; dictionaries are trained anew"
    )


def summary(old: Contract | None, new: Contract) -> str:
    """Return in a line what a version changed; the first one has nothing to change."""
    if old is None:
        return f"{len(new.fields)} fields, table {new.catalog}.{new.table}"
    return "; ".join(_filled(_SAYS[change.kind], change, old, new) for change in diff(old, new)) or "nothing"


def _outlook(change: Change, old: Contract, new: Contract) -> Outlook:
    texts = _EFFECTS[change.kind]
    # Without a rule that reads the field there is no job to feel it.
    effects = [Effect(on, _filled(texts[on], change, old, new)) for on in texts if on != "jobs" or change.rules]
    if change.rules:
        effects.append(Effect("jobs", f"rules in force that feel it: {', '.join(change.rules)}"))
    return Outlook(change, _filled(_SAYS[change.kind], change, old, new), tuple(effects))


def _filled(text: str, change: Change, old: Contract, new: Contract) -> str:
    return text.format(
        name=change.name,
        before=change.before,
        after=change.after,
        what=change.name or "the contract",
        was=_was(change, old, new),
        old=old.version,
        major=old.number[0],
        table=f"{old.catalog}.{old.table}",
    )


def _was(change: Change, old: Contract, new: Contract) -> str:
    of_new = next((field.id for field in new.fields if field.name == change.name), None)
    return next((field.name for field in old.fields if field.id == of_new), change.name)
