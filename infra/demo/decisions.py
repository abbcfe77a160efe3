"""Which decisions the scripted visits must lead to, and which they must not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from contracts.decisions import Decision
from infra.datasets import VisitTruth
from infra.datasets.visits import USER_PREFIX

TRUTH_FILE: Final = "truth/clicks.jsonl"


def expected_decisions(datasets_dir: Path) -> list[VisitTruth]:
    """Return the truth of every scripted user."""
    return msgspec.json.Decoder(VisitTruth).decode_lines((datasets_dir / TRUTH_FILE).read_bytes())


def judge_decisions(
    expected: Sequence[VisitTruth], made: Sequence[Decision]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is missing and what should not be there among the decisions about scripted users, in words."""
    wanted = {(truth.user_id, truth.rule_id) for truth in expected if truth.rule_id is not None}
    found = {(d.subject, d.rule_id) for d in made if d.subject.startswith(USER_PREFIX)}
    doubled = (
        [d.id for d in made if sum(other.id == d.id for other in made) > 1]
        if len({d.id for d in made}) < len(made)
        else []
    )
    missing = tuple(f"{user}: {rule} did not fire" for user, rule in sorted(wanted - found))
    wrong = tuple(f"{user}: {rule} fired" for user, rule in sorted(found - wanted))
    return missing, wrong + tuple(f"decision {d} twice" for d in doubled)
