"""Finds axis names that are probably misspelt, or not in a declared vocabulary, when a function is decorated."""

import inspect
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from towers.contracts.specs import Spec, axis_names


def check_spelling(where: str, specs: Iterable[Spec], result: Spec | None, vocabulary: Sequence[str]) -> None:
    """Warn of a name that is similar to another one; refuse a name that is not in a closed vocabulary.

    A name that stands once is compared with those that stand twice; one that only the result has, which is then free
    to have any size, with those of the arguments.

    Args:
        where: the function, for messages.
        specs: what its signature demands of the arguments.
        result: and of the result.
        vocabulary: the declared names. If "..." is among them, other names are allowed.

    Raises:
        ValueError: a name is not in a closed vocabulary.
    """
    given = Counter(name for spec in specs for name in axis_names(spec))
    counts = given + Counter([] if result is None else axis_names(result))
    known = {*vocabulary} - {"..."}
    for name in counts:
        if name in known:
            continue
        twice = {other for other in counts if counts[other] > 1} if counts[name] == 1 else set[str]()
        slips = {other for other in given if name not in given and _slip(name, other)}
        nearest = _meant(name, {*known, *twice, *slips})
        perhaps = f"; perhaps {nearest} is meant" if nearest else ""
        if known and "..." not in vocabulary:
            raise ValueError(f"{where}: axis {name} is not in the vocabulary ({', '.join(sorted(known))}){perhaps}")
        if nearest:
            warnings.warn(f"{where}: axis {name} is likely misspelt{perhaps}", stacklevel=_depth())


def _meant(name: str, candidates: Iterable[str]) -> str | None:
    """The name that is probably meant; not its plural, and not the same name with another number.

    Two names are similar if they differ in one letter, or if two letters changed places.
    """
    if len(name) < 4:
        return None
    near: dict[str, int] = {}
    for other in candidates:
        matcher = SequenceMatcher(None, name, other, autojunk=False)
        differing = len(name) + len(other) - 2 * sum(block.size for block in matcher.get_matching_blocks())
        plural = {name, other} & {f"{one}{end}" for one in (name, other) for end in ("s", "es")}
        numbered = name.rstrip("0123456789") == other.rstrip("0123456789")
        if differing <= 2 and not plural and not numbered:
            near[other] = differing
    return min(near, key=lambda other: (near[other], other), default=None)


def _slip(name: str, other: str) -> bool:
    """Whether letters changed places, or one is missing or doubled: seq_q and seq_k are names of two axes."""
    return sorted(name) == sorted(other) or abs(len(name) - len(other)) == 1


def _depth() -> int:
    """The number of frames up to the decorated function, so that the warning points to it."""
    frame, depth = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("towers.contracts"):
        frame, depth = frame.f_back, depth + 1
    return depth
