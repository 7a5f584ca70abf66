"""Axis names that are likely misspelt, or outside of a declared vocabulary: said when a function is decorated."""

import inspect
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

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
    """The name that another one is likely to be a misspelling of: near it, but neither its plural nor its neighbour."""
    if len(name) < 4:
        return None
    near: dict[str, int] = {}
    for other in candidates:
        distance = _distance(name, other)
        plural = {name, other} & {f"{one}{end}" for one in (name, other) for end in ("s", "es")}
        numbered = name.rstrip("0123456789") == other.rstrip("0123456789")
        if not plural and not numbered and (distance == 1 or (distance == 2 and name[0] == other[0])):
            near[other] = distance
    return min(near, key=lambda other: (near[other], other), default=None)


def _distance(one: str, other: str) -> int:
    """How many letters to insert, remove, replace or swap with their neighbour make one word the other."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        last, before, row = before, row, [i]
        for j, wanted in enumerate(other, start=1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]


def _depth() -> int:
    """How far up the stack the decorator stands, so that the warning points there."""
    frame, depth = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("towers.contracts"):
        frame, depth = frame.f_back, depth + 1
    return depth
