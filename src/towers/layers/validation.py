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


def probability(owner: object, name: str, p: object) -> None:
    """Refuse what is no probability below 1.

    Raises:
        ValueError: it is not a number from 0 to 1, 1 excluded.
    """
    if not (isinstance(p, int | float) and type(p) is not bool and 0 <= p < 1):
        refuse(owner, f"{name} ({p!r}) must be a probability, from 0 to 1, 1 excluded")
