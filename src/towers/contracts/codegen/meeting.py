"""What the generated source asks where one comparison of sizes does not settle it."""

from itertools import zip_longest
from typing import Any

Sizes = tuple[int | None, ...]


def met_again(came: Sizes, known: Sizes) -> Sizes | None:
    """The sizes that axes have which were met before, some of them (None) without a size; None where they do not fit.

    A ragged second axis has no size and fits any.
    """
    if len(came) != len(known):
        return None
    for at, (size, before) in enumerate(zip(came, known, strict=True)):
        if size != before and before is not None and (size is not None or at != 1):
            return None
    return tuple(before if size is None else size for size, before in zip(came, known, strict=True))


def merged(known: tuple[Sizes, bool] | None, came: Sizes, broadcast: bool) -> tuple[Sizes, bool] | None:
    """The sizes that a variadic name has after it met some more, and whether more may still broadcast with them.

    None where they do not fit.
    """
    if known is None:
        return tuple(came), broadcast
    sizes, open_ = known
    both = broadcast_sizes(sizes, came) if broadcast or open_ else tuple(came)
    if both is None or (not open_ and both != sizes) or (not broadcast and both != tuple(came)):
        return None
    return both, open_ and broadcast


def broadcast_sizes(first: Sizes, second: Sizes) -> Sizes | None:
    """The sizes that two of them broadcast to; None if they do not."""
    pairs: list[tuple[Any, Any]] = list(zip_longest(reversed(first), reversed(second), fillvalue=1))
    if any(one != 1 and other != 1 and one != other for one, other in pairs):
        return None
    return tuple(other if one == 1 else one for one, other in reversed(pairs))
