"""Takes the README apart: its commands, and its Python with the output it shows."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^print\(.*\) +# (.*)$", re.MULTILINE)


class Python(NamedTuple):
    code: str
    output: str  # what the README says that it prints


def blocks(readme: str) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    return ((found[1], found[2]) for found in _BLOCK.finditer(readme))


def commands(readme: str) -> list[str]:
    """Each command of a `bash` block; lines that end in a backslash go on in the next."""
    found = []
    for language, content in blocks(readme):
        lines = content.replace("\\\n", "").splitlines()
        if language == "bash":
            found += [line for line in lines if line and not line.startswith("#")]
    return [" ".join(command.split("  # ")[0].split()) for command in found]


def shown(readme: str) -> list[tuple[str, list[str]]]:
    """Each `console` block: the command after `$ `, and the lines that the README says it prints."""
    contents = [content.splitlines() for language, content in blocks(readme) if language == "console"]
    return [(command.removeprefix("$ "), output) for command, *output in contents]


def python(readme: str) -> list[Python]:
    """Each Python block and its output: the `text` block that follows it, or else the comments behind its prints."""
    found = []
    everything = [*blocks(readme), ("", "")]
    for (language, content), (following, text) in pairwise(everything):
        if language == "python":
            shown = text if following == "text" else "".join(f"{line}\n" for line in _SHOWN.findall(content))
            found.append(Python(content, shown))
    return found
