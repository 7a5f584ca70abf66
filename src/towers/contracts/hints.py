"""Finds the likely cause of an error in a table of hints. A package can add hints for its own contracts."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, SupportsIndex, cast

import torch
from torch import Tensor

Sizes = Sequence[int | None]
"""Demanded sizes (None: any size), or the sizes of a value (None: a ragged axis)."""
Found = Mapping[str, object]
"""The values that a test found, for its text."""


@dataclass
class Case:
    """The value that does not fit, and what was demanded. Sizes are empty for a wrong type or dtype."""

    package: str = ""
    """The Python module of the function that was called."""
    expected: Sizes = ()
    came: Sizes = ()
    value: object = None
    kind: str = ""
    """The demanded dtype, if the dtype is wrong: `Float`, or `float32` if it is that of a parameter."""
    parameter: str | None = None
    """The parameter whose dtype was demanded."""
    wants_tensor: bool = False
    """Whether a tensor was demanded, and the value is none."""
    wants_int: bool = False
    """Whether an int was demanded, and the value is none."""
    devices: Sequence[tuple[str, torch.device]] = ()
    """The other tensors of the call with their devices."""


class Hint(NamedTuple):
    """A likely cause: its name, the test that finds it, and the text of the hint."""

    name: str
    test: Callable[[Case], Found | None]
    text: str


_OF_PACKAGES: dict[str, tuple[Hint, ...]] = {}


def register_hints(package: str, hints: Sequence[Hint]) -> None:
    """Add hints for the contracts of a package. They are tried before those of the table.

    Args:
        package: the name of a top-level package, such as "towers".
        hints: all of its hints; they replace those that were registered for the package before.
    """
    _OF_PACKAGES[package] = tuple(hints)


def likely_cause(case: Case) -> str | None:
    """The text of the first hint whose test finds something; None if none does."""
    for hint in (*_OF_PACKAGES.get(case.package.partition(".")[0], ()), *TABLE):
        found = hint.test(case)
        if found is not None:
            return hint.text.format(**found)
    return None


def _fits(expected: Sizes, came: Sizes) -> bool:
    pairs = zip(expected, came, strict=False)
    return len(expected) == len(came) and all(want is None or want == got for want, got in pairs)


def extra_axis(case: Case) -> Found | None:
    """The value would fit without an axis of size 1."""
    came = case.came
    for axis in reversed(range(len(came))):
        if came[axis] == 1 and _fits(case.expected, [*came[:axis], *came[axis + 1 :]]):
            return {"axis": -1 if axis == len(came) - 1 else axis}
    return None


def _missing_batch(case: Case) -> Found | None:
    return {} if len(case.expected) > 1 and _fits(case.expected, [None, *case.came]) else None


def _missing_axis(case: Case) -> Found | None:
    expected = case.expected
    for axis in reversed(range(1, len(expected))):
        if expected[axis] in (1, None) and _fits([*expected[:axis], *expected[axis + 1 :]], case.came):
            return {"axis": -1 if axis == len(expected) - 1 else axis}
    return None


def _swapped(case: Case, first: int, second: int) -> bool:
    order = list(case.came)
    order[first], order[second] = order[second], order[first]
    return order != list(case.came) and _fits(case.expected, order)


def _sequence_first(case: Case) -> Found | None:
    rank = len(case.came)
    if rank < 3 or not _swapped(case, 0, 1):
        return None
    return None if any(_swapped(case, *pair) for pair in combinations(range(rank), 2) if pair != (0, 1)) else {}


def _other_order(case: Case) -> Found | None:
    rank = len(case.came)
    ways = ((1, "-1, 1", [0, rank - 1, *range(1, rank - 1)]), (-1, "1, -1", [0, *range(2, rank), 1]))
    for channels, move, order in ways if rank > 3 and len(case.expected) == rank else ():  # images, above all
        if case.expected[channels] is not None and _fits(case.expected, [case.came[axis] for axis in order]):
            return {"way": f"movedim({move})"}
    for first, second in reversed(list(combinations(range(rank), 2))):
        if _swapped(case, first, second):
            return {"way": f"transpose({first}, {second})"}
    return None


def _flattened(case: Case) -> Found | None:
    expected = case.expected
    for axis in range(len(expected) - 1):
        first, second = expected[axis], expected[axis + 1]
        merged = None if first is None or second is None or 1 in (first, second) else first * second
        if merged is not None and _fits([*expected[:axis], merged, *expected[axis + 2 :]], case.came):
            return {"merged": merged, "first": first, "second": second}
    return None


def _other_parameter_dtype(case: Case) -> Found | None:
    if case.parameter is None or not isinstance(case.value, Tensor):
        return None
    return {"wanted": case.kind, "came": str(case.value.dtype).removeprefix("torch.")}


_CONVERTED = {
    "Complex": "to(torch.complex64)",
    "Float": "float()",
    "Inexact": "float()",
    "Int": "long()",
    "Integer": "long()",
    "Bool": "bool()",
}


def _wrong_dtype(case: Case) -> Found | None:
    exact = getattr(torch, case.kind.lower(), None)
    way = f"to(torch.{case.kind.lower()})" if isinstance(exact, torch.dtype) else None
    way = _CONVERTED.get(case.kind, way)
    if not way or case.parameter is not None or not isinstance(case.value, Tensor):
        return None
    if case.value.is_quantized or case.value.is_complex():  # float() refuses the one, and drops half of the other
        return {"way": "dequantize()" if case.value.is_quantized else "real or .abs()"} if "loat" in case.kind else None
    return {"way": way}


def list_of_tensors(case: Case) -> Found | None:
    """A list of tensors where one tensor was demanded."""
    items: Any = case.value
    return {} if _is_list(case) and items and all(isinstance(item, Tensor) for item in items) else None


def _several_results(case: Case) -> Found | None:
    items: Any = case.value
    return {} if _is_list(case) and isinstance(items, tuple) and items and isinstance(items[0], Tensor) else None


def _list_of_numbers(case: Case) -> Found | None:
    items: Any = case.value
    return {} if _is_list(case) and all(isinstance(item, (int, float, list, tuple)) for item in items) else None


def _numpy_array(case: Case) -> Found | None:
    return {} if case.wants_tensor and type(case.value).__module__ == "numpy" else None


def _index(case: Case) -> Found | None:
    if not case.wants_int:
        return None
    try:
        operator.index(cast(SupportsIndex, case.value))
    except (TypeError, RuntimeError):
        return None
    return {}


def _left_none(case: Case) -> Found | None:
    return {} if case.wants_tensor and case.value is None else None


def _is_list(case: Case) -> bool:
    return case.wants_tensor and isinstance(case.value, (list, tuple))


def _strided(case: Case) -> Found | None:
    value = case.value
    return {} if isinstance(value, Tensor) and value.is_nested and value.layout is not torch.jagged else None


def _other_device(case: Case) -> Found | None:
    if not isinstance(case.value, Tensor) or not case.devices:
        return None
    name, device = case.devices[0]
    return {"here": case.value.device, "name": name, "there": device} if device != case.value.device else None


TABLE = (
    Hint("extra axis of 1", extra_axis, "there is an extra axis of 1: squeeze({axis}) would fit"),
    Hint("missing batch axis", _missing_batch, "the batch axis is missing: unsqueeze(0) would fit"),
    Hint("missing axis of 1", _missing_axis, "perhaps an axis of 1 is missing: unsqueeze({axis}) would fit"),
    Hint(
        "sequence first",
        _sequence_first,
        "perhaps the sequence comes first, the batch second (as of a module without batch_first=True): "
        "transpose(0, 1) would fit",
    ),
    Hint("axes in another order", _other_order, "perhaps the axes are in another order: {way} would fit"),
    Hint("two axes flattened", _flattened, "perhaps two axes were flattened into one: {merged} = {first} x {second}"),
    Hint(
        "another dtype than a parameter",
        _other_parameter_dtype,
        "convert the input, .to(torch.{wanted}), or the module, .to(torch.{came})",
    ),
    Hint("wrong dtype", _wrong_dtype, ".{way} converts it"),
    Hint("a list of tensors", list_of_tensors, "torch.stack joins tensors of one shape"),
    Hint(
        "several results",
        _several_results,
        "perhaps its item 0 is meant, as of a module that gives several things (nn.LSTM)",
    ),
    Hint("a list of numbers", _list_of_numbers, "torch.tensor makes one of numbers"),
    Hint("a numpy array", _numpy_array, "torch.as_tensor makes one of numpy's"),
    Hint("an integer of another kind", _index, "int(…) makes one of it"),
    Hint("None", _left_none, "perhaps the annotation lacks `| None`"),
    Hint("nested, but not jagged", _strided, "torch.nested.nested_tensor(…, layout=torch.jagged)"),
    Hint("another device", _other_device, "it is on {here}, {name} on {there}: perhaps a .to(…) is missing"),
)
"""The hints, in the order in which they are tried. A hint that is not certain says "perhaps"."""
