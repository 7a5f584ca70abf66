"""The rule that divides a sentence into words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towers.data.words import split_spaces, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("A dog, a cat.", ["A", "dog", ",", "a", "cat", "."], id="punctuation by itself"),
        pytest.param("wait...?!", ["wait", ".", ".", ".", "?", "!"], id="each mark by itself"),
        pytest.param("don't O'Neill's", ["don't", "O'Neill's"], id="apostrophe inside"),
        pytest.param("don\u2019t", ["don\u2019t"], id="typographic apostrophe inside"),
        pytest.param("'the dogs'", ["'", "the", "dogs", "'"], id="apostrophe outside"),
        pytest.param("3.5 1,000,000 2nd 7.", ["3.5", "1,000,000", "2nd", "7", "."], id="numbers"),
        pytest.param("3.5kg", ["3.5", "kg"], id="number and unit"),
        pytest.param("well-known e-mail", ["well", "-", "known", "e", "-", "mail"], id="hyphen"),
        pytest.param("$5 & 10%", ["$", "5", "&", "10", "%"], id="signs"),
        pytest.param("Größe naïve 東京", ["Größe", "naïve", "東京"], id="letters of other scripts"),
        pytest.param(" \t\n\u00a0 ", [], id="blanks only"),
        pytest.param("a\tb\nc\u00a0d", ["a", "b", "c", "d"], id="any blank divides"),
    ],
)
def test_rule(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(st.text())
def test_rule_loses_nothing_but_blanks(text: str) -> None:
    assert "".join(split_words(text)) == "".join(text.split())


@given(st.text())
def test_rule_is_settled_once_applied(text: str) -> None:
    words = split_words(text)
    assert split_words(" ".join(words)) == words


def test_spaces_divide_at_spaces_only() -> None:
    assert split_spaces("  do n't  stop\u00a0here\t. ") == ["do", "n't", "stop\u00a0here\t."]
