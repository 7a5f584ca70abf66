"""How a sentence is divided into words, and in which forms a word is looked up."""

import re
from functools import cache
from itertools import chain, groupby
from unicodedata import category, normalize

_APOSTROPHE = "['\u2019]"
_MODIFIERS = "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # skin tones, and the tags of regional flags
_JOINERS = "\u200c\u200d"
_INVISIBLE = re.compile("[\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
"""What has no place of its own in a text: soft hyphens, word joiners, signs of direction, byte order marks."""
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, which are written without spaces between words."""


def split_words(text: str) -> list[str]:
    """The words, numbers and punctuation marks of a text, as in the Penn Treebank and in GloVe's vocabulary.

    Negations and clitics stand by themselves (`do n't`, `dog 's`); hyphens and other apostrophes inside a word stay in
    it; a number keeps its points and commas. Combining marks, vowel signs and joiners belong to the word or symbol
    before them, in every script; an emoji sequence and a flag are one word each. Soft hyphens, word joiners and signs
    of direction are left out. Nothing is lower-cased.

    Text without spaces between words (Chinese, Japanese, Thai) is not divided: segment it first, then split at spaces.

    >>> from towers.data import split_words
    >>> print(*split_words("Don't pay O'Neill's $1,000.50 for well-known dogs."))
    Do n't pay O'Neill 's $ 1,000.50 for well-known dogs .
    """
    if text.isascii():
        return _rule(True).findall(text)
    return _rule(False).findall(_INVISIBLE.sub("", text))


def split_spaces(text: str) -> list[str]:
    """What stands between spaces (U+0020, nothing else), for text whose words are already divided.

    Byte order marks are left out: files that were joined have them inside.
    """
    return [word for word in text.replace("\ufeff", "").split(" ") if word]


def forms(word: str) -> tuple[str, ...]:
    """The forms in which a word is looked up, in this order: as it is, in NFC, and that lower-cased."""
    if word.isascii():
        return (word, word.lower())
    composed = normalize("NFC", word)
    return (word, composed, composed.lower())


def is_unspaced(word: str) -> bool:
    """Whether a word is in a script that has no spaces between words."""
    return _UNSPACED.search(word) is not None


@cache
def _rule(ascii_only: bool) -> re.Pattern[str]:
    """The rule as a regular expression; for ASCII without the letters and marks of other scripts.

    What that gains: row "words of ASCII" of `python benchmarks/run.py quick-paths`.
    """
    marks = "" if ascii_only else _marks()
    joined = f"{marks}{_JOINERS}" if marks else ""
    first, letter, end = rf"[\w{marks}]", rf"[\w{joined}]", rf"(?![\w{joined}])"
    word = f"{first}{letter}*"
    inner = r"['\u2019\u05f3\u05f4]"  # O'Neill, and the geresh and gershayim of Hebrew
    clitic = rf"{_APOSTROPHE}(?:s|m|d|re|ve|ll){end}"  # 's   'll
    more = rf"[{joined}{_MODIFIERS}]*" if marks else ""
    symbol = rf"[^\w\s\u200b{joined}]{more}"
    return re.compile(
        rf"\d+(?:[.,\u066b\u066c]\d+)+{more}"  # 3.5   1,000,000
        rf"|{word}?(?=n{_APOSTROPHE}t{end})"  # do, before n't
        rf"|n{_APOSTROPHE}t{end}|{clitic}"
        rf"|{word}(?:-{letter}+|(?!{clitic}|{_APOSTROPHE}t{end}){inner}{letter}+)*"  # dog   well-known   O'Neill
        r"|[\U0001f1e6-\U0001f1ff]{2}"  # a flag
        rf"|{symbol}(?:(?<=\u200d){symbol})*",  # every other mark by itself, with what belongs to it
        re.IGNORECASE,
    )


def _marks() -> str:
    """All combining marks (Unicode's M*) as ranges of a character class."""
    codes = chain(range(0x300, 0x20000), range(0xE0100, 0xE01F0))  # there are none elsewhere
    numbered = enumerate(code for code in codes if category(chr(code))[0] == "M")
    runs = [[code for _, code in run] for _, run in groupby(numbered, lambda pair: pair[1] - pair[0])]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)
