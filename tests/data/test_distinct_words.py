"""The number of different words: exact up to a limit, estimated beyond it, in memory that does not grow."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towers.data import Coverage
from towers.data.distinct_words import EXACT, DistinctWords


@given(st.lists(st.lists(st.text(max_size=2), max_size=6), max_size=6), st.sets(st.text(max_size=2), max_size=9))
def test_up_to_the_limit_it_is_exact(parts, missing):
    distinct = DistinctWords()
    for part in parts:
        distinct.add(part, missing)
    words = {word for part in parts for word in part}
    assert (distinct.types, distinct.types_found) == (len(words), len(words - missing))


@pytest.mark.parametrize("name", ["{}", "word{:07}", "\ud800{:x}"])
def test_beyond_the_limit_it_is_an_estimate(name, monkeypatch):
    monkeypatch.setattr("towers.data.distinct_words.EXACT", 1000)
    words = [name.format(number) for number in range(20_000)]
    missing = set(words[::4])
    estimates = []
    for order in (words, words[::-1], words[1::2] + words):
        distinct = DistinctWords()
        for start in range(0, len(order), 700):
            distinct.add(order[start : start + 700], missing)
            assert len(distinct._found) <= 1000
        estimates.append((distinct.types, distinct.types_found))
    assert len(set(estimates)) == 1  # neither the order nor repetitions count
    types, found = estimates[0]
    assert types == pytest.approx(20_000, rel=4 / 500**0.5)
    assert types != len(words)
    assert found / types == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 500) ** 0.5)


def test_the_text_says_that_a_large_number_is_estimated():
    assert " and 1 of 131072 words have a vector" in str(Coverage(EXACT, 1, EXACT, 1, Counter()))
    assert " and about 1 of 131073 words have a vector" in str(Coverage(EXACT + 1, 1, EXACT + 1, 1, Counter()))
