"""Compares what a text says that a command prints with what it prints: words as they stand, numbers nearly."""

import re
from typing import NamedTuple

NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*\.\d+(?:e-?\d+)?")


class Example(NamedTuple):
    command: str
    output: list[str]


def examples(text: str) -> list[Example]:
    """The commands after `  $ ` and the indented lines that follow each, up to an empty one or the next command."""
    found: list[Example] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("  $ "):
            found.append(Example(line[4:], []))
            inside = True
        elif not line.strip():
            inside = False
        elif inside:
            found[-1].output.append(line[2:])
    return found


def same(shown: list[str], printed: list[str], tolerance: float = 0.02) -> bool:
    """Whether lines are the same but for decimal numbers: seconds may be any, others are nearly equal."""
    return len(shown) == len(printed) and all(map(_same_line, shown, printed, [tolerance] * len(shown)))


def _same_line(shown: str, printed: str, tolerance: float) -> bool:
    shown, printed = (re.sub(r"\b[\d.]+ s\b", "N s", line) for line in (shown, printed))
    if NUMBER.sub("N", shown).split() != NUMBER.sub("N", printed).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(abs(float(a.replace(",", "")) - float(b.replace(",", ""))) <= tolerance for a, b in pairs)
