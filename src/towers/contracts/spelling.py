"""Axis names that are likely misspelt, or outside of a declared vocabulary: said when a function is decorated."""

import inspect
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from towers.contracts.specs import Spec, axis_names


def check_spelling(where: str, specs: Iterable[Spec], vocabulary: Sequence[str]) -> None:
    """Warn of a name that is nearly another one; refuse one that a closed vocabulary does not have.

    Args:
        where: the function, for messages.
        specs: all that its signature demands.
        vocabulary: the declared names; one that ends in "..." is open: it lends its names to the warning alone.

    Raises:
        ValueError: a name is not in a closed vocabulary.
    """
    counts = Counter(name for spec in specs for name in axis_names(spec))
    known = {*vocabulary} - {"..."}
    for name in counts:
        if name in known:
            continue
        twice = {other for other in counts if counts[other] > 1} if counts[name] == 1 else set[str]()
        nearest = _meant(name, {*known, *twice})
        perhaps = f"; perhaps {nearest} is meant" if nearest else ""
        if known and "..." not in vocabulary:
            raise ValueError(f"{where}: axis {name} is not in the vocabulary ({', '.join(sorted(known))}){perhaps}")
        if nearest:
            warnings.warn(f"{where}: axis {name} is likely misspelt{perhaps}", stacklevel=_depth())


def _meant(name: str, candidates: Iterable[str]) -> str | None:
    """The name that another one is likely to be a misspelling of; never its plural, nor the same with another number.

    Near are names that differ in one letter, or in two that changed places.
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


def _depth() -> int:
    """How far up the stack the decorator stands, so that the warning points there."""
    frame, depth = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("towers.contracts"):
        frame, depth = frame.f_back, depth + 1
    return depth
