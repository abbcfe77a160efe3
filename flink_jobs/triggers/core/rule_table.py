"""The set of live rules, as told by the records of `fieldlake.rules`. The newest record of a rule id counts.

Both readers of the topic, preselector and job, apply the same records in the same order, so a table is named by the
offset of the last record that went into it.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from contracts import rules
from contracts.errors import RuleError
from contracts.rules import Rule

NO_OFFSET: Final = -1
RULES_MAX: Final = 2_000  # rules; bounds the broadcast state and the work per event, 20 times what is planned for


class RuleTable(Struct, frozen=True):
    """Live rules by id. `offset` is that of the last record applied, NO_OFFSET when there was none."""

    live: Mapping[str, Rule] = {}
    offset: int = NO_OFFSET


def apply(table: RuleTable, rule_id: str, document: bytes | None, offset: int) -> RuleTable:
    """Return the table after one record; an empty document deletes the rule.

    A record at or before the table's offset is a repeat and changes nothing. Raises RuleError when the record cannot be
    followed; the caller then goes on with `skip`, which leaves the rule as it was.
    """
    if offset <= table.offset:
        return table
    live = dict(table.live)
    if not document:
        live.pop(rule_id, None)
        return RuleTable(live, offset)
    rule = rules.decode(document)
    if rule.id != rule_id:
        raise RuleError(
            f"rule record at offset {offset}: key {rule_id!r} holds rule {rule.id!r}: publish it under its id"
        )
    if rule_id not in live and len(live) >= RULES_MAX:
        raise RuleError(f"rule {rule_id!r}: {len(live)} rules are live, at most {RULES_MAX} allowed: delete one first")
    live[rule_id] = rule
    return RuleTable(live, offset)


def skip(table: RuleTable, offset: int) -> RuleTable:
    """Return the table as if a record that cannot be followed had said nothing."""
    return RuleTable(table.live, max(table.offset, offset))
