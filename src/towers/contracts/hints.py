"""The likely cause of a shape that does not fit, from one table tried in order."""

from collections.abc import Callable, Sequence
from itertools import combinations

Sizes = Sequence[int | None]
"""What was demanded (None: any size) or what came (None: a ragged axis, which has no size of its own)."""


def likely_cause(expected: Sizes, came: Sizes) -> str | None:
    """The first hint of the table that explains why `came` does not fit `expected`; None if none does."""
    return next((text for explain in _TABLE if (text := explain(expected, came))), None)


def _fits(expected: Sizes, came: Sizes) -> bool:
    pairs = zip(expected, came, strict=False)
    return len(expected) == len(came) and all(want is None or want == got for want, got in pairs)


def _extra_axis_of_one(expected: Sizes, came: Sizes) -> str | None:
    for axis in reversed(range(len(came))):
        if came[axis] == 1 and _fits(expected, [*came[:axis], *came[axis + 1 :]]):
            where = -1 if axis == len(came) - 1 else axis
            cause = " (Keras data carries such a trailing axis)" if where == -1 else ""
            return f"there is an extra axis of 1{cause}: squeeze({where}) would fit"
    return None


def _missing_batch(expected: Sizes, came: Sizes) -> str | None:
    if _fits(expected, [None, *came]):
        return "the batch axis is missing: unsqueeze(0) would fit"
    return None


def _other_order(expected: Sizes, came: Sizes) -> str | None:
    for first, second in reversed(list(combinations(range(len(came)), 2))):
        order = list(came)
        order[first], order[second] = came[second], came[first]
        if order != list(came) and _fits(expected, order):
            return f"perhaps the axes are in another order: transpose({first}, {second}) would fit"
    return None


def _flattened(expected: Sizes, came: Sizes) -> str | None:
    for axis in range(len(expected) - 1):
        first, second = expected[axis], expected[axis + 1]
        merged = None if first is None or second is None or 1 in (first, second) else first * second
        if merged is not None and _fits([*expected[:axis], merged, *expected[axis + 2 :]], came):
            return f"perhaps two axes were flattened into one: {merged} = {first} x {second}"
    return None


def _not_pooled(expected: Sizes, came: Sizes) -> str | None:
    if len(expected) != len(came) or not expected:
        return None
    want, got = expected[-1], came[-1]
    if want and got and want > 1 and got > want and got % want == 0:
        return f"perhaps these features are not pooled yet: {got} = {want} x {got // want}"
    return None


_TABLE: tuple[Callable[[Sizes, Sizes], str | None], ...] = (
    _extra_axis_of_one,
    _missing_batch,
    _other_order,
    _flattened,
    _not_pooled,
)
