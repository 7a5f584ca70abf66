"""Inputs made from a contract: which axes there are, which sizes each can have, and tensors of such sizes."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, Literal, cast, get_args, get_origin

import torch
from torch import Tensor, nn

from towers.contracts.expressions import Condition, Expression, conditions, path_root, read_path
from towers.contracts.proofs.ranges import Span
from towers.contracts.signature import Signature
from towers.contracts.specs import Axis, PlainSpec, Spec, TensorSpec, TupleSpec
from towers.contracts.subjects import Subject

MOST_OPTIONAL = 4
"""The number of optional tensors of which all combinations are run."""

MOST_OPTIONS = 20
"""Ways to call a module that differ in arguments that are no tensors."""

Make = Callable[[Sequence[Any], torch.dtype], Any]
"""Makes a tensor of a shape and dtype; fake, meta or real."""


@dataclass(frozen=True)
class Case:
    """One way to call a module: which of the optional arguments are given."""

    subject: "ModuleSubject"
    given: tuple[str, ...]
    leading: int
    """How many axes a variadic axis stands for."""
    ones: tuple[str, ...] = ()
    """The axes that are 1 where they stand as `#name`."""
    members: tuple[tuple[str, int], ...] = ()
    """For an argument the place of the member of its union that is made; the first that can be made for the others."""
    options: tuple[tuple[str, Any], ...] = ()
    """Values of arguments that are no tensors, in place of their defaults."""

    @property
    def label(self) -> str:
        """ "with lengths", "without lengths"; empty where there is but one way."""
        optional = self.subject.optional
        named = [f"with {name}" if name in self.given else f"without {name}" for name in optional]
        named += [f"{self.leading} leading axes"] if self.subject.variadic else []
        named += [f"#{name} of 1" for name in self.ones]
        named += [f"{name} as {_named(self.spec(name))}" for name, _ in self.members]
        named += [f"{name}={value!r}" for name, value in self.options]
        return ", ".join(named)

    def arguments(self, sizes: Mapping[str, Any], make: Make) -> dict[str, Any]:
        """The arguments by name; `sizes` has every axis."""
        made = {name: self._argument(name, sizes, make) for name in self.subject.required + self.given}
        return self.subject.chosen | made | dict(self.options)

    def records(self) -> dict[str, Any]:
        """The given arguments that are no tensors."""
        given = {name: self.subject.values.get(name) for name in self.subject.required}
        return {name: value for name, value in given.items() if value is not None and not isinstance(value, Tensor)}

    def spec(self, name: str) -> Spec:
        """The annotation of an argument; of a union the member that is made."""
        spec, place = self.subject.signature.arguments.get(name, ()), dict(self.members).get(name)
        return spec if place is None else (spec[place],)

    def placed(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments by position as far as none is left out, for a module may take `*args`; the others by name."""
        named, places = dict(arguments), [name for name in self.subject.signature.parameters if name != "self"]
        given = itertools.takewhile(named.__contains__, places)
        return [named.pop(name) for name in given], named

    def _argument(self, name: str, sizes: Mapping[str, Any], make: Make) -> Any:
        value = self.subject.values.get(name)
        if value is not None and not isinstance(value, Tensor):
            return value
        if name not in self.subject.signature.arguments:
            assert isinstance(value, Tensor)
            return make(value.shape, value.dtype)
        return self._made(name, self.spec(name), sizes, make, value)

    def _made(self, name: str, spec: Spec, sizes: Mapping[str, Any], make: Make, value: Tensor | None) -> Any:
        option = _choice(spec)
        if isinstance(option, TupleSpec):
            return tuple(self._made(f"{name}[{at}]", item, sizes, make, None) for at, item in enumerate(option.items))
        if isinstance(option, TensorSpec):
            shape = [size for axis in option.axes for size in self._axis(name, axis, sizes)]
            return make(shape, self.subject.dtype(option) if value is None else value.dtype)
        return sizes[name]

    def _axis(self, name: str, axis: Axis, sizes: Mapping[str, Any]) -> list[Any]:
        if axis.broadcast and axis.name in self.ones:
            return [1] * (self.leading if axis.variadic else 1)
        if axis.variadic:
            return [sizes[key] for key in _leading(name, axis, self.leading)]
        if axis.size is None:
            return [sizes[_anonymous(name, axis)]]
        return [axis.size.evaluate(lambda key: sizes[key] if key in sizes else self.subject.values[key], self.brace)]

    def brace(self, path: str) -> Any:
        """What stands in braces."""
        return self.subject.brace(path)

    def axes(self) -> dict[str, None]:
        """Every axis of the arguments that are given, in order."""
        found: dict[str, None] = {}
        for name in self.subject.required + self.given:
            value = self.subject.values.get(name)
            if value is not None and not isinstance(value, Tensor):
                continue
            for key in _axes(name, self.spec(name), self.leading):
                found.setdefault(key)
        return found

    def spans(self) -> dict[str, Span]:
        """The sizes that each axis can have: all from 1 on, unless the conditions narrow or widen it."""
        spans = dict.fromkeys(self.axes(), Span(1))
        for condition in sorted(self.subject.where, key=lambda each: each.relation not in (">=", ">")):
            if (axis := condition.subject.text) in spans or _modulo(condition) in spans:
                axis = axis if axis in spans else cast(str, _modulo(condition))
                if (bound := self._number(condition.bound)) is not None:
                    spans[axis] = _narrowed(spans[axis], condition, bound, widened=spans[axis] == Span(1))
        return spans

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Whether the conditions allow some sizes, as far as they speak of axes."""
        return all(truth is None or bool(truth) for truth in self.truths(sizes))

    def truths(self, sizes: Mapping[str, Any]) -> Iterator[Any]:
        """Each condition that speaks of more than one axis, or of an axis in a way that no span has."""
        for condition in self.subject.where:
            try:
                left = condition.subject.evaluate(sizes.__getitem__, self.brace)
                right = condition.bound.evaluate(sizes.__getitem__, self.brace)
            except (KeyError, LookupError):
                continue
            yield condition.compare(left, right)

    @cached_property
    def multiples(self) -> dict[str, str]:
        """The axes that are a multiple of another one by a condition such as `heads % groups == 0`, each with that."""
        parts = [condition.parts for condition in self.subject.where]
        pairs = [(left.text, right.text) for left, right in filter(None, parts)]
        return {left: right for left, right in pairs if {left, right} <= self.axes().keys() and left != right}

    def _number(self, expression: Expression) -> int | None:
        if expression.names:
            return None
        try:
            return expression.evaluate(lambda name: None, self.brace)
        except LookupError:
            return None


@dataclass(frozen=True)
class ModuleSubject(Subject):
    """A module with the contract of its forward, and the arguments that the user gave."""

    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Arguments given by the user, by name; tensors give dtypes, and their sizes become symbols."""
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    variadic: bool = False
    broadcast: tuple[str, ...] = ()
    """Axes that stand as `#name` in one argument, and without # in another, which is always given."""
    braces: dict[str, int] = field(default_factory=dict[str, int], compare=False)
    """What braces were read as."""

    def cases(self) -> list[Case]:
        """Every way to call it: each combination of up to four optional arguments; of more none, each, two and all.

        Axes that broadcast have their size, each 1 alone, and all 1. Arguments that are no tensors have values other
        than their defaults beside all optional tensors, beside none, and beside other members of unions.
        """
        few = len(self.optional) if len(self.optional) <= MOST_OPTIONAL else 2
        some = {way for count in range(few + 1) for way in itertools.combinations(self.optional, count)}
        some.add(self.optional)
        ways = sorted(some, key=lambda way: (len(way), way))
        ranks = (1, 0, 2) if self.variadic else (0,)
        ones = dict.fromkeys([(), *((name,) for name in self.broadcast), self.broadcast])
        cases = [Case(self, *parts) for parts in itertools.product(ways, ranks, ones)]
        members = self._members()
        cases += [Case(self, self.optional, ranks[0], members=way) for way in members]
        options = list(itertools.islice(self._options(), MOST_OPTIONS))
        all_or_none = dict.fromkeys([(), self.optional])
        cases += [Case(self, given, ranks[0], options=way) for given in all_or_none for way in options]
        both = itertools.islice(itertools.product(options, members), MOST_OPTIONS)
        cases += [Case(self, self.optional, ranks[0], members=way, options=option) for option, way in both]
        return cases

    def _options(self) -> Iterator[tuple[tuple[str, Any], ...]]:
        """All combinations of arguments that are no tensors, those that differ least from the defaults first."""
        varied = [[(name, value) for value in some] for name, some in self.varied().items() if some]
        for count in range(1, len(varied) + 1):
            for some in itertools.combinations(varied, count):
                yield from itertools.product(*some)

    def all_options(self) -> bool:
        """Whether `cases` has all combinations of arguments that are no tensors."""
        return next(itertools.islice(self._options(), MOST_OPTIONS, None), None) is None

    def _members(self) -> list[tuple[tuple[str, int], ...]]:
        """The members of unions of tensors beyond the first, each with its argument, alone and in pairs."""
        found: list[tuple[str, int]] = []
        for name in (*self.required, *self.optional):
            spec = self.signature.arguments.get(name, ()) if name not in self.values else ()
            made = [place for place, option in enumerate(spec) if _choice((option,)) is not None]
            found += [(name, place) for place in made[1:]]
        pairs = (pair for pair in itertools.combinations(found, 2) if pair[0][0] != pair[1][0])
        return [*((one,) for one in found), *itertools.islice(pairs, MOST_OPTIONS)]

    def varied(self) -> dict[str, list[Any]]:
        """The values besides its usual one of each argument that is a bool, a Literal, an Enum or may be None."""
        return {
            name: [value for value in _plain_values(self.signature.arguments.get(name, ())) if value != usual]
            for name, usual in self.usual.items()
            if name not in self.values and name not in self.optional
        }

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """The first value of each argument that need be no tensor, and has neither a default nor one from the user."""
        known = {"self", "cls", *self.signature.defaults, *self.values, *self.required}
        specs = {name: spec for name, spec in self.signature.arguments.items() if name not in known}
        values = {name: _plain_values(spec) for name, spec in specs.items()}
        return {name: None if name in self.optional else some[0] for name, some in values.items() if some}

    @property
    def usual(self) -> Mapping[str, Any]:
        """What arguments that are no tensors are by default; where there is no default, what is `chosen`."""
        return {**self.signature.defaults, **self.chosen}

    def brace(self, path: str) -> Any:
        """What stands in braces.

        Raises:
            LookupError: it is None, or an argument that has no number here.
        """
        known = self.braces.get(path)
        if known is not None:
            return known
        root = path_root(path)
        value = self.instance if root == "self" else self.values.get(root, self.usual.get(root))
        if value is None:
            raise LookupError(path)
        found = value if path == root else read_path(value, path)
        if not isinstance(found, int):
            raise LookupError(path)
        self.braces[path] = found
        return found


def read_subject(
    module: nn.Module, signature: Signature, where: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ModuleSubject:
    """What is to be verified.

    Raises:
        ValueError: an argument can be made from no contract and was not given, or a condition cannot be read.
    """
    names = [name for name in signature.parameters if name != "self"]
    if len(args) > len(names):
        raise ValueError(f"{signature.name} takes {len(names)} positional arguments; {len(args)} were given")
    values = {**dict(zip(names, args, strict=False)), **kwargs}
    own = [condition for text in where for condition in conditions(text)]
    required, optional = list(values), list[str]()
    for name, spec in signature.arguments.items():
        if name in values or name in ("self", "cls"):
            continue
        if name not in signature.defaults:
            values_of = _plain_values(spec)
            if _choice(spec) is None and not values_of:
                raise ValueError(f"{signature.name}: {name}: verify cannot make one from its annotation; give {name}=…")
            if _choice(spec) is not None:
                (optional if None in values_of else required).append(name)
        elif isinstance(_choice(spec), (TensorSpec, TupleSpec)):
            optional.append(name)
    axes = {name: list(_tensor_axes(signature.arguments.get(name, ()))) for name in [*required, *optional]}
    stretched = dict.fromkeys(axis.name for some in axes.values() for axis in some if axis.broadcast)
    plain = {axis.name for name in required for axis in axes[name] if not axis.broadcast}
    subject = ModuleSubject(
        module, signature, module, tuple(own), values, tuple(required), tuple(optional),
        variadic=any(axis.variadic for some in axes.values() for axis in some),
        broadcast=tuple(name for name in stretched if name is not None and name in plain),
    )  # fmt: skip
    _check_names(subject)
    return subject


def _plain_values(spec: Spec) -> list[Any]:
    """All values of an argument that is no tensor, where those are few; else none."""
    return [value for option in spec if isinstance(option, PlainSpec) for value in _values(option.hint)]


def _values(hint: Any) -> list[Any]:
    """All values that a type has, where those are few; else none."""
    if hint is bool:
        return [False, True]
    if hint is type(None):
        return [None]
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return list(cast(Any, hint)) if isinstance(hint, type) and issubclass(hint, Enum) else []


def _named(spec: Spec) -> str:
    return " or ".join(f'{option.kind}["{option.text}"]' for option in spec if isinstance(option, TensorSpec))


def _tensor_axes(spec: Spec) -> Iterator[Axis]:
    option = _choice(spec)
    if isinstance(option, TupleSpec):
        for item in option.items:
            yield from _tensor_axes(item)
    elif isinstance(option, TensorSpec):
        yield from option.axes


def _check_names(subject: ModuleSubject) -> None:
    known = {axis for case in subject.cases() for axis in case.axes()} | set(subject.signature.arguments)
    for condition in subject.assumed:
        for name in condition.subject.names:
            if name not in known:
                raise ValueError(f"where {condition.text!r}: {name} is none of {', '.join(sorted(known))}")


def _choice(spec: Spec) -> Any:
    """The alternative of an annotation that can be made: a padded tensor, a tuple, or an int that is an axis."""
    for option in spec:
        if isinstance(option, TensorSpec) and Tensor in option.carriers:
            return option
        if isinstance(option, TupleSpec) and option.rest is None and all(map(_choice, option.items)):
            return option
        if isinstance(option, PlainSpec) and option.hint is int:
            return option
    return None


def _axes(name: str, spec: Spec, leading: int) -> Iterator[str]:
    option = _choice(spec)
    if isinstance(option, TupleSpec):
        for at, item in enumerate(option.items):
            yield from _axes(f"{name}[{at}]", item, leading)
    elif isinstance(option, PlainSpec):
        yield name
    elif option is not None:
        for axis in option.axes:
            if axis.variadic:
                yield from _leading(name, axis, leading)
            elif axis.size is None:
                yield _anonymous(name, axis)
            else:
                yield from axis.size.names


def _leading(name: str, axis: Axis, count: int) -> list[str]:
    key = axis.name or f"{name}_axis"
    return [f"{key}_{number}" for number in range(1, count + 1)]


def _anonymous(name: str, axis: Axis) -> str:
    return f"{name}{axis.text}" if axis.text != "_" else f"{name}_axis"


def _modulo(condition: Condition) -> str | None:
    """The axis in `axis % 4 == 0`."""
    axis, percent, _ = condition.subject.text.partition(" % ")
    return axis if percent and condition.relation == "==" else None


def _narrowed(span: Span, condition: Condition, bound: int, *, widened: bool) -> Span:
    if condition.subject.text != condition.subject.names[0]:
        divisor = condition.subject.text.partition(" % ")[2]
        if not divisor.isdigit():
            return span
        return next((part for part in span.residues(int(divisor)) if part.first % int(divisor) == bound), span)
    low, high = {
        ">=": (bound, None),
        ">": (bound + 1, None),
        "<=": (0, bound),
        "<": (0, bound - 1),
        "==": (bound, bound),
    }[condition.relation]
    if widened and condition.relation in (">=", ">") and low < 1:
        return Span(max(low, 0), span.last, span.step)
    part = span.part(low, high)
    if part is None:
        raise ValueError(f"no size is left by {condition.text!r}")
    return part
