"""Checks of the sizes that a constructor gets; the errors have the form of all others."""

from numbers import Integral
from typing import Any

from towers.contracts.errors import complaint


def at_least_one(owner: object, **sizes: Any) -> list[int]:
    """The sizes as ints, in order: an int of NumPy is one too, a bool is none.

    Raises:
        ValueError: a size is no int of at least 1; the error names it and its value.
    """
    found: list[int] = []
    for name, size in sizes.items():
        if not is_int(size) or int(size) < 1:
            refuse(owner, f"{name} ({size!r}) must be an int of at least 1")
        found.append(int(size))
    return found


def is_int(size: Any) -> bool:
    """Whether it counts something: Python's int or NumPy's, no bool."""
    return type(size) is not bool and isinstance(size, Integral)


def refuse(owner: object, problem: str) -> None:
    """Raise the ValueError of a constructor.

    Raises:
        ValueError: always.
    """
    raise ValueError(complaint(type(owner).__name__, problem))


def probability(owner: object, name: str, p: object) -> None:
    """Refuse what is no probability below 1.

    Raises:
        ValueError: it is not a number from 0 to 1, 1 excluded.
    """
    if not (isinstance(p, int | float) and type(p) is not bool and 0 <= p < 1):
        refuse(owner, f"{name} ({p!r}) must be a probability, from 0 to 1, 1 excluded")
