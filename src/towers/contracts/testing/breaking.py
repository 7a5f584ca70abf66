"""Valid arguments with one thing broken: an axis, the rank, the dtype, the kind, a condition or a value."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from hypothesis import reject
from hypothesis import strategies as st

from towers.contracts.specs import Axis, PlainSpec, TensorSpec
from towers.contracts.subjects import subject
from towers.contracts.testing.drawn_inputs import Drawer, Drawn, Inputs, Leaf, drawn_inputs
from towers.contracts.testing.drawn_sizes import Draw, Rule, Sizes, Unknown
from towers.contracts.testing.tensors import Carried, values_refused

What = Literal["axis", "rank", "dtype", "kind", "condition", "value"]
DTYPES = (torch.float32, torch.int64, torch.bool, torch.float64, torch.complex64, torch.uint8)


@dataclass(frozen=True)
class Broken(Inputs):
    """Arguments that a contract must refuse, and why."""

    what: What = "axis"
    argument: str | None = None
    """Where it is broken, as messages name it; None where several arguments are at odds."""
    axis: str | None = None
    """The axis that an error must name, without `*` and `#`; for a condition its subject. None: no axis."""
    how: str = ""
    """A sentence that says what is broken."""


@dataclass(frozen=True)
class Break:
    """One way to break drawn arguments, not yet done."""

    what: What
    leaf: Leaf
    blamed: bool
    """Whether it is this argument that the error must name, and not one that comes after it."""
    axis: str | None
    how: str
    change: Callable[[], Any]


def broken_inputs(
    target: Callable[..., Any],
    *,
    smallest: int = 1,
    largest: int = 6,
    assuming: Sequence[str] = (),
    **arguments: st.SearchStrategy[Any],
) -> st.SearchStrategy[Broken]:
    """Arguments that break a contract in one thing, which is named: see `valid_inputs` for the options.

    Only what is certain to be refused is broken: an axis whose size is written down, or that another argument shares;
    never one that is free.

    Raises:
        TypeError: the target has no contract, or an argument's name is not in it.
        hypothesis.errors.Unsatisfiable: nothing in the contract can be broken for certain.
    """
    inputs = drawn_inputs(subject(target, assuming), smallest, largest, arguments)

    @st.composite
    def strategy(draw: Draw) -> Broken:
        drawn = draw(inputs)
        own = drawn.sizes.subject.signature.where
        conditions = [rule for rule in drawn.sizes.rules if rule.condition in own]
        single = list(breaks(drawn))
        if conditions and (not single or draw(st.integers(0, 3)) == 0):
            broken = _break_condition(draw, drawn.sizes, draw(st.sampled_from(conditions)), arguments)
            if broken is not None:
                return broken
        if not single:
            reject()
        kind = draw(st.sampled_from(sorted({each.what for each in single})))
        one = draw(st.sampled_from([each for each in single if each.what == kind]))
        made = drawn.made({one.leaf.place: one.change()})
        argument = one.leaf.place if one.blamed else None
        return Broken(made.args, made.kwargs, one.what, argument, one.axis, f"{one.leaf.place}: {one.how}")

    return strategy()


def breaks(drawn: Drawn) -> Iterator[Break]:
    """All ways to break one tensor of the drawn arguments so that the contract must refuse it."""
    leaves = drawn.leaves
    for at, leaf in enumerate(leaves):
        yield from _sizes_broken(drawn, leaf, leaves[:at], leaves[at + 1 :])
        yield from _rank_broken(leaf)
        yield from _dtype_broken(drawn, leaf)
        yield from _value_broken(drawn, leaf)
        if not any(isinstance(other, PlainSpec) and other.hint is not type(None) for other in leaf.beside):
            yield Break("kind", leaf, True, None, "text in place of a tensor", lambda: "text")


# One tensor.


def _sizes_broken(drawn: Drawn, leaf: Leaf, before: Sequence[Leaf], after: Sequence[Leaf]) -> Iterator[Break]:
    shape = leaf.carried.shape
    for index, (axis, size) in enumerate(zip(leaf.axes, shape, strict=True)):
        if leaf.carried.lengths is not None and index < 2:
            continue
        right = (
            drawn.sizes.value(axis.size, drawn.assigned) if axis.broadcast and not axis.variadic and axis.size else size
        )
        wrong = max(right + 1, 2)  # 1 might broadcast
        changed = leaf.carried.changed(shape=(*shape[:index], wrong, *shape[index + 1 :]))
        own = [] if axis.variadic else [name for place, name in enumerate(_binding(leaf)) if place != index]
        earlier = _shared(axis, own, before)
        alone = _says_itself(drawn.sizes, axis) or _follows(drawn, axis, leaf, [*before, *after])
        if (alone or earlier or _shared(axis, own, after)) and not _might_fit_another(leaf, changed):
            how = f"{axis.text} is {wrong}, not {size}"
            yield Break("axis", leaf, alone or earlier, _names(axis), how, changed.made)


def _says_itself(sizes: Sizes, axis: Axis) -> bool:
    """Whether the annotation and the instance alone say how large the axis is."""
    if axis.variadic or axis.size is None or axis.size.names:
        return False
    try:
        sizes.value(axis.size, {})
    except Unknown:
        return False
    return True


def _shared(axis: Axis, own: Sequence[str | None], others: Sequence[Leaf]) -> bool:
    """Whether another axis has the same name and a size that it must agree with."""
    named = axis.name is not None and not (axis.variadic and axis.broadcast)
    return named and _names(axis) in [*own, *(name for other in others for name in _binding(other))]


def _follows(drawn: Drawn, axis: Axis, leaf: Leaf, others: Sequence[Leaf]) -> bool:
    """Whether it is an expression of names that other tensors, or int arguments, have settled."""
    if axis.size is None or axis.variadic or axis.name is not None:
        return False
    settled = {name for other in [leaf, *others] for name in _binding(other)} | drawn.arguments.keys()
    return {*axis.size.names, *axis.size.braces} <= settled | {path for path in axis.size.braces if "." in path}


def _binding(leaf: Leaf) -> list[str | None]:
    """For each axis of a tensor the name that its size settles, if it does."""
    names: list[str | None] = []
    for index, (axis, size) in enumerate(zip(leaf.axes, leaf.carried.shape, strict=True)):
        ragged = leaf.carried.lengths is not None and index == 1
        settles = axis.name is not None and not ragged and not (axis.broadcast and (axis.variadic or size == 1))
        names.append(_names(axis) if settles else None)
    return names


def _names(axis: Axis) -> str:
    """An axis without its modifiers; a name for several axes is another one than the same name for one."""
    return axis.text.replace("#", "")


def _rank_broken(leaf: Leaf) -> Iterator[Break]:
    carried, rank = leaf.carried, len(leaf.carried.shape)
    if carried.lengths is not None:
        return
    shapes = {"has an axis more": (*carried.shape, 1), "has an axis less": carried.shape[:-1]}
    for how, shape in shapes.items():
        changed = carried.changed(shape=shape)
        if len(shape) != rank and not leaf.spec.takes_rank(len(shape)) and not _might_fit_another(leaf, changed):
            yield Break("rank", leaf, True, None, how, changed.made)


def _dtype_broken(drawn: Drawn, leaf: Leaf) -> Iterator[Break]:
    allowed = leaf.spec.dtypes
    same = drawn.sizes.subject.floating if drawn.sizes.subject.signature.dtype_of is not None else None
    for dtype in DTYPES:
        other = same is not None and dtype.is_floating_point and dtype != same
        changed = leaf.carried.changed(dtype=dtype)
        if ((allowed is not None and dtype not in allowed) or other) and not _might_fit_another(leaf, changed):
            yield Break("dtype", leaf, True, None, f"is {dtype}", changed.made)


def _value_broken(drawn: Drawn, leaf: Leaf) -> Iterator[Break]:
    """One value against the rules, where there is a value."""
    name, carried = leaf.place, leaf.carried
    if 0 in carried.shape or carried.device.type != "cpu" or carried.lengths is not None:
        return
    if carried.dtype.is_floating_point or carried.dtype.is_complex or carried.dtype is torch.bool:
        return
    for value in values_refused(drawn.sizes, name, drawn.assigned):
        yield Break("value", leaf, True, None, f"holds {value}", lambda value=value: _with_value(carried, value))


def _with_value(carried: Carried, value: int) -> Any:
    made = carried.made()
    made.view(-1)[carried.seed % made.numel()] = value
    return made


def _might_fit_another(leaf: Leaf, changed: Carried) -> bool:
    """Whether another alternative of the annotation could take the changed tensor."""
    return any(
        isinstance(other, TensorSpec)
        and (other.dtypes is None or changed.dtype in other.dtypes)
        and other.takes_rank(len(changed.shape))
        for other in leaf.beside
    )


# A condition.


def _break_condition(
    draw: Draw, sizes: Sizes, rule: Rule, arguments: Mapping[str, st.SearchStrategy[Any]]
) -> Broken | None:
    """Arguments whose sizes agree with each other and with every rule but one; None if there are none such."""
    against = Rule(rule.names, lambda assigned: not rule.holds(assigned))
    assigned = sizes.drawn(draw, [against if each is rule else each for each in sizes.rules])
    if assigned is None or rule.condition is None:
        return None
    drawn = Drawer(sizes, assigned, draw, arguments, ragged=False).drawn()
    settled = {name for leaf in drawn.leaves for name in _binding(leaf) if name} | drawn.arguments.keys()
    if not rule.names <= settled or not all(leaf.carried.values for leaf in drawn.leaves):
        return None
    made = drawn.made()
    return Broken(
        made.args, made.kwargs, "condition", None, rule.condition.subject.text, f"breaks {rule.condition.text!r}"
    )
