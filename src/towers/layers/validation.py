"""Checks of the sizes that a constructor gets; the errors have the form of all others."""

from towers.contracts.errors import complaint


def at_least_one(owner: object, **sizes: object) -> None:
    """Refuse a size that is not an int of at least 1.

    Raises:
        ValueError: a size is not; the error names it and its value.
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
