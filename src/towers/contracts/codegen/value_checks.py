"""Writes source that checks one value against the alternatives of its annotation."""

from collections.abc import Collection, Sequence

from torch import Tensor

from towers.contracts import modes
from towers.contracts.codegen.size_checks import AxisWriter
from towers.contracts.codegen.writer import Writer
from towers.contracts.layouts import flat
from towers.contracts.nontensor import class_kinds, is_anything, is_class, is_valid
from towers.contracts.specs import (
    Alternative,
    ItemsSpec,
    KeyedSpec,
    MappingSpec,
    PlainSpec,
    RecordSpec,
    Spec,
    TensorSpec,
    TreeSpec,
    TupleSpec,
)
from towers.contracts.trees import tree_leaves


class Unfit(Exception):
    """One of several alternatives does not fit; the next one is tried."""


class ValueWriter:
    """The values of one signature.

    Args:
        writer: where the lines go.
        axes: the axis names that the values share.
        dtype_of: the path of the parameter that floating arguments must have the dtype of.
        bounded: the axis names in conditions. A ragged axis with such a name is kept for them.
    """

    def __init__(self, writer: Writer, axes: AxisWriter, dtype_of: str | None, bounded: frozenset[str]) -> None:
        self.writer, self.axes, self.dtype_of, self.bounded = writer, axes, dtype_of, bounded
        self.in_result = False
        self.ragged: set[str] = set()
        """The bounded names that may be ragged."""

    def value(self, value: str, spec: Spec) -> None:
        """A value of any annotation."""
        plain = [option for option in spec if isinstance(option, PlainSpec)]
        others = [option for option in spec if not isinstance(option, PlainSpec)]
        test = self._plain(value, plain) if plain else None
        if not others:
            if test:
                self.writer.refuse_if(f"not ({test})")
        elif test is None and plain:  # every value fits
            pass
        elif test is None:
            self._first_that_fits(value, others)
        else:
            only_none = test == f"{value} is None"
            with self.writer.block(f"if {value} is not None:" if only_none else f"if not ({test}):"):
                self._first_that_fits(value, others)

    def _plain(self, value: str, options: Sequence[PlainSpec]) -> str | None:
        """A test that a value has one of several types without tensors; None if every value fits."""
        hints = [option.hint for option in options]
        if any(is_anything(hint) for hint in hints):
            return None
        tests = [f"{value} is None"] if type(None) in hints else []
        plain = [hint for hint in hints if is_class(hint) and hint is not type(None)]
        classes = tuple(kind for hint in plain for kind in class_kinds(hint))
        if classes:
            kind = self.writer.constant("type", classes[0] if len(classes) == 1 else classes)
            tests.append(f"{self.writer.given('isinstance', isinstance)}({value}, {kind})")
        tests += [f"{self.writer.constant('hint', one)}.takes({value})" for one in options if not is_class(one.hint)]
        return " or ".join(tests)

    def _first_that_fits(self, value: str, options: Sequence[Alternative]) -> None:
        first, *rest = options
        if not rest:
            self._option(value, first)
            return
        unfit, fits = self.writer.given("_Unfit", Unfit), self.writer.local("fits")
        at, no = len(self.writer.lines), self.writer.no
        touched: dict[str, None] = {}
        self.axes.touched.append(touched)
        self.writer.no = f"raise {unfit}"
        with self.writer.block("try:"):
            self._option(value, first)
        self.writer.no = no
        self.axes.touched.pop()
        self.writer.line(f"    {fits} = True")
        if touched:
            names, kept = ", ".join(touched), self.writer.local("kept")
            self.writer.line(f"{kept} = ({names},)", at=at)
            self.writer.line(f"except {unfit}: {names}, {fits} = *{kept}, False")
        else:
            self.writer.line(f"except {unfit}: {fits} = False")
        with self.writer.block(f"if not {fits}:"):
            self._first_that_fits(value, rest)

    def _option(self, value: str, option: Alternative) -> None:
        writer = self.writer
        if isinstance(option, TensorSpec):
            self._tensor(value, option)
        elif isinstance(option, TupleSpec):
            self._tuple(value, option)
        elif isinstance(option, ItemsSpec):
            writer.refuse_if(f"not {self._isinstance(value, option.kind)}")
            item = writer.local("item")
            items = f"{value} if {self._isinstance(value, Collection)} else ()" if option.once else value
            with writer.block(f"for {item} in {items}:"):
                self.value(item, option.item)
        elif isinstance(option, TreeSpec):
            leaf, leaves = writer.local("leaf"), writer.given("_leaves", tree_leaves)
            with writer.block(f"for _, {leaf} in {leaves}({value}, {writer.constant('tree', option.leaf)}):"):
                self.value(leaf, option.leaf)
        elif isinstance(option, MappingSpec):
            writer.refuse_if(f"not {self._isinstance(value, option.kind)}")
            key, item = writer.local("key"), writer.local("item")
            with writer.block(f"for {key}, {item} in {value}.items():"):
                self.value(key, option.key)
                self.value(item, option.value)
        elif isinstance(option, RecordSpec):
            writer.refuse_if(f"not {self._isinstance(value, option.kind)}")
            for name, field in option.fields:
                if name in option.unset:
                    with writer.block(f"if {writer.given('hasattr', hasattr)}({value}, {name!r}):"):
                        self._part(f"{value}.{name}", field)
                else:
                    self._part(f"{value}.{name}", field)
        elif isinstance(option, KeyedSpec):
            writer.refuse_if(f"not {self._isinstance(value, dict)}")
            for key, item in option.fields:
                if key in option.required:
                    writer.refuse_if(f"{key!r} not in {value}")
                    self._part(f"{value}[{key!r}]", item)
                elif not _is_anything(item):
                    with writer.block(f"if {key!r} in {value}:"):
                        self._part(f"{value}[{key!r}]", item)
        if not isinstance(option, PlainSpec) and option.validators:
            asked = (
                f"{writer.given('_is_valid', is_valid)}({value}, {writer.constant('validators', option.validators)})"
            )
            writer.refuse_if(f"not {asked}")

    def _tuple(self, value: str, option: TupleSpec) -> None:
        writer, count, rest = self.writer, len(option.items), option.rest
        size = f"{writer.given('len', len)}({value})"
        wrong = f"{size} != {count}" if rest is None else f"{size} < {count - 1}"
        writer.refuse_if(f"not {self._isinstance(value, tuple)} or {wrong}")
        for index, item in enumerate(option.items):
            if rest is None or index < rest:
                self._part(f"{value}[{index}]", item)
            elif index > rest:
                self._part(f"{value}[{index - count}]", item)
            elif not _is_anything(item):
                several = writer.local("item")
                with writer.block(f"for {several} in {value}[{rest}:{size} - {count - 1 - rest}]:"):
                    self.value(several, item)

    def _part(self, source: str, spec: Spec) -> None:
        if _is_anything(spec):
            return
        local = self.writer.local("part")
        self.writer.line(f"{local} = {source}")
        self.value(local, spec)

    def _tensor(self, value: str, spec: TensorSpec) -> None:
        writer = self.writer
        shape, dtype = writer.local("shape"), writer.local("dtype")
        bounded = self._bounded_ragged(spec)
        if bounded:
            writer.start.setdefault(self.ragged_local(bounded), "None")
        rows = self.ragged_local(bounded) if bounded else f"{writer.mark}any"
        for touched in self.axes.touched if bounded else ():
            touched.setdefault(rows)
        asked = f"{value}, {self._kinds(*spec.carriers)}, {rows if bounded else None}"
        read = f"{shape}, {dtype}, {rows} = {writer.given('_flat', flat)}({asked})"
        if Tensor in spec.carriers:
            writer.line(f"if {writer.given('type', type)}({value}) is {writer.given('Tensor', Tensor)}:")
            writer.line(f"    try: {shape}, {dtype} = {value}.shape, {value}.dtype")
            writer.line(f"    except RuntimeError: {shape} = {dtype} = None  # nested, but not jagged")
            writer.line(f"else: {read}")
        else:
            writer.line(read)
        if spec.dtypes is None:
            writer.refuse_if(f"{shape} is None")
        else:
            writer.refuse_if(f"{dtype} not in {writer.constant('dtypes', spec.dtypes)}")
        if self.dtype_of and spec.floating and not self.in_result:
            autocast, own = writer.given("_autocast", modes.autocast_for), writer.local("dtype")
            writer.line(f"try: {own} = self.{self.dtype_of}.dtype")
            writer.line(f"except {writer.given('AttributeError', AttributeError)}: {own} = None")
            tests = [f"{dtype} != {own}", f"({own} is None or not {autocast}({value}))"]
            if spec.dtypes is None or not all(one.is_floating_point for one in spec.dtypes):
                tests.insert(1, f"{dtype}.is_floating_point")
            writer.refuse_if(*tests)
        self.axes.axes(shape, spec)

    def _bounded_ragged(self, spec: TensorSpec) -> str | None:
        """The name of the second axis, if a condition needs its lengths in case it is ragged."""
        name = spec.axes[1].name if len(spec.axes) > 1 and spec.variadic is None else None
        if name not in self.bounded:
            return None
        self.ragged.add(name)
        return name

    def ragged_local(self, name: str) -> str:
        """The local that holds the ragged axis of a name, or None."""
        return f"{self.writer.mark}ragged_{name}"

    def _isinstance(self, value: str, *kinds: type) -> str:
        return f"{self.writer.given('isinstance', isinstance)}({value}, {self._kinds(*kinds)})"

    def _kinds(self, *kinds: type) -> str:
        """A name for one type or for several."""
        if kinds == (Tensor,):
            return self.writer.given("Tensor", Tensor)
        return self.writer.constant("type", kinds[0] if len(kinds) == 1 else kinds)


def _is_anything(spec: Spec) -> bool:
    return all(isinstance(option, PlainSpec) and is_anything(option.hint) for option in spec)
