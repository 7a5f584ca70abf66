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
        pytest.param("O'Neill rock'n'roll", ["O'Neill", "rock'n'roll"], id="apostrophe inside"),
        pytest.param("don't CAN'T won't", ["do", "n't", "CA", "N'T", "wo", "n't"], id="negation"),
        pytest.param("dog's we'll I'm", ["dog", "'s", "we", "'ll", "I", "'m"], id="clitic"),
        pytest.param(
            "don\u2019t O\u2019Neill\u2019s", ["do", "n\u2019t", "O\u2019Neill", "\u2019s"], id="typographic apostrophe"
        ),
        pytest.param("a dog 's bone is n't", ["a", "dog", "'s", "bone", "is", "n't"], id="divided already"),
        pytest.param("'the dogs'", ["'", "the", "dogs", "'"], id="apostrophe outside"),
        pytest.param("3.5 1,000,000 2nd 7.", ["3.5", "1,000,000", "2nd", "7", "."], id="numbers"),
        pytest.param("3.5kg", ["3.5", "kg"], id="number and unit"),
        pytest.param("well-known e-mail", ["well-known", "e-mail"], id="hyphen inside"),
        pytest.param("this - or that", ["this", "-", "or", "that"], id="hyphen between"),
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
