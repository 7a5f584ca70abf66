"""Labels of pairs, and second labels beside them, from the columns of a table."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

from towers.data.columns import Columns

_NUMBER = re.compile(r"[-+]?[0-9]{1,99}(\.[0-9]{1,99})?")
MANY = 100
"""Classes that a second label may have."""


def read_labels(
    columns: Columns,
    name: str | None,
    label_range: tuple[float, float],
    classes: bool | Literal["found"] | Sequence[str] = False,
    yes: str | None = None,
) -> dict[str, Any]:
    """The arguments of SentencePairs about the labels of a column: `labels`, and `classes` where they are classes.

    Raises:
        ValueError: a cell is no number, or outside of the range; none of the classes; or none is `yes`.
    """
    if name is None:
        return {}
    if yes is not None:
        names = columns.classes(name, yes)
        if yes not in names:
            listed = ", ".join(map(repr, sorted(set(names))[:8]))
            raise ValueError(f"{columns.rows.path}: no {name} is {yes!r}; there are {listed}")
        return {"labels": [float(found == yes) for found in names]}
    if classes == "found":
        classes = columns.none_is_a_number(name)
    if classes is False:
        return {"labels": columns.labels(name, label_range)}
    known = in_order(columns.classes(name)) if classes is True else list(classes)
    return {"labels": columns.class_numbers(name, known), "classes": known}


def in_order(names: Sequence[str]) -> list[str]:
    """The different names in the order of classes: as numbers if all are numbers, otherwise as text."""
    different = sorted(set(names))
    if all(_NUMBER.fullmatch(name) for name in different):
        different.sort(key=Fraction)
    return different


def read_second(
    columns: Columns,
    name: str | None,
    classes: Sequence[str] | None = None,
    label_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """As `read_labels`, of a second label: of degrees in `label_range`, or of classes."""
    if name is None:
        return {}
    if label_range is not None:
        return {"second": columns.labels(name, (label_range[0], label_range[1]))}
    known = in_order(columns.classes(name)) if classes is None else list(classes)
    if len(known) > MANY:
        problem = f"{name} has {len(known)} different values; a second label is of classes, at most {MANY}"
        problem += ", or of degrees: say their range (--second-label-range)"
        raise ValueError(f"{columns.rows.path}: {problem}")
    return {"second": columns.class_numbers(name, known), "second_classes": known}
