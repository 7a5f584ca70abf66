"""Sizes given to a constructor: refused at once, in the same form as everything that does not fit."""

from towers.contracts.errors import complaint


def at_least_one(owner: object, **sizes: object) -> None:
    """Refuse a size that is no int of at least 1.

    Raises:
        ValueError: names the size and its value.
    """
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            refuse(owner, f"{name} ({size!r}) must be an int of at least 1")


def refuse(owner: object, problem: str) -> None:
    """Raise the ValueError of a constructor.

    Raises:
        ValueError: always.
    """
    raise ValueError(complaint(type(owner).__name__, problem))
