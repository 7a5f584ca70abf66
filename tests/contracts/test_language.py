"""The annotation language beyond single tensors: containers, records, every kind of parameter, strings."""

import asyncio
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, NewType, Self, TypeGuard, TypeVar, Unpack

import numpy as np
import pytest
import torch
from jaxtyping import AbstractDtype, BFloat16, Bool, Complex, Float, Float32, Inexact, Int, Int64, Num, Shaped, UInt8
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from towers.contracts import ShapeContractError, contract


def f(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


def i(*shape):
    return f(*shape, dtype=torch.int64)


T = TypeVar("T", bound=Tensor)


class Pair(NamedTuple):
    values: Float[Tensor, "n width"]
    ids: Int[Tensor, "n"] | None = None


@dataclass
class Batch:
    values: Float[Tensor, "batch {self.width}"]
    width: int
    more: list[Float[Tensor, "batch"]] = field(default_factory=list)


@dataclass
class Nested:
    batch: Batch
    children: "list[Nested]" = field(default_factory=list)


class Box:
    size = 2

    @contract
    def of_items(self, xs: list[Float[Tensor, "n {self.size}"]]) -> Self:
        return self

    @contract
    def halves(self, x: Float[Tensor, "n {self.size}//2"]) -> None: ...


@contract
def items(xs: list[Float[Tensor, "n _"]], last: Float[Tensor, "n"] | None = None) -> None: ...


@contract
def later(xs: list[Float[Tensor, "n-1"]], n: Float[Tensor, "n"]) -> None: ...


@contract
def any_number(xs: tuple[Float[Tensor, "n"], ...]) -> tuple[Float[Tensor, "n"], ...]:
    return xs[::-1]


@contract
def unpacked(
    a: tuple[Float[Tensor, "n"], *tuple[Int[Tensor, "m"], ...]],
    b: tuple[*tuple[Float[Tensor, "m"], ...], Unpack[tuple[str, Float[Tensor, "n"]]]] | None = None,  # noqa: UP044 (spelled as it is)
    c: tuple[int, *tuple[str, Unpack[tuple[Float[Tensor, "n"], ...]]], int] | None = None,  # noqa: UP044
    *others: *tuple[int, *tuple[Float[Tensor, "n"], ...]],
) -> tuple[Float[Tensor, "n"], *tuple[object, ...]]:
    return others[1:]


@contract
def sequence(xs: Sequence[Float[Tensor, "n"]]) -> None: ...


@contract
def mapping(xs: dict[str, Float[Tensor, "n"]], m: Mapping[Any, Int[Tensor, "n"] | None] | None = None) -> None: ...


@contract
def deep(xs: dict[str, list[tuple[Float[Tensor, "n"], Int[Tensor, "m"]]]]) -> None: ...


@contract
def varied(a: Float[Tensor, "n"], *xs: Float[Tensor, "n m"], k: int = 1, **named: Int[Tensor, "m"] | None) -> int:
    return len(xs) + k


@contract
def record(a: Pair, b: Float[Tensor, "width"] | None = None) -> Pair:
    return a


@contract
def batch(a: Batch | None, ids: Int[Tensor, "batch"] | None = None) -> None: ...


@contract
def nested(a: Nested, ids: Int[Tensor, "batch"] | None = None) -> Batch:
    return a.batch


@contract
def alternatives(
    a: Float[Tensor, "n"] | Float[Tensor, "n m"] | tuple[Float[Tensor, "n"], Float[Tensor, "m"]] | str,
    b: Float[Tensor, "n m"] | None = None,
) -> None: ...


@contract
def one_way_or_the_other(a: list[Float[Tensor, "n 2"] | Float[Tensor, "m 3"]], b: Float[Tensor, "n m"]) -> None: ...


@contract
def expression_first(a: Float[Tensor, "n-1 2*m+1"], b: Float[Tensor, "n"], c: Float[Tensor, "m"]) -> None: ...


@contract
def expression_last(b: Float[Tensor, "n"], a: Float[Tensor, "n-1"]) -> None: ...


@contract
def solved(a: Float[Tensor, "2*n"], b: Float[Tensor, "n+m"]) -> Float[Tensor, "m"]:
    return f(len(b) - len(a) // 2)


@contract
def smaller(a: Float[Tensor, "n"], b: Float[Tensor, "m"], c: Float[Tensor, "min(n,m) max(n,m) n/2"]) -> None: ...


@contract
def divided(a: Float[Tensor, "n"], k: int, b: Float[Tensor, "n//{k}"] | None = None) -> None: ...


@contract
def no_size(a: Float[Tensor, "{k} {k}+1"], k: int | None = None) -> None: ...


@contract
def plain(
    a: Literal["x", "y"],
    b: Callable[[Float[Tensor, "n"]], int] | None = None,
    c: list[int] | None = None,
    d: float = 0.0,
) -> bool | None:
    return None if a == "x" else True


@contract
def padded_number(x: Float[Tensor, "007 n"]) -> None: ...


@contract
def numpy(a: Float32[np.ndarray, "n"], b: Float[Tensor, "n"] | Float[np.ndarray, "n"]) -> None: ...
@contract
def array_first(a: Float[np.ndarray, "*lead n"], b: Float[Tensor, "*lead"]) -> None: ...


@contract
def duck(a: Shaped[Any, "n 2"]) -> None: ...


@contract
def generic(a: Float[T, "n"], b: Annotated[T, "anything"]) -> None: ...


@contract
def parameter(a: Float[nn.Parameter, "n"]) -> None: ...


@contract
def packed(a: Float[PackedSequence, "batch words 2"], b: Int[Tensor, "batch"]) -> None: ...


@contract
def iterator(xs: Iterator[Float[Tensor, "n"]]) -> Iterator[Float[Tensor, "n"]]:
    yield from xs


@contract
async def awaited(a: Float[Tensor, "n"], wrong: bool = False) -> Float[Tensor, "n"]:
    return f(len(a) + wrong)


@contract
def promised(kind: Any) -> int:
    return kind


@contract(where=("steps % chunk == 0", "chunk >= 1"))
def chunked(a: Float[Tensor, "steps"], chunk: int | None = None) -> None: ...


@contract
def shared_leading(
    a: Float[Tensor, "*#lead 1"], b: Float[Tensor, "*lead 1"] | None = None, c: Float[Tensor, "*#lead"] | None = None
) -> None: ...


@contract
def dtypes(
    a: BFloat16[Tensor, ""], b: UInt8[Tensor, ""], c: Complex[Tensor, ""], d: Inexact[Tensor, ""], e: Num[Tensor, ""],
    f: Int64[Tensor, ""], g: Bool[Tensor, ""],
) -> None: ...  # fmt: skip


@contract
def modified(a: Float[Tensor, "n=3 #m=2 _any *_rest"], b: Float[Tensor, "#*all"], c: Float[Tensor, "*all"]) -> None: ...


@contract
def _hidden(_a: Float[Tensor, "n"], __b: Float[Tensor, "n"], isinstance: int = 1, Tensor: int = 2) -> None: ...


ACCEPTED = {
    "items": lambda: items([f(2, 3), f(2, 4)], f(2)),
    "no items": lambda: items([], f(2)),
    "items that wait": lambda: later([f(2), f(2)], f(3)),
    "any number": lambda: any_number((f(2), f(2))),
    "an item any number of times": lambda: (
        unpacked((f(2),), None, None, 3, f(2)), unpacked((f(2), i(3), i(3)), ("x", f(2)), (1, "x", 2), 3, f(2), f(2)),
        unpacked((f(2),), (f(4), f(4), "x", f(2)), (1, "x", f(2), f(2), 2), 3, f(2)),
    ),
    "a sequence": lambda: sequence((f(2),)),
    "a mapping": lambda: mapping({"a": f(2), "b": f(2)}, {1: i(2), 2: None}),
    "deep": lambda: deep({"a": [(f(2), i(3)), (f(2), i(3))], "b": []}),
    "*args and **kwargs": lambda: varied(f(2), f(2, 3), f(2, 3), k=3, x=i(3), y=None),
    "a NamedTuple": lambda: record(Pair(f(2, 3), i(2)), f(3)),
    "a NamedTuple's default": lambda: record(Pair(f(2, 3))),
    "a dataclass": lambda: batch(Batch(f(2, 3), 3, [f(2)]), i(2)),
    "no dataclass": lambda: batch(None, i(2)),
    "a dataclass in a dataclass": lambda: nested(Nested(Batch(f(2, 3), 3), []), i(2)),
    "first alternative": lambda: alternatives(f(2), f(2, 3)),
    "second alternative": lambda: alternatives(f(2, 3), f(2, 3)),
    "third alternative": lambda: alternatives((f(2), f(3)), f(2, 3)),
    "another type": lambda: alternatives("x", f(2, 3)),
    "alternatives in a list": lambda: one_way_or_the_other([f(5, 2), f(4, 3), f(5, 2)], f(5, 4)),
    "expression first": lambda: expression_first(f(2, 9), f(3), f(4)),
    "expression last": lambda: expression_last(f(3), f(2)),
    "solved one after the other": lambda: solved(f(6), f(5)),
    "min, max, a half": lambda: smaller(f(4), f(7), f(4, 7, 2)),
    "divided": lambda: divided(f(7), 2, f(3)),
    "of the instance, in a list": lambda: Box().of_items([f(1, 2), f(1, 2)]),
    "half of the instance's": lambda: Box().halves(f(3, 1)),
    "plain types": lambda: plain("x", len, [1, 2], 0.5),
    "plain result": lambda: plain("y"),
    "numpy": lambda: numpy(np.zeros(2, np.float32), np.zeros(2)),
    "a number with zeros before it": lambda: padded_number(f(7, 2)),
    "numpy's in the other order of bytes": lambda: numpy(np.zeros(2, ">f4"), np.zeros(2, ">f8")),
    "several axes of numpy's and torch's": lambda: array_first(np.zeros((2, 3, 4)), f(2, 3)),
    "numpy and torch": lambda: numpy(np.zeros(2, np.float32), f(2)),
    "whatever has a shape": lambda: (duck(f(1, 2)), duck(np.zeros((1, 2), bool))),
    "generic": lambda: generic(f(2), f(3)),
    "a parameter": lambda: parameter(nn.Parameter(f(2))),
    "a subclass of Tensor": lambda: items([nn.Parameter(f(2, 1))]),
    "packed": lambda: packed(pack_sequence([f(3, 2), f(1, 2)]), i(2)),
    "an iterator": lambda: list(iterator(iter([f(2)]))),
    "awaited": lambda: asyncio.run(awaited(f(2))),
    "an int is an int": lambda: promised(3),
    "chunks": lambda: (chunked(f(6), 3), chunked(f(6))),
    "leading axes": lambda: shared_leading(f(2, 1, 1), f(2, 3, 1), f(3)),
    "dtypes": lambda: dtypes(
        f(dtype=torch.bfloat16), f(dtype=torch.uint8), f(dtype=torch.complex64), f(dtype=torch.complex64), i(), i(),
        f(dtype=torch.bool),
    ),
    "modifiers": lambda: modified(f(3, 1, 9, 9, 9), f(4, 1), f(4, 5)),
    "names that are used inside": lambda: _hidden(f(2), f(2), 3, 4),
}  # fmt: skip

REFUSED = {
    "an item": (lambda: items([f(2, 3), f(3, 4)]), r"items: xs\[1\]: n is 3; expected 2 \(as in xs\[0\]\)"),
    "the last of many": (lambda: items([f(2, 3)] * 99 + [f(1, 3)]), r"xs\[99\]: n is 1; expected 2"),
    "what shares an item's": (lambda: items([f(2, 3)], f(3)), r"last: n is 3; expected 2 \(as in xs\[0\]\)"),
    "an item that waits": (lambda: later([f(2), f(1)], f(3)), r"xs\[1\]: n-1 is 1; expected 2 \(n=3 as in n\)"),
    "no list": (lambda: items(f(2, 3)), r"xs is a Tensor; expected list\[Float\[Tensor, \"n _\"\]\]"),
    "no tensor in a list": (lambda: items([1]), r"xs\[0\] is an int; expected Float"),
    "one of any number": (lambda: any_number((f(2), f(3))), r"xs\[1\]: n is 3; expected 2"),
    "too few items": (lambda: unpacked((f(2),), (f(2),)), r"b is a tuple of 1; expected \(\*tuple\[Float\[Tensor, \"m\"\], \.\.\.\], str, Float\[Tensor, \"n\"\]\) or None"),
    "any number in front": (lambda: unpacked((f(2), i(4)), (f(4), f(3), "x", f(2))), r"b\[1\]: m is 3; expected 4 \(as in a\[1\]\)"),
    "behind any number": (lambda: unpacked((f(2),), (f(4), "x", f(3))), r"b\[2\]: n is 3; expected 2"),
    "any number between": (lambda: unpacked((f(2),), None, (1, "x", f(2), f(3), 2)), r"c\[3\]: n is 3; expected 2"),
    "any number of *args": (lambda: unpacked((f(2),), None, None, 3, f(2), f(3)), r"others\[2\]: n is 3; expected 2"),
    "any number in a result": (lambda: unpacked((f(2),), None, None, 3), r"the result is a tuple of 0; expected \(Float\[Tensor, \"n\"\], \*tuple\[object, \.\.\.\]\)"),
    "no tuple": (lambda: any_number([f(2)]), r"xs is a list; expected tuple\[Float\[Tensor, \"n\"\], \.\.\.\]"),
    "text is no sequence of tensors": (lambda: sequence("ab"), r"xs\[0\] is a str; expected Float"),
    "a value of a dict": (lambda: mapping({"a": f(2), "b": f(3)}), r"xs\['b'\]: n is 3; expected 2 \(as in xs\['a'\]\)"),
    "a key of a dict": (lambda: mapping({1: f(2)}), r"a key of xs is an int; expected str"),
    "a value of a mapping": (lambda: mapping({"a": f(2)}, {0: i(3)}), r"m\[0\]: n is 3; expected 2"),
    "deep inside": (lambda: deep({"a": [(f(2), i(3)), (f(2), i(4))]}), r"xs\['a'\]\[1\]\[1\]: m is 4; expected 3 \(as in xs\['a'\]\[0\]\[1\]\)"),
    "*args": (lambda: varied(f(2), f(2, 3), f(2, 4)), r"xs\[1\]: m is 4; expected 3 \(as in xs\[0\]\)"),
    "**kwargs": (lambda: varied(f(2), f(2, 3), y=i(4)), r"named\['y'\]: m is 4; expected 3"),
    "a field": (lambda: record(Pair(f(2, 3), i(4))), r"a.ids: n is 4; expected 2 \(as in a.values\)"),
    "what shares a field's": (lambda: record(Pair(f(2, 3)), f(4)), r"b: width is 4; expected 3 \(as in a.values\)"),
    "no record": (lambda: record((f(2, 3), i(2))), r"a is a tuple; expected Pair"),
    "a dataclass's own size": (lambda: Batch(f(2, 3), 4), r"Batch: self.values: width is 3; expected 4 \(self.width\)"),
    "an item of a field": (lambda: Batch(f(2, 3), 3, [f(2), f(1)]), r"self.more\[1\]: batch is 1; expected 2 \(as in self.values\)"),
    "what shares a dataclass's": (lambda: batch(Batch(f(2, 3), 3), i(4)), r"ids: batch is 4; expected 2 \(as in a.values\)"),
    "a field of a field": (lambda: nested(changed(), i(2)), r"a.batch.values: width is 3; expected 5 \(a.batch.width\)"),
    "no alternative": (lambda: alternatives(f(2, 3, 4)), r"a has 3 axes \(2, 3, 4\); expected"),
    "an alternative's axes": (lambda: alternatives((f(2), f(3)), f(2, 4)), r"b: m is 4; expected 3 \(as in a\[1\]\)"),
    "no type of several": (lambda: alternatives(3), r"a is an int; expected Float\[Tensor, \"n\"\] or Float\[Tensor, \"n m\"\] or \(Float"),
    "neither in a list": (lambda: one_way_or_the_other([f(5, 4)], f(5, 4)), r"a\[0\]: axis 1 is 4; expected 2"),
    "one of several in a list": (lambda: one_way_or_the_other([f(5, 2), f(4, 2)], f(5, 4)), r"a\[1\]: n is 4; expected 5"),
    "expression first": (lambda: expression_first(f(3, 9), f(3), f(4)), r"a: n-1 is 3; expected 2 \(n=3 as in b\)"),
    "expression last": (lambda: expression_last(f(3), f(3)), r"a: n-1 is 3; expected 2 \(n=3 as in b\)"),
    "no whole number": (lambda: solved(f(5), f(5)), r"a: 2\*n is 5, which it is for no whole n of at least 0"),
    "below zero": (lambda: solved(f(6), f(2)), r"b: n\+m is 2, which it is for no whole m of at least 0"),
    "the smaller": (lambda: smaller(f(4), f(7), f(7, 7, 2)), r"c: min\(n,m\) is 7; expected 4"),
    "no half": (lambda: smaller(f(5), f(7), f(5, 7, 2)), r"c: n/2 is 2; expected 2.5"),
    "by zero": (lambda: divided(f(7), 0, f(3)), r"b: n//k can have no size: it divides by 0 \(k=0\)"),
    "no number": (lambda: no_size(f(2, 3)), r"a: k can have no size: k is None, not a number"),
    "another number": (lambda: no_size(f(2, 4), 2), r"a: k\+1 is 4; expected 3"),
    "of the instance, in a list": (lambda: Box().of_items([f(1, 2), f(1, 3)]), r"xs\[1\]: size is 3; expected 2 \(self.size\)"),
    "half of the instance's": (lambda: Box().halves(f(3, 2)), r"x: size//2 is 2; expected 1 \(self.size=2\)"),
    "no such literal": (lambda: plain("z"), r"a is 'z'; expected Literal\['x', 'y'\]"),
    "not callable": (lambda: plain("x", 3), r"b is an int; expected collections.abc.Callable or None|b is an int; expected Callable or None"),
    "items of plain types": (lambda: plain("x", None, ["a"]), r"c is a list; expected list\[int\] or None"),
    "an int is no float": (lambda: plain("x", d=1), r"d is an int; expected float"),
    "a number with zeros before it": (lambda: padded_number(f(6, 2)), r"x: axis 0 is 6; expected 7"),
    "numpy's size": (lambda: numpy(np.zeros(2, np.float32), np.zeros(3)), r"b: n is 3; expected 2"),
    "several axes of numpy's": (lambda: array_first(np.zeros((2, 3)), f(3)), r"b: lead is \(3,\); expected \(2,\)"),
    "numpy's dtype": (lambda: numpy(np.zeros(2), f(2)), r"a is float64; expected Float32"),
    "a dtype that torch lacks": (lambda: numpy(np.zeros(2, "U3"), f(2)), r"a is of no dtype of torch; expected Float32"),
    "no shape at all": (lambda: duck(3), r"a is an int; expected Shaped"),
    "generic": (lambda: generic(f(2), 3), r"b is an int; expected Tensor"),
    "no parameter": (lambda: parameter(f(2)), r"a is a Tensor; expected Float\[Parameter, \"n\"\]"),
    "packed": (lambda: packed(pack_sequence([f(3, 2)]), i(2)), r"b: batch is 2; expected 1"),
    "no iterator": (lambda: list(iterator([f(2)])), r"xs is a list; expected Iterator"),
    "awaited": (lambda: asyncio.run(awaited(f(2), True)), r"the result: n is 3; expected 2 \(as in a\)"),
    "a result that is no tensor": (lambda: promised("x"), r"the result is a str; expected int"),
    "a rest": (lambda: chunked(f(7), 3), r"a: steps is 7; chunked needs a multiple of 3 \(chunk\)"),
    "chunks of zero": (lambda: chunked(f(7), 0), r"steps % chunk == 0 divides by 0 \(chunk=0\)"),
    "leading axes": (lambda: shared_leading(f(2, 3, 1), f(2, 1, 1)), r"b: lead is \(2, 1\); expected what \(2, 3\) broadcasts to \(as in a\)"),
    "leading axes, late": (lambda: shared_leading(f(1), f(2, 1), f(3)), r"c: lead is \(3,\); expected what broadcasts to \(2,\) \(as in"),
    "dtype": (lambda: dtypes(f(), f(dtype=torch.uint8), f(), f(), i(), i(), i()), r"a is float32; expected BFloat16"),
    "a fixed size with a name": (lambda: modified(f(2, 1, 9), f(), f()), r"a: axis 0 is 2; expected 3"),
    "a size that may be 1": (lambda: modified(f(3, 3, 9), f(), f()), r"a: axis 1 is 3; expected 1 or 2"),
    "names that are used inside": (lambda: _hidden(f(2), f(3)), r"__b: n is 3; expected 2 \(as in _a\)"),
}  # fmt: skip


def changed() -> Nested:
    made = Nested(Batch(f(2, 3), 3))
    made.batch.width = 5
    return made


Batch = contract(Batch)


@pytest.mark.parametrize("call", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_fits_passes(call):
    call()


@pytest.mark.parametrize(("call", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(call, text):
    with pytest.raises(ShapeContractError, match=text):
        call()


def test_a_named_tuple_is_not_checked_when_it_is_made():
    broken = Pair(f(2, 3), i(9))
    assert torch.utils._pytree.tree_map(lambda leaf: "x", broken) == Pair("x", "x")


def test_the_results_of_a_call_share_the_axes_of_its_arguments_through_fields():
    @contract
    def swapped(a: Float[Tensor, "n"]) -> Pair:
        return Pair(f(len(a) + 1, 2))

    with pytest.raises(ShapeContractError, match=r"the result.values: n is 3; expected 2 \(as in a\)"):
        swapped(f(2))


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("n + m", r"'\+' cannot be read as an expression over axis names \(which holds no space"),
        ("?n", r"'\?n' cannot be read as an expression"),
        ("n.m", r"'n.m' may only hold ints, names"),
        ("n**2", r"'n\*\*2' may only hold"),
        ("{slef.n}", r"\{slef.n\}: slef is none of the parameters a"),
        ("min(n)", r"may only hold"),
        ("n -1", r"'-1': no axis has a size below 0; `_` is an axis of any size"),
        ("2-3", r"no axis has a size below 0"),
    ],
)
def test_an_axis_that_cannot_be_read_is_refused_when_decorating(annotation, text):
    def function(a) -> None: ...

    function.__annotations__ = {"a": Float[Tensor, annotation]}
    with pytest.raises(ValueError, match=text):
        contract(function)


def test_what_is_neither_a_function_nor_a_dataclass_is_refused():
    with pytest.raises(TypeError, match=r"a partial cannot be decorated; a function, a method or a dataclass can"):
        contract(__import__("functools").partial(f, 1))
    with pytest.raises(TypeError, match=r"Box is no dataclass \(where it is made one, @contract stands above"):
        contract(Box)
    with pytest.raises(TypeError, match=r"a str cannot be decorated"):
        contract("batch -> batch")
    with pytest.raises(TypeError, match="f has no contract"):
        contract.source(f)


def test_beartype_warns_of_no_annotation():
    @contract
    def given(a: Float[Tensor, "n"], call: typing.Callable[[int], int], many: typing.List[int]) -> None: ...  # noqa: UP006

    given(f(2), abs, [1])
    with pytest.raises(ShapeContractError, match="many is an int; expected List"):
        given(f(2), abs, 1)


def test_the_instance_of_a_field_cannot_be_reached_inside_of_a_list():
    def function(a) -> None: ...

    function.__annotations__ = {"a": list[Batch]}
    with pytest.raises(ValueError, match=r"'batch \{self.width\}': `self`, the instance that holds this field"):
        contract(function)


@pytest.mark.parametrize("text", ["*", "* n", "n="])
def test_an_axis_without_a_name_or_a_size_is_refused_when_decorating(text):
    with pytest.raises(ValueError, match=r"is no axis: a name or a size is missing"):

        @contract
        def function(x: Float[Tensor, text]) -> None: ...


def test_a_dtype_that_torch_does_not_have_is_refused():
    class Foo(AbstractDtype):
        dtypes = ("foo",)

    class Array:
        dtype, shape = "foo", (3,)

    @contract
    def function(x: Foo[Array, "n"]) -> None: ...

    assert isinstance(Array(), Foo[Array, "n"])  # jaxtyping compares texts
    with pytest.raises(ShapeContractError, match="x is of no dtype of torch; expected Foo"):
        function(Array())


Vector = NewType("Vector", Float[Tensor, "new"])


@contract
def of_new_types(x: Vector, y: list[Vector], z: Float[Tensor, "new"]) -> Vector:
    return z


def test_axes_are_shared_through_a_new_type():
    of_new_types(Vector(torch.zeros(2)), [Vector(torch.zeros(2))], torch.zeros(2))
    for sizes in [(3, 2, 2), (2, 3, 2), (2, 2, 3)]:
        x, y, z = map(torch.zeros, sizes)
        with pytest.raises(ShapeContractError, match="new"):
            of_new_types(Vector(x), [Vector(y)], z)


@contract
def guards(x: Float[Tensor, "n"], answer: object) -> TypeGuard[int]:
    return answer  # pyright: ignore


def test_a_type_guard_answers_with_a_bool():
    assert guards(torch.zeros(1), True)
    with pytest.raises(TypeError, match="bool"):
        guards(torch.zeros(1), "x")
