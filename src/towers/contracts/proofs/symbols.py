"""The symbols of one run: a torch.SymInt for each axis, what torch asked about them, and how they are called."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, cast

import sympy
import torch
from torch import SymInt
from torch._dynamo.source import ConstantSource
from torch._guards import SLoc
from torch.fx.experimental import sym_node
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, statically_known_true
from torch.utils._sympy import value_ranges
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from towers.contracts.proofs.at_sizes import at
from towers.contracts.proofs.divide import by_remainder, divide
from towers.contracts.proofs.float_sizes import whole
from towers.contracts.proofs.implied import always
from towers.contracts.proofs.ranges import PRIMES, Span, Spans
from towers.contracts.proofs.relations import Relations, implied, multiples_told, one_number, plainer, some_sizes
from towers.contracts.proofs.remainders import reduced, with_constants
from towers.contracts.proofs.symbolic_size import SymbolicSize, spelled
from towers.contracts.proofs.time_limit import ask

import_module("sympy.tensor.tensor")  # which sympy does when it first adds, within the time limit


@dataclass(frozen=True)
class Guard:
    """A question about sizes that only the examples answered: the answer as a condition on axes, and where it arose."""

    relation: Any
    place: str
    fixed: str | None = None
    """The axis that was made a number, where that is what happened."""

    def text(self) -> str:
        """In axis names: "time % 2 == 0"."""
        return spelled(self.relation)


_demand = torch._check  # pyright: ignore[reportPrivateUsage]


class Undecidable(Exception):
    """A contract depends on a size that only the values of a tensor tell."""


class Divided(BaseException):
    """A question has an answer for each remainder of an axis: the run ends, and each remainder is run."""


_NOWHERE = SLoc(None, None)


class _Watched(ShapeEnv):
    """A ShapeEnv that says where each guard arose."""

    places: list[str]
    locate: Callable[[], str]
    owed: list[tuple[Any, str]]
    """What must be so of sizes that only values tell, and where: torch would check it at each call."""
    texts: list[str]
    """Where a text of a size was made, which is another one for each size; a run that ends well has none of errors."""
    hashes: list[str]
    """Where a size is the key of a dict, a set or a cache: another key for each size."""
    granted = False
    """Whether a rule says so itself."""
    ends: dict[Any, tuple[int, int]]
    """The first and the last value of each symbol that has a last one."""
    divides: Callable[[Any], bool] | None = None
    """Whether a guard ends the run."""
    spell: Callable[[Any], str]
    """A size in axis names."""
    fresh: Callable[[str, Any, Any], SymInt]
    """A size that is not known, but for its range."""

    def guard_or_defer_runtime_assert(  # pyright: ignore[reportIncompatibleVariableOverride]  (torch caches it)
        self, orig_expr: Any, msg: str, fx_node: Any = None
    ) -> bool:
        before = self.num_deferred_runtime_asserts
        answer = super().guard_or_defer_runtime_assert(orig_expr, msg, fx_node)
        if self.num_deferred_runtime_asserts > before and not self.granted and not _from_zero_on(orig_expr):
            self.owed.append((orig_expr, self.locate()))
        return answer

    def _get_stack_summary(self, is_debug: bool = False, framework_loc: str | None = None) -> tuple[SLoc, str]:
        """No place: `places` has ours, and torch imports hundreds of modules to find its own."""
        return _NOWHERE, ""

    def _log_create_unbacked_symbol(self, *_: Any, **__: Any) -> None:
        """Nothing, for the same reason."""

    def look_up(self) -> None:
        """From here on torch takes each size for what `replace` makes of it, as it does once two are the same."""
        self._replacements_version_counter = 1

    def replace(self, expr: Any) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]  (torch caches it)
        """What torch takes a size for."""
        expr = reduced(super().replace(expr))
        return with_constants(expr, self.ends) if self.ends and expr.free_symbols else expr

    def evaluate_sym_node(self, *args: Any, **kwargs: Any) -> Any:
        ask()
        before = len(self.guards)
        answer = super().evaluate_sym_node(*args, **kwargs)
        if len(self.guards) > before:
            self.places += [self.locate()] * (len(self.guards) - before)
            if self.divides is not None and any(self.divides(guard.expr) for guard in self.guards[before:]):
                raise Divided
        return answer


_text_of: Any = vars(sym_node.SymNode)["_graph_repr"]
_REPR = SymInt.__repr__.__code__


def _noticed(node: Any) -> str:
    """The text of a size; one of a proof notes where that is asked."""
    asks = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    reads = asks.f_back if asks.f_code is _REPR and isinstance(node.shape_env, _Watched) else None
    if reads is not None:
        node.shape_env.texts.append(reads.f_code.co_qualname)
    return _text_of(node)


_hash_of: Any = SymInt.__hash__


def _hashed(size: Any) -> int:
    """The hash of a size; code that a proof runs may have a size for a key, which is noted."""
    asks = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    if type(asks.f_globals) is dict or not isinstance(size.node.shape_env, _Watched):
        return _hash_of(size)  # einops relies on its TypeError
    size.node.shape_env.hashes.append(asks.f_code.co_qualname)
    return hash(size.node.expr)


_str_of: Any = vars(sym_node.SymNode)["str"]


def _in_axes(node: Any) -> str:
    """The text of a size, as torch's messages have it: of one of a proof in axis names."""
    return node.shape_env.spell(node.expr) if isinstance(node.shape_env, _Watched) else _str_of(node)


setattr(SymInt, "__hash__", _hashed)  # noqa: B010
sym_node.SymNode._graph_repr = _noticed  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
sym_node.SymNode.str = _in_axes  # pyright: ignore[reportAttributeAccessIssue]


class Symbols:
    """The axes of one run."""

    def __init__(
        self,
        spans: Spans,
        locate: Callable[[], str],
        fits: Callable[[Mapping[str, int]], bool],
        relations: Relations = (),
        multiples: Mapping[str, str] | None = None,
    ) -> None:
        self.spans, self.relations = spans, relations
        self.multiples = {**(multiples or {}), **multiples_told(relations)}
        """For an axis another one that divides it."""
        self.claimed = dict(spans)
        """The sizes for which the answers to the questions on one axis hold."""
        self.env = _Watched(duck_shape=False)
        self.env.places, self.env.owed, self.env.ends, self.env.locate = [], [], {}, locate
        self.env.texts, self.env.hashes, self.env.spell = [], [], self.grouped
        self.env.fresh = self.fresh
        self.failing = False
        """Whether an operation has failed."""
        self.locate = locate
        self.examples = examples(spans, fits, relations)
        self.names: dict[Any, Any] = {}
        """What each of torch's symbols is in axes: itself, or (time-1)/2 where time is odd."""
        self.axes = {name: sympy.Symbol(name, integer=True, positive=True) for name in spans}
        self.defined: dict[Any, Any] = {}
        """The sizes that `short` has made a symbol of, by that symbol."""
        self.shorts: dict[Any, int | SymInt] = {}
        """The same the other way round."""
        self.labels: dict[str, str] = {}
        """How sizes that arose on the way are called."""
        self.drawn: dict[int, tuple[Any, int, Any, Any]] = {}
        """Tensors of random numbers by their id, each with its version and the least and the largest number."""
        self.any_value: set[Any] = set()
        """Sizes that arose on the way and can have every value of their range."""
        self.sizes: dict[str, int | SymInt] = {}
        for name in spans:
            self._add(name)
        self.packed: dict[int, tuple[Any, Any]] = {}
        """The batch sizes of packed sequences by their id, each with the number of its sentences."""
        self.own: list[Guard] = []
        self.assumed = 0
        self.answers: tuple[bool, ...] = ()
        """What `either` says first, and then no."""
        self.taken: list[bool] = []
        self.parted = False
        """Whether a tuple was made whose items are not counted."""
        self.explaining = False
        """Whether a check has failed and looks for the text of its error: then a comparison decides nothing."""

    def _add(self, name: str) -> None:
        """Make the size of an axis, after that of which it is a multiple."""
        divisor = self.multiples.pop(name, None)
        if divisor is not None and divisor not in self.sizes:
            self._add(divisor)
        if name not in self.sizes:
            product = divisor is not None and not self.spans[name].single and self.examples[divisor] > 0
            self.sizes[name] = self._multiple(name, str(divisor)) if product else self._size(name, self.spans[name])

    def _multiple(self, name: str, divisor: str) -> Any:
        """The size of an axis as another size times a symbol: then torch's quotients of both are exact."""
        hint, source = self.examples[name] // self.examples[divisor], ConstantSource(f"{name}/{divisor}")
        symbol: Any = self.env.create_symbol(
            hint, source, dynamic_dim=DimDynamic.DYNAMIC, do_not_specialize_zero_one=True
        )
        self.env.var_to_range[symbol] = ValueRanges(1 if self.spans[name].first else 0, int_oo)
        span = self.spans[divisor]
        self.names[symbol] = self.axes[name] / (span.first if span.single else self.axes[divisor])
        return self.sizes[divisor] * self.env.create_symintnode(symbol, hint=hint, source=source)

    def _size(self, name: str, span: Span) -> int | SymInt:
        if span.single:
            return span.first
        offset = span.first - span.step if span.step > 1 else 0
        value = (self.examples[name] - offset) // span.step
        source = ConstantSource(name)
        symbol: Any = self.env.create_symbol(
            value, source, dynamic_dim=DimDynamic.DYNAMIC, do_not_specialize_zero_one=True
        )
        low = (span.first - offset) // span.step
        high = int_oo if span.last is None else (span.last - offset) // span.step
        self.env.var_to_range[symbol] = ValueRanges(low, high)
        if high is not int_oo:
            self.env.ends[symbol] = (low, int(high))
        self.names[symbol] = (self.axes[name] - offset) / span.step
        size = self.env.create_symintnode(symbol, hint=value, source=source)
        return size * span.step + offset if span.step > 1 else size

    def short(self, size: Any) -> Any:
        """A size that a layer makes, as one symbol of its own: products of long quotients take torch a long time.

        What is asked about it is told in axes, and so it is judged by its meaning.
        """
        if not isinstance(size, SymInt):
            return size
        meaning = self.env.replace(size.node.expr.xreplace(self.defined))
        if meaning.is_Integer:
            return int(meaning)
        if not _has_quotient(meaning):
            return size
        if meaning not in self.shorts:
            hint = int(meaning.xreplace(self.env.backed_var_to_val))
            source = ConstantSource(f"size {len(self.shorts)}")
            symbol: Any = self.env.create_symbol(
                hint, source, dynamic_dim=DimDynamic.DYNAMIC, do_not_specialize_zero_one=True
            )
            found: Any = cast(Any, value_ranges).bound_sympy(meaning, self.env.var_to_range)
            self.env.var_to_range[symbol] = ValueRanges(max(found.lower, 0), found.upper)
            self.defined[symbol], self.names[symbol] = meaning, self.in_axes(meaning)
            self.shorts[meaning] = self.env.create_symintnode(symbol, hint=hint, source=source)
        return self.shorts[meaning]

    def fresh(self, label: str, low: Any, high: Any) -> SymInt:
        """A size that the values of a tensor decide; it can be any from low to high."""
        size: SymInt = self.env.create_unbacked_symint()
        self.env.granted = True
        _demand(size >= low)
        _demand(size <= high)
        self.env.granted = False
        symbol = size.node.expr
        self.labels[str(symbol)] = label
        self.any_value.add(symbol)
        return size

    # What was asked.

    def assume(self, truth: bool | torch.SymBool) -> None:
        """Take a condition on the inputs for granted."""
        _demand(truth)
        self.assumed = len(self.env.guards)

    def granted(self) -> tuple[Any, ...]:
        """What was taken for granted, in axes."""
        return tuple(self.in_axes(guard.expr) for guard in self.env.guards[: self.assumed])

    def end_where_divided(self) -> None:
        """From here on a question that has an answer for each remainder of an axis raises `Divided`."""
        self.env.divides = self._divides

    def _divides(self, expression: Any) -> bool:
        for part in sympy.And.make_args(expression):
            guard = self._guard(part, "")
            if guard is None or guard.fixed is not None:
                continue
            relation = guard.relation
            spans = self.claimed
            parted = any(by_remainder(spans[str(axis)], relation, axis) for axis in relation.free_symbols)
            if one_number(relation):
                continue
            if parted and not (always(relation, spans) or implied(relation, self.relations)):
                return True
            if not parted and len(relation.free_symbols) == 1:
                [axis] = relation.free_symbols
                parts = divide(spans[str(axis)], relation, axis)
                true = [part for part in parts if at(relation, axis)(part.first)]
                self.claimed |= {str(axis): true[0]} if len(true) == 1 else {}
        return False

    def from_on(self, size: Any, least: int) -> bool:
        """Whether a number is known to be as large as some number, without a question."""
        if isinstance(size, SymInt):
            return bool(statically_known_true(size >= least))
        return type(size) is int and size >= least

    def either(self) -> bool:
        """The answer to a question about values, which both answers may be true of."""
        asked = len(self.taken)
        self.taken.append(self.answers[asked] if asked < len(self.answers) else False)
        return self.taken[-1]

    def decide(self, truth: torch.SymBool) -> bool:
        """Whether sizes compare so; where torch cannot prove it the examples answer, and a guard is taken down.

        Raises:
            Undecidable: there is no example, since only the values of a tensor tell.
        """
        if statically_known_true(truth):
            return True
        if statically_known_true(torch.sym_not(truth)):
            return False
        expression = truth.node.expr
        known = expression.xreplace(self.env.backed_var_to_val)
        if known.free_symbols - self.any_value:
            raise Undecidable(self.spell(expression))
        answer = not known.free_symbols and bool(known)
        if not known.free_symbols and not self.explaining:
            relation = expression if answer else sympy.Not(expression)
            self.own.append(Guard(self.in_axes(relation), self.locate()))
        return answer

    def owed(self) -> tuple[str, str, bool] | None:
        """What must be so of sizes that only values tell, where, and whether it is not so for some of them."""
        for relation, place in self.env.owed:
            return self.spell(relation), place, bool(relation.free_symbols & self.any_value)
        return None

    def guards(self) -> list[Guard]:
        """Everything that only the examples answered."""
        pairs = zip(self.env.guards[self.assumed :], self.env.places[self.assumed :], strict=False)
        found = [self._guard(part, place) for guard, place in pairs for part in sympy.And.make_args(guard.expr)]
        return [guard for guard in [*found, *self.own] if guard is not None and guard.relation != True]  # noqa: E712

    def _guard(self, expression: Any, place: str) -> Guard | None:
        relation = self.in_axes(expression)
        if not relation.free_symbols:
            return None
        fixed = None
        if isinstance(relation, sympy.Eq) and len(relation.free_symbols) == 1:
            [axis] = relation.free_symbols
            left, right = cast(tuple[Any, Any], relation.args)
            difference = left - right
            if difference.is_polynomial(axis) and difference.subs(axis, self.examples[str(axis)]) == 0:
                fixed = str(axis)
        return Guard(relation, place, fixed)

    # How it is told.

    def in_axes(self, expression: Any) -> Any:
        """A sympy expression over axis names."""
        return plainer(whole(expression.xreplace(self.names)))

    def spell(self, expression: Any) -> str:
        """A sympy expression as text in axis names."""
        named = {symbol: sympy.Symbol(self.labels.get(str(symbol), str(symbol))) for symbol in expression.free_symbols}
        return spelled(sympy.sympify(self.in_axes(expression)).xreplace(named))

    def grouped(self, expression: Any) -> str:
        """The same, in brackets where it is a sum: torch joins sizes to "3xhx(w-1)"."""
        text = self.spell(expression)
        return f"({text})" if self.in_axes(expression).is_Add else text

    def spelling(self) -> dict[str, str]:
        """The text of each of torch's symbols, for torch's own messages."""
        return {str(symbol): spelled(meaning) for symbol, meaning in self.names.items()} | self.labels

    def shown(self, size: Any) -> Any:
        """A size as contracts meet it: an int, or symbolic."""
        return SymbolicSize(size, self.decide, self.spell) if isinstance(size, SymInt) else size


def _has_quotient(expression: Any) -> bool:
    return any(
        type(node).__name__ in ("FloorDiv", "CleanDiv", "Mod", "PythonMod")
        for node in sympy.preorder_traversal(expression)
    )


def _from_zero_on(relation: Any) -> bool:
    """Whether a condition only says that a size is one."""
    return isinstance(relation, sympy.Ge) and relation.args[1] == 0 and relation.args[0].is_Symbol


def examples(spans: Spans, fits: Callable[[Mapping[str, int]], bool], relations: Relations = ()) -> dict[str, int]:
    """A size for each axis, far from each other, that the conditions and the relations allow.

    Raises:
        ValueError: none was found.
    """
    if relations:
        others = {name: span.example(prime) for (name, span), prime in zip(spans.items(), PRIMES, strict=False)}
        for chosen in some_sizes(relations, spans):
            if fits(found := others | chosen):
                return found
        raise ValueError(f"no sizes of {', '.join(spans)} were found that the conditions allow")
    names = list(spans)
    for turn in range(len(PRIMES)):
        order = [PRIMES[(turn + place) % len(PRIMES)] for place in range(len(names))]
        for choice in (order, sorted(order), sorted(order, reverse=True)):
            found = {name: spans[name].example(prime) for name, prime in zip(names, choice, strict=True)}
            if fits(found):
                return found
    near = [[span.first + step * span.step for step in range(4)] for span in spans.values()]
    for sizes in product(
        *([size for size in some if size in span] for some, span in zip(near, spans.values(), strict=True))
    ):
        if fits(found := dict(zip(names, sizes, strict=True))):
            return found
    raise ValueError(f"no sizes of {', '.join(names)} were found that the conditions allow")
