"""What a device's filter missed, from the rows that were kept and the sample of those that were not."""

from typing import TYPE_CHECKING, Final

from contracts.contract import Contract
from contracts.errors import OperatorMustActError
from contracts.offshoots import SAMPLED_SUFFIX
from contracts.recall import Recall, recall_of

if TYPE_CHECKING:
    from collections.abc import Callable

CONDITION_CHARS_MAX: Final = 2_000

COUNTS_SQL: Final = """
SELECT (SELECT count(*) FROM {table} WHERE ({relevant}){device}) AS kept_relevant,
       (SELECT coalesce(sum(count), 0) FROM lake_a.ops.ledger
         WHERE stream = '{stream}' AND fate IN ('aggregated', 'dropped')
           AND rule NOT LIKE '{stream}@%' AND reason <> 'disk_full'{device}) AS passed_over,
       (SELECT count(*) FROM {table}{suffix} WHERE true{device}) AS sampled,
       (SELECT count(*) FROM {table}{suffix} WHERE ({relevant}){device}) AS sampled_relevant
"""


def measure(
    contract: Contract, relevant: str, device: str | None, confidence: float, ask: "Callable[[str], tuple[int, ...]]"
) -> Recall:
    """Return the recall of a stream's filter; an event is relevant where the SQL condition `relevant` holds.

    Events that failed their contract were not the filter's to keep, and are in neither count.
    """
    if not relevant.strip() or len(relevant) > CONDITION_CHARS_MAX or ";" in relevant:
        raise OperatorMustActError(
            f"--relevant: expected one SQL condition over the columns of {contract.id}, up to {CONDITION_CHARS_MAX} "
            "characters, without a semicolon"
        )
    statement = COUNTS_SQL.format(
        table=f"{contract.catalog}.{contract.table}",
        suffix=SAMPLED_SUFFIX,
        stream=contract.id,
        relevant=relevant,
        device="" if device is None else f" AND origin = '{device}'",
    )
    kept_relevant, passed_over, sampled, sampled_relevant = ask(statement)
    try:
        return recall_of(kept_relevant, passed_over, sampled, sampled_relevant, confidence)
    except ValueError as error:
        raise OperatorMustActError(
            f"{contract.id}: {error}: the ledger follows the rows within some seconds, ask again then"
        ) from error


def rendered(recall: Recall) -> str:
    """Return the recall in words."""
    percent = f"{recall.confidence:.0%}"
    value = "not known" if recall.recall.value is None else f"{recall.recall.value:.4f}"
    low, high = recall.missed.low, recall.missed.high
    return (
        f"recall {value} ({percent} interval {recall.recall.low:.4f} to {recall.recall.high:.4f})\n"
        f"relevant events kept: {recall.kept_relevant:,}; missed: {low:,.0f} to {high:,.0f}\n"
        f"events not kept: {recall.passed_over:,}, of these judged: {recall.sampled:,}, relevant among them: "
        f"{recall.sampled_relevant:,}"
    )
