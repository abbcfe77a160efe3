"""Rows of a text column that contain one of many words, found in one pass over the whole column.

All texts, one behind the other, are normalised at once and searched for all words at once (Aho and Corasick, "Efficient
string matching", 1975): neither the number of rows nor that of words costs steps of Python, only what is found does.
"""

from collections.abc import Iterable
from typing import Final

import ahocorasick
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.edge_rules import normalised

SEPARATOR: Final = "\x1f"  # unit separator: ASCII, in hardly any text, and no word is found across it


class Words:
    """Words made ready to be found. Raises nothing; a word that holds the separator makes it find every row."""

    def __init__(self, words: Iterable[str]) -> None:
        plain = {normalised(word) for word in words}
        self._everywhere = any(SEPARATOR in word or not word for word in plain)
        self._automaton = ahocorasick.Automaton()
        for word in plain:
            if word:
                self._automaton.add_word(word, None)
        self._automaton.make_automaton()

    def within(self, column: pa.ChunkedArray) -> pa.Array:
        """Return a mask [rows] bool without nulls: True wherever a text contains a word; a null contains none."""
        if self._everywhere:
            return pc.is_valid(column).combine_chunks()
        found = np.zeros(len(column), dtype=np.bool_)
        if len(column):
            plain = normalised(_joined(column))
            ends = np.fromiter((end for end, _ in self._automaton.iter(plain)), dtype=np.int64)
            found[np.searchsorted(_separators(plain), ends)] = True
        return pa.array(found)


def _joined(column: pa.ChunkedArray) -> str:
    texts = pc.replace_substring(pc.fill_null(column, ""), SEPARATOR, " ")
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    one_list = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    joined: str = pc.binary_join(one_list, SEPARATOR)[0].as_py()
    return joined


def _separators(plain: str) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return where each text ends."""
    points = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return np.flatnonzero(points == ord(SEPARATOR))
