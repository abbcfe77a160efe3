"""Contracts that follow from another one: for events that did not travel as rows of their own, and do after all.

An event that the device dropped or only aggregated has one account in the ledger, and it keeps that. A sample of such
events, and those that somebody asks for later, arrive as rows of tables of their own, so that no query over the rows
that were kept ever counts them, and the one that wants both writes a union.
"""

from typing import Final

from msgspec.structs import replace

from contracts.contract import Checks, Contract, Field, FieldType
from contracts.ledger import Fate

SAMPLED_SUFFIX: Final = "_dropped"
PULLED_SUFFIX: Final = "_pulled"
FIRST_ID: Final = 10_001  # of the fields that an offshoot has beyond its contract's; no contract has as many of its own
RULE_CHARS_MAX: Final = 128

SOURCE_SEQ: Final = "source_seq"
PULL_ID: Final = "pull_id"
FATE: Final = "fate"
PULLED_FATES: Final = (Fate.KEPT.value, Fate.AGGREGATED.value, Fate.DROPPED.value)


def sampled_of(contract: Contract) -> Contract:
    """Return the contract for the sample of a contract's events that did not travel, `ID_dropped`."""
    text = Checks(max_length=RULE_CHARS_MAX)
    return replace(
        contract,
        id=f"{contract.id}{SAMPLED_SUFFIX}",
        title=f"{contract.title}: sample of what was not kept",
        purpose="Estimate what the filter misses.",
        fields=(
            *contract.fields,
            Field(
                FIRST_ID, SOURCE_SEQ, FieldType.LONG, True, True,
                description=f"Number of the event in {contract.id}.", checks=Checks(minimum=0),
            ),
            Field(
                FIRST_ID + 1, "dropped_by", FieldType.STRING, True,
                description="Rule or model that decided, id@version, or empty.", checks=text,
            ),
            Field(
                FIRST_ID + 2, "dropped_because", FieldType.STRING, True,
                description="Why, as in the ledger.", checks=text,
            ),
        ),
    )  # fmt: skip


def pulled_of(contract: Contract) -> Contract:
    """Return the contract for a contract's events that somebody asked for later, `ID_pulled`.

    The same event may be there once for each pull that asked for it.
    """
    return replace(
        contract,
        id=f"{contract.id}{PULLED_SUFFIX}",
        title=f"{contract.title}: pulled from devices",
        purpose="Look closer at what a device has seen.",
        fields=(
            *contract.fields,
            Field(
                FIRST_ID, SOURCE_SEQ, FieldType.LONG, True, True,
                description=f"Number of the event in {contract.id}.", checks=Checks(minimum=0),
            ),
            Field(
                FIRST_ID + 1, FATE, FieldType.STRING, True,
                description="What became of the event when it came, as in the ledger.",
                checks=Checks(valid_values=PULLED_FATES),
            ),
            Field(
                FIRST_ID + 2, PULL_ID, FieldType.STRING, True,
                description="Pull that asked for it, see pulls.", checks=Checks(max_length=RULE_CHARS_MAX),
            ),
        ),
    )  # fmt: skip
