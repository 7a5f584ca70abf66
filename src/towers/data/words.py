"""The documented rule that divides a sentence into words."""

import re

_WORD = re.compile(
    r"\d+(?:[.,]\d+)+"  # 3.5   1,000,000
    r"|\w+(?:['\u2019]\w+)*"  # dog   don't   2nd
    r"|[^\w\s]"  # every other mark by itself
)


def split_words(text: str) -> list[str]:
    """Words, numbers, and each punctuation mark by itself; apostrophes inside a word stay in it.

    A number keeps its points and commas; a hyphen is a mark like any other. Nothing is lower-cased.

        "Don't pay $1,000.50 for well-known dogs'." -> Don't pay $ 1,000.50 for well - known dogs ' .
    """
    return _WORD.findall(text)


def split_spaces(text: str) -> list[str]:
    """What stands between spaces (U+0020, nothing else), for text whose words are already divided."""
    return [word for word in text.split(" ") if word]
