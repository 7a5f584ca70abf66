"""Arguments that a contract accepts, drawn by hypothesis."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import strategies as st

from towers.contracts.modes import checks
from towers.contracts.specs import (
    Alternative,
    Axis,
    ItemsSpec,
    KeyedSpec,
    MappingSpec,
    PlainSpec,
    RecordSpec,
    Spec,
    TensorSpec,
    TreeSpec,
    TupleSpec,
    holds_tensors,
)
from towers.contracts.subjects import Subject, subject
from towers.contracts.testing.drawn_sizes import Draw, Sizes, Unknown
from towers.contracts.testing.tensors import Carried, values_allowed

USUAL_RANKS = (0, 1, 2)  # of what a variadic axis stands for
KEYS = ("first", "second", "third", *"abcdef")  # of dicts and of **kwargs, where no parameter has that name


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call: `function(*inputs.args, **inputs.kwargs)`."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Leaf:
    """A tensor (or ragged rows) somewhere in an argument, before it is made."""

    place: str
    """As messages name it: "pair.left", "states[1]"."""
    spec: TensorSpec
    beside: tuple[Alternative, ...]
    """The other alternatives of its annotation."""
    carried: Carried
    axes: tuple[Axis, ...]
    """For each size of it the axis that it stands for."""


@dataclass
class Drawn:
    """Valid arguments, in which leaves can still be exchanged before they are made."""

    sizes: Sizes
    assigned: dict[str, int]
    arguments: dict[str, Any]

    @property
    def leaves(self) -> list[Leaf]:
        """All tensors, in the order in which they are looked at."""
        return [leaf for value in self.arguments.values() for leaf in _leaves(value)]

    def made(self, exchanged: Mapping[str, Any] | None = None) -> Inputs:
        """The arguments; `exchanged` has other values for some places."""
        values = {name: _made(value, exchanged or {}, name) for name, value in self.arguments.items()}
        args: list[Any] = []
        for parameter in self.sizes.subject.signature.formal:
            if parameter.kind == parameter.POSITIONAL_ONLY and parameter.name in values:
                args.append(values.pop(parameter.name))
            elif parameter.kind == parameter.VAR_POSITIONAL:
                args += values.pop(parameter.name, ())
            elif parameter.kind == parameter.VAR_KEYWORD:
                values |= values.pop(parameter.name, {})
        return Inputs(tuple(args), values)


def valid_inputs(
    target: Callable[..., Any],
    *,
    smallest: int = 1,
    largest: int = 6,
    assuming: Sequence[str] = (),
    **arguments: st.SearchStrategy[Any],
) -> st.SearchStrategy[Inputs]:
    """Arguments that keep the contract of a function, of a method of an instance, or of a module's forward.

    Sizes fulfil all conditions; what is no tensor follows its annotation, or stays at its default; floating values
    are normal, in the dtype of the module's parameters; ints keep the rules on values, and are 0 and 1 without one.
    Where a type that holds ragged rows is allowed beside Tensor, those and jagged nested tensors come too.

    Args:
        target: what is called.
        smallest, largest: the sizes that are usual; conditions may demand others.
        assuming: conditions as `contract(where=…)` has them, which the inputs keep beyond the contract's own: what the
            inside of a module demands and its contract does not say.
        arguments: a strategy for an argument that the annotation says too little about, by its name.

    Raises:
        TypeError: the target has no contract, or an argument's name is not in it.
    """
    return drawn_inputs(subject(target, assuming), smallest, largest, arguments).map(lambda drawn: drawn.made())


def drawn_inputs(
    of: Subject, smallest: int, largest: int, given: Mapping[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[Drawn]:
    """`valid_inputs` before the tensors are made."""
    for name in given:
        if name not in of.signature.arguments and all(name != p.name for p in of.signature.formal):
            raise TypeError(f"{of.name} has no argument {name}")
    sizes = Sizes(of, smallest, largest)

    @st.composite
    def strategy(draw: Draw) -> Drawn:
        assigned = sizes.drawn(draw)
        if assigned is None:
            raise ValueError(f"no sizes up to {largest} fulfil what {of.name} demands; give a larger `largest`")
        return Drawer(sizes, assigned, draw, given).drawn()

    return strategy()


class Drawer:
    """Draws one call's arguments, given the sizes of its names."""

    def __init__(
        self,
        sizes: Sizes,
        assigned: dict[str, int],
        draw: Draw,
        given: Mapping[str, st.SearchStrategy[Any]],
        *,
        ragged: bool = True,
    ) -> None:
        self.sizes, self.assigned, self.draw, self.given, self.ragged = sizes, assigned, draw, given, ragged
        self.several: dict[str, tuple[int, ...]] = {}
        """What the variadic names stand for."""
        self.lengths: list[int] | None = None
        """Of ragged rows, once there are some; their batch says how many."""
        self.subject: Subject = sizes.subject
        self.parameters = sizes.subject.signature.formal

    def drawn(self) -> Drawn:
        """The arguments by name; one that is left to its default is absent."""
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            spec = self.subject.signature.arguments.get(parameter.name)
            if parameter.name in self.given:
                values[parameter.name] = self.draw(self.given[parameter.name])
            elif spec is not None and not self.by_default(parameter, spec):
                values[parameter.name] = self.value(parameter.name, spec)
            elif spec is None and _required(parameter):
                raise TypeError(f"{self.subject.name}: {parameter.name} has no annotation: give a strategy for it")
        return Drawn(self.sizes, self.assigned, values)

    def by_default(self, parameter: inspect.Parameter, spec: Spec) -> bool:
        """Whether an argument keeps its default: if it is no tensor, at times if it is, never if sizes depend on it."""
        if parameter.default is parameter.empty or self.is_size(parameter.name, spec):
            return False
        if all(isinstance(option, PlainSpec) for option in spec):
            return True
        return self.lengths is not None or self.draw(st.booleans())

    def is_size(self, place: str, spec: Spec) -> bool:
        """Whether an argument is a number that sizes depend on; a tensor or a record may have the name of an axis."""
        return place in self.assigned and not holds_tensors(spec)

    def value(self, place: str, spec: Spec) -> Any:
        """A value for one annotation."""
        if self.is_size(place, spec):
            return self.assigned[place]
        options = list(spec)
        if self.lengths is not None and _NONE in options:  # beside ragged rows there are no lengths
            return None
        option: Alternative = self.draw(st.sampled_from(options))
        match option:
            case TensorSpec():
                return self.leaf(place, option, tuple(other for other in options if other is not option))
            case TupleSpec(items, rest):
                count = len(items) if rest is None else len(items) - 1 + self.draw(st.integers(0, 2))
                return tuple(self.value(f"{place}[{index}]", item) for index, item in enumerate(option.each(count)))
            case ItemsSpec(kind, item):
                count = range(self.draw(st.integers(1, 3)))
                items = [self.value(f"{place}[{index}]", item) for index in count]
                return tuple(items) if issubclass(kind, tuple) else items
            case TreeSpec(leaf):
                return [self.value(f"{place}[{index}]", leaf) for index in range(self.draw(st.integers(1, 3)))]
            case MappingSpec(_, _, value):
                keys = [key for key in KEYS if all(key != parameter.name for parameter in self.parameters)]
                return {key: self.value(f"{place}[{key!r}]", value) for key in keys[: self.draw(st.integers(1, 3))]}
            case RecordSpec(kind, fields):
                return Record(kind, {name: self.value(f"{place}.{name}", inner) for name, inner in fields})
            case KeyedSpec(_, fields, required):
                given = [(key, inner) for key, inner in fields if key in required or self.draw(st.booleans())]
                return {key: self.value(f"{place}[{key!r}]", inner) for key, inner in given}
            case PlainSpec(hint):
                return None if hint is type(None) else self.draw(st.from_type(hint))

    def leaf(self, place: str, spec: TensorSpec, beside: tuple[Alternative, ...]) -> Leaf:
        """A tensor of the right sizes, or ragged rows where those are allowed."""
        kinds = Carried.kinds(spec)
        carrier = self.draw(st.sampled_from([kind for kind in kinds if self.ragged or not kind.ragged] or kinds))
        shape: list[int] = []
        axes: list[Axis] = []
        for axis in spec.axes:
            sizes = self.axis(axis)
            shape += sizes
            axes += [axis] * len(sizes)
        lengths = None
        if carrier.ragged:
            lengths = [self.row_length(spec.axes[1], shape[1]) for _ in range(shape[0])]
            self.lengths = lengths
        allowed = values_allowed(self.sizes, place, self.assigned)
        carried = Carried(
            carrier, tuple(shape), self.subject.dtype(spec), self.subject.device, lengths, tuple(allowed),
            seed=self.draw(st.integers(0, 2**16)),
        )  # fmt: skip
        return Leaf(place, spec, beside, carried, tuple(axes))

    def axis(self, axis: Axis) -> list[int]:
        """The sizes that one axis stands for: several where it is variadic."""
        if axis.variadic:
            return self.variadic(axis)
        if axis.broadcast and self.draw(st.booleans()):
            return [1]
        if axis.size is None:
            return [self.draw(st.integers(self.sizes.smallest, 3))]
        try:
            return [self.sizes.value(axis.size, self.assigned)]
        except Unknown:
            raise ValueError(f"{self.subject.name}: {axis.text} depends on what has no value here") from None

    def variadic(self, axis: Axis) -> list[int]:
        """Some sizes; those of the name, if there is one, with leading ones left out or 1 where they broadcast."""
        some = st.sampled_from(USUAL_RANKS).flatmap(
            lambda rank: st.lists(st.integers(self.sizes.smallest, 3), min_size=rank, max_size=rank)
        )
        if axis.size is None:
            return self.draw(some)
        name = axis.label
        if name not in self.several:
            self.several[name] = tuple(self.draw(some))
        sizes = self.several[name]
        if not axis.broadcast:
            return list(sizes)
        start = self.draw(st.integers(0, len(sizes)))
        return [1 if self.draw(st.booleans()) else size for size in sizes[start:]]

    def row_length(self, axis: Axis, size: int) -> int:
        """The length of one ragged row, which keeps the rules that the axis's size would have to keep."""
        if axis.name is None:
            return size
        return self.draw(st.sampled_from(self.sizes.others(axis.name, self.assigned)))


@dataclass(frozen=True)
class Record:
    """A dataclass or NamedTuple before it is made."""

    kind: type
    fields: dict[str, Any]


_NONE = PlainSpec(type(None))


def _required(parameter: inspect.Parameter) -> bool:
    several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not several and parameter.name not in ("self", "cls")


def _leaves(value: Any) -> Iterator[Leaf]:
    if isinstance(value, Leaf):
        yield value
    elif isinstance(value, Record):
        yield from _leaves(value.fields)
    elif isinstance(value, (dict, list, tuple)):
        items: Any = cast(Any, value)
        for item in items.values() if isinstance(value, dict) else items:
            yield from _leaves(item)


def _made(value: Any, exchanged: Mapping[str, Any], place: str) -> Any:
    if place in exchanged:
        return exchanged[place]
    match value:
        case Leaf():
            return value.carried.made()
        case Record(kind, fields):
            given = {name: _made(item, exchanged, f"{place}.{name}") for name, item in fields.items()}
            with checks("off"):  # a broken one is for the contract that is tested to refuse
                return kind(**given)
        case dict():
            named = cast(dict[Any, Any], value)
            return {key: _made(item, exchanged, f"{place}[{key!r}]") for key, item in named.items()}
        case list() | tuple() if type(cast(Any, value)) in (list, tuple):
            listed = cast(list[Any], value)
            return type(listed)(_made(item, exchanged, f"{place}[{index}]") for index, item in enumerate(listed))
        case _:
            return value
