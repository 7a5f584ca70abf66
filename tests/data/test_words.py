"""The rule that divides a sentence into words."""

import re
import sys
from functools import cache
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towers.data.words import forms, is_unspaced, split_spaces, split_words


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
        pytest.param("हिन्दी में एक वाक्य है", ["हिन्दी", "में", "एक", "वाक्य", "है"], id="Devanagari vowel signs"),
        pytest.param("தமிழ் மொழி", ["தமிழ்", "மொழி"], id="Tamil vowel signs"),
        pytest.param("ภาษาไทย ดี", ["ภาษาไทย", "ดี"], id="Thai vowel signs"),
        pytest.param("السَّلامُ عَلَيْكُم ١٫٥", ["السَّلامُ", "عَلَيْكُم", "١٫٥"], id="vocalised Arabic and its decimal sign"),
        pytest.param("אָלֶף צה״ל", ["אָלֶף", "צה״ל"], id="vocalised Hebrew and its gershayim"),
        pytest.param("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"], id="Persian non-joiner"),
        pytest.param("അവന്\u200d ശരി", ["അവന്\u200d", "ശരി"], id="Malayalam joiner at the end"),
        pytest.param("cafe\u0301's nai\u0308ve", ["cafe\u0301", "'s", "nai\u0308ve"], id="NFD"),
        pytest.param("a =\u0338 b", ["a", "=\u0338", "b"], id="mark on a sign"),
        pytest.param("ok👍🏽 ❤️!", ["ok", "👍🏽", "❤️", "!"], id="emoji with a skin tone or a selector"),
        pytest.param(
            "👩\u200d👩\u200d👧🏳️\u200d🌈😀😀", ["👩\u200d👩\u200d👧", "🏳️\u200d🌈", "😀", "😀"], id="emoji sequences"
        ),
        pytest.param("🇩🇪🇫🇷 1️⃣", ["🇩🇪", "🇫🇷", "1️⃣"], id="flags and a keycap"),
        pytest.param("🏴\U000e0067\U000e0062\U000e007f!", ["🏴\U000e0067\U000e0062\U000e007f", "!"], id="flag of tags"),
        pytest.param("ก\u200bข \u200d \u200c", ["ก", "ข"], id="what is invisible and joins nothing"),
        pytest.param("co\u00adoperate \u2067ab\u2069\u200f \ufeffc", ["cooperate", "ab", "c"], id="what is never seen"),
        pytest.param(" \t\n\u00a0 ", [], id="blanks only"),
        pytest.param("a\tb\nc\u00a0d", ["a", "b", "c", "d"], id="any blank divides"),
    ],
)
def test_rule(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@cache
def marks() -> list[str]:
    return [mark for mark in map(chr, range(sys.maxunicode + 1)) if category(mark)[0] == "M"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from("aé1.'-🇩👩🏽\ufe0f\u200b\u200c\u200d\u0301 न्") | st.deferred(lambda: st.sampled_from(marks()))
)


@given(TEXTS)
def test_rule_loses_nothing_but_blanks(text: str) -> None:
    def visible(text: str) -> str:
        return re.sub(
            "[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]", "", "".join(text.split())
        )

    assert visible("".join(split_words(text))) == visible(text)


def test_every_mark_stays_in_its_word() -> None:
    assert split_words(" ".join(f"न{mark}न" for mark in marks())) == [f"न{mark}न" for mark in marks()]


@pytest.mark.parametrize(
    ("word", "looked_up"),
    [
        ("Dog", ("Dog", "dog")),
        ("E\u0301t", ("E\u0301t", "\u00c9t", "\u00e9t")),
        ("\u00c9t", ("\u00c9t", "\u00c9t", "\u00e9t")),
    ],
)
def test_forms_of_a_look_up(word: str, looked_up: tuple[str, ...]) -> None:
    assert forms(word) == looked_up


@pytest.mark.parametrize(
    ("word", "without"), [("東京", True), ("ภาษา", True), ("かな", True), ("हिन्दी", False), ("a", False)]
)
def test_scripts_without_spaces_are_known(word: str, without: bool) -> None:
    assert is_unspaced(word) == without


@given(TEXTS)
def test_rule_is_settled_once_applied(text: str) -> None:
    words = split_words(text)
    assert split_words(" ".join(words)) == words


def test_spaces_divide_at_spaces_only() -> None:
    assert split_spaces("\ufeffa dog") == ["a", "dog"]  # of joined files
    assert split_spaces("  do n't  stop\u00a0here\t. ") == ["do", "n't", "stop\u00a0here\t."]
