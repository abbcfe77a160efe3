"""Words in a column of texts: the same rows as looking into each text by itself."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.edge_rules import contains_any, normalised
from flink_jobs.triggers.preselect.words import SEPARATOR, Words

# What changes its length or meets its neighbour when text is normalised: sharp s, sigma, ligatures, wide and half-wide
# forms, accents and jamo that compose with what stands before them, and a character beyond 16 bits.
LETTERS = "aAsSß\u017fΣσςﬃ２Ａ\uff76\uff9e\u0301\u0327\u1100\u1161예산比价\U0001f600 \n"
TEXTS = st.text(st.sampled_from(LETTERS), max_size=6)


def found(words: list[str], texts: list[str | None], chunks: int = 1) -> list[bool]:
    cut = len(texts) // chunks
    parts = [texts[:cut], texts[cut:]] if chunks > 1 else [texts]
    return Words(words).within(pa.chunked_array(parts, pa.string())).to_pylist()


@settings(deadline=None)
@given(words=st.lists(TEXTS.filter(bool), min_size=1, max_size=5), texts=st.lists(st.none() | TEXTS, max_size=8))
def test_the_same_rows_are_found_as_one_by_one(words: list[str], texts: list[str | None]) -> None:
    plain = tuple(map(normalised, words))
    assert found(words, texts, 2) == [text is not None and contains_any(text, plain) for text in texts]


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("STRASSE", "Hauptstraße"),
        ("ip67", "ＩＰ６７防护"),
        ("预算紧张", "今年预算紧张"),
        ("ガ", "\uff76\uff9e"),
        ("😀", "gut😀"),
    ],
)
def test_a_word_is_found_whatever_its_case_and_width(word: str, text: str) -> None:
    assert found([word, "needle"], ["", text, None, "hay"]) == [False, True, False, False]


def test_no_word_is_found_across_two_texts() -> None:
    assert found(["ab"], ["a", "b", "ab"]) == [False, False, True]


def test_a_word_with_the_separator_passes_every_text_rather_than_too_few() -> None:
    assert found([f"a{SEPARATOR}b", "c"], ["x", None, f"a{SEPARATOR}b"]) == [True, False, True]


def test_thousands_of_words_are_found_at_once() -> None:
    words = [f"关键词-{n:04d}" for n in range(4_096)]
    texts: list[str | None] = [f"an {n} 关键词-{n:04d}." if n % 20 == 0 else "nothing" for n in range(10_000)]
    assert [at for at, hit in enumerate(found(words, texts)) if hit] == list(range(0, 4_096, 20))
