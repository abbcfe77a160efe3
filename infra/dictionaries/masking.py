"""Personal texts made unreadable before a dictionary is learnt: it outlives the rows, and no erasure reaches into it.

What all texts of a column begin with is kept, because it is the column's form and nobody's name. Behind it every letter
becomes another letter and every digit another digit, so lengths and alphabets stay those of the rows to come.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from random import Random
from typing import Any, Final

from contracts.contract import Contract, FieldType
from edge_agent.core.codec.record_batch import Column

PERSONAL: Final = "personal"
_CJK_FIRST, _CJK_LAST = 0x4E00, 0x9FA5


def masked(contract: Contract, columns: Mapping[str, Column], rng: Random) -> dict[str, Column]:
    """Return the columns with every text of a personal field masked."""
    personal = {f.name for f in contract.fields if f.classification == PERSONAL and f.type is FieldType.STRING}
    return {name: _masked(values, rng) if name in personal else values for name, values in columns.items()}


def _masked(values: Sequence[Any] | Any, rng: Random) -> list[str | None]:
    texts = sorted({value for value in values if value is not None})
    # What the first and the last in order share, all share.
    pairs = zip(texts[0], texts[-1], strict=False) if len(texts) > 1 else iter(())
    kept = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    instead = {text: text[:kept] + "".join(_other(character, rng) for character in text[kept:]) for text in texts}
    return [None if value is None else instead[value] for value in values]


def _other(character: str, rng: Random) -> str:
    if character.isascii():
        if character.isdigit():
            return rng.choice("0123456789")
        if character.isalpha():
            letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
            return letter.upper() if character.isupper() else letter
        return character
    return chr(rng.randint(_CJK_FIRST, _CJK_LAST)) if character.isalpha() else character
