"""The documented rule that divides a sentence into words."""

import re

_CLITIC = r"['\u2019](?:s|m|d|re|ve|ll)\b"  # 's   'll
_WORD = re.compile(
    r"\d+(?:[.,]\d+)+"  # 3.5   1,000,000
    r"|\w+?(?=n['\u2019]t\b)"  # do, before n't
    rf"|n['\u2019]t\b|{_CLITIC}"
    rf"|\w+(?:-\w+|(?!{_CLITIC}|['\u2019]t\b)['\u2019]\w+)*"  # dog   well-known   O'Neill   2nd
    r"|[^\w\s]",  # every other mark by itself
    re.IGNORECASE,
)


def split_words(text: str) -> list[str]:
    """Words, numbers, and each punctuation mark by itself, as in the Penn Treebank and in GloVe's vocabulary.

    Negations and clitics stand by themselves (`do n't`, `dog 's`); hyphens and other apostrophes inside a word stay in
    it; a number keeps its points and commas. Nothing is lower-cased.

        "Don't pay O'Neill's $1,000.50 for well-known dogs." -> Do n't pay O'Neill 's $ 1,000.50 for well-known dogs .
    """
    return _WORD.findall(text)


def split_spaces(text: str) -> list[str]:
    """What stands between spaces (U+0020, nothing else), for text whose words are already divided."""
    return [word for word in text.split(" ") if word]
