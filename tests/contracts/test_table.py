"""The table of `help(towers.contracts)`: each of its rows is tried, beside jaxtyping with beartype where both speak."""

import asyncio
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Never, Protocol, Self, TypedDict, TypeVar, cast, no_type_check

import numpy as np
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from beartype.vale import Is
from jaxtyping import AbstractDtype, Bool, Float, Int32, Shaped, TypeCheckError, jaxtyped, print_bindings
from torch import Tensor, nn

import towers.contracts
from towers.contracts import ShapeContractError, contract

jaxtyping = jaxtyped(typechecker=beartype)
X = Float[Tensor, "n"]
T = TypeVar("T", bound=Tensor)

Call = Callable[[Any], Any]


def f(*shape: int) -> Tensor:
    return torch.zeros(shape)


THREE = f(3)


class Pair(NamedTuple):
    x: X
    y: X


class Keys(TypedDict):
    x: X


@dataclass
class Record:
    x: X


class Quiet(Protocol):
    def anything(self) -> int: ...


class Sized:
    n, sizes = 2, (4, 5)

    def __init__(self, decorate: Any):
        def of_itself(self: Any, x: Float[Tensor, "{self.n} {self.sizes[0]}"]) -> None: ...
        def twice(self: Any, x: Float[Tensor, "{self.n}{self.n}"]) -> None: ...

        self.of_itself = decorate and decorate(of_itself)
        self.make_twice = lambda: decorate(twice)


# One function for each row, which gets the decorator. "y" below: the call passes; "n": it is refused; "e": another
# error; "d": it is refused when decorating.


def axes(D):
    @D
    def g(
        a: Float[Tensor, "batch 3 _ *name"],
        b: Float[Tensor, "#batch ..."],
        c: Float[Tensor, "*#name n=3"] | None = None,
    ) -> None: ...

    return g


def arithmetic(D):
    @D
    def g(
        n: X, a: Float[Tensor, "n-1 2*n n//2 n%3 min(n,3) max(n,3)"], b: Float[Tensor, "n/2"] | None = None
    ) -> None: ...

    return g


def braces(D):
    @D
    def g(k: int, o: object, x: Float[Tensor, "{k} {o.n}"], y: Float[Tensor, "{x.shape[0]} {len(x)}"]) -> None: ...

    return g


def of_self(D):
    return partial(Sized(D).of_itself, Sized(None))


def dtypes(D):
    class Param(nn.Parameter): ...

    @D
    def g(a: Float[Tensor, ""], b: Int32[Tensor, ""], c: Bool[Tensor, ""], d: Shaped[nn.Parameter, ""]) -> None: ...

    return g


def unions(D):
    @D
    def g(a: X | None, *rest: X | int, b: Float[np.ndarray, "n"] | str, c: Float[T, "n"], **named: X) -> Any: ...

    return g


def methods(D):
    class A:
        @D
        @property
        def p(self) -> Float[Tensor, "n n"]:
            return f(2, self.k)

        def m(self, x: X) -> None: ...

    a = A()
    a.bound = D(a.m)
    return a


def loose_default(D):
    @D
    def g(x: X, mask: X = None, k: int = "auto") -> None: ...

    return g


def asks(D):
    @D
    def g(x: X, y: object) -> Float[Tensor, "m"]:
        print_bindings()
        return f(5) if isinstance(y, Float[Tensor, "n m"]) else f(1)

    return g


def validated(D):
    @D
    def g(x: Annotated[X, Is[lambda x: bool((x >= 0).all())]]) -> None: ...

    return g


def plain(D):
    @D
    def g(a: int, b: Literal["a"], c: list[int], d: Callable[..., Any], x: X) -> None: ...

    return g


def text(D):
    @D
    def g(x: "X", y: "list[X]") -> "X":
        return x

    return g


def unknown(D):
    @D
    def g(x: "Nowhere", y: X) -> "Nowhere":
        return x

    return g


def whole(D):
    @D
    def g(
        a: list[X], b: tuple[X, ...], c: dict[str, X], d: Sequence[X], e: Mapping[str, X], h: Iterable[X],
        i: tuple[X, *tuple[X, ...]],
    ) -> None: ...  # fmt: skip

    return g


def whole_call(place: str, wrong: bool) -> Call:
    def items(name: str) -> list[Tensor]:
        return [f(2)] * 8 + [f(2 + (wrong and name == place))]

    def call(g: Any) -> None:
        keys = {name: dict(zip("abcdefghi", items(name), strict=True)) for name in "ce"}
        g(items("a"), tuple(items("b")), keys["c"], items("d"), keys["e"], items("h"), tuple(items("i")))

    return call


def tensor_default(D):
    @D
    def g(x: X, y: X = THREE) -> None: ...

    return g


def awaited(D):
    @D
    async def g(x: X, size: int) -> X:
        return f(size)

    return g


def no_type(D):
    @D
    def g(x: torch.float32) -> None: ...

    return g


def tuple_of_types(D):
    @D
    def g(x: (X, X)) -> None: ...

    return g


def remark(D):
    @D
    def g(x: "the input") -> None: ...

    return g


def records(D):
    @D
    def g(a: Pair, b: Keys, c: Record) -> None: ...

    return g


def made(D):
    @D
    @dataclass
    class Made:
        x: Float[Tensor, "n {k}"] if D is contract else Float[Tensor, "n _"]
        k: int
        w: InitVar[int] = 1

        def __post_init__(self, w):
            self.x = torch.as_tensor(self.x)

    return Made


def before(D):
    @D
    def g(a: Float[Tensor, "n-1"], b: X, c: Float[Tensor, "2*m"]) -> None: ...

    return g


def misspelt(D):
    @D
    def g(a: Float[Tensor, "words"], b: Float[Tensor, "words"]) -> Float[Tensor, "wordss"]:
        return f(3)

    return g


def nothing_there(D):
    @D
    def g(k: int | None, x: Float[Tensor, "{k}"]) -> None: ...

    return g


def of_anything(D):
    @D
    def g(k: Any, x: Float[Tensor, "{k}"]) -> None: ...

    return g


def of_nothing(D):
    class A:
        @D
        def g(self, x: Float[Tensor, "{self.nothing}"]) -> None: ...

    return A().g


def star(D):
    @D
    def g(x: Float[Tensor, "*"]) -> None: ...

    return g


def own_dtype(D):
    class Strange:
        dtype, shape = "strange", (3,)

    class Odd(AbstractDtype):
        dtypes = ["strange"]  # noqa: RUF012

    @D
    def g(x: Odd[Strange, "3"]) -> None: ...

    return lambda: g(Strange())


def inner_beartype(D):
    @beartype
    def inner(x: Float[Tensor, "m n"]) -> None: ...

    @D
    def g(x: Float[Tensor, "n m"]) -> None:
        inner(x)

    return g


def helper(y: object) -> bool:
    return isinstance(y, X)


def helped(D):
    @D
    def g(x: X, y: object) -> None:
        assert not helper(y)

    return g


def helped_and_asking(D):
    @D
    def g(x: X, y: object) -> None:
        assert isinstance(x, X)
        assert not helper(y)

    return g


def two_decorators(D):
    def g(x: X, y: X) -> None: ...

    if D is contract:
        return contract(g)
    with pytest.warns(match="As of jaxtyping"):
        return jaxtyped(beartype(g))


def plain_class(D):
    @D
    class A:
        def __init__(self, x: X): ...

    return A


def object_with_call(D):
    class A:
        def __call__(self, x: X): ...

    return D(A())


def partly(D):
    return D(partial(text(lambda g: g), f(2)))


def never(D):
    @D
    def g(x: X, y: Never) -> None: ...

    return g


def oneself(D):
    class A:
        @D
        def g(self, x: X, y: Self) -> None: ...

    return A().g


def quiet(D):
    @D
    def g(x: X, y: Quiet) -> None: ...

    return g


def joined(D):
    made = Sized(D)
    return partial(made.make_twice(), made)


def partly_known(decorate):
    @decorate
    def function(*given) -> 'tuple[Float[Tensor, "n"] | Nowhere]':
        return given

    return function


def text_under_wrapper(decorate):
    @decorate
    @torch.no_grad()
    def function(x: 'Float[Tensor, "n"]'): ...

    return function


def converted(decorate):
    class Converting(type):  # as the metaclass of equinox.Module, which converts after __init__
        def __call__(cls, x):
            made = super().__call__(x)
            made.x = str(made.x)
            return made

    @decorate
    @dataclass
    class Named(metaclass=Converting):
        x: str

    return Named


def two_inits(D):
    @D
    @dataclass(init=False)
    class A:
        x: X

        @D
        def __init__(self, x: X):
            self.x = x

    return A


def theirs_or_ours(D):
    kinds = {jaxtyping: TypeCheckError, contract: ShapeContractError}
    checked = text(D)

    def g(x: Tensor, y: Any) -> None:
        with pytest.raises(kinds[D]) as caught:
            checked(x, y)
        assert isinstance(caught.value, TypeError)

    return g


def code_in_braces(D):
    @D
    def g(n: X, x: Float[Tensor, "{len(n)+1}"], y: Float[Tensor, "n**2"]) -> None: ...

    return g


def not_checked_above(D):
    @no_type_check
    @D
    def g(x: X) -> None: ...

    return g


def not_checked_below(D):
    @D
    @no_type_check
    def g(x: X) -> None: ...

    return g


def callables(D):
    @D
    def g(x: X, call: Callable[[X], X], more: Iterator[X]) -> None:
        call(f(9))
        next(more)

    return g


def generated(D):
    @D
    def g(x: X) -> Iterator[X]:
        yield x

    return g


def strange_text(D):
    @D
    def g() -> 'Float[Tensor, "*a *b"]':
        return f(3)

    return g


def assigned(D):
    made = D(dataclass(type("Assigned", (), {"__annotations__": {"x": X, "y": X}})))(f(2), f(2))

    def g(x: Tensor) -> None:
        made.x = x

    return g


@dataclass
class Node:
    x: X
    next: "Node | None" = None


def chained(D):
    @D
    def g(a: Node) -> None: ...

    return g


def operators(D):
    class A:
        @D
        def __eq__(self, other: object) -> bool:
            return NotImplemented

        @D
        def __rsub__(self, other: Any) -> X:
            return NotImplemented if other == 2 else other

        @D
        def __lt__(self, other: object) -> bool:
            return cast(Any, other)

        @D
        def no_operator(self) -> bool:
            return NotImplemented

    return A()


def unpacked(D):
    @D
    def g(a: list[tuple[int, *tuple[str, ...]]]) -> None: ...

    return g


def unpacked_arguments(D):
    @D
    def g(*a: *tuple[int, str]) -> None: ...

    return g


class Outer: ...


def local(D):
    class Local(Outer): ...

    @D
    def g(a: "Local", b: "Outer") -> None: ...

    return lambda fits_a, fits_b: g(Local() if fits_a else 3, Local() if fits_b else 3)


def cached(D):
    class A:
        def __init__(self, n: int):
            self.n = n

        @D
        @cached_property
        def v(self) -> Float[Tensor, "3"]:
            return f(self.n)

    return A


def short(D):
    return D(lambda x: x)


def alternatives(D):
    @D
    def g(a: tuple[Float[Tensor, "b"], X, X] | tuple[X, X] | tuple[Float[Tensor, "b"], Float[Tensor, "c"]], x: X): ...

    return g


def tried(make: Any, *calls: Call) -> dict[Any, str]:
    """What jaxtyping with beartype, and what towers says of each call."""
    found: dict[Any, str] = {}
    for decorate in (jaxtyping, contract):
        try:
            function = make(decorate)
        except Exception:
            found[decorate] = "d"
            continue
        said = ""
        for call in calls:
            try:
                call(function)
                said += "y"
            except (TypeCheckError, ShapeContractError, BeartypeCallHintViolation):
                said += "n"
            except Exception:
                said += "e"
        found[decorate] = said
    return found


I32 = torch.zeros((), dtype=torch.int32)
YES = torch.zeros((), dtype=torch.bool)
HERE = Path(__file__).parent

ROWS: dict[str, list[Any]] = {
    "batch, 3, _, ..., *name, #name, *#name, n=3": [
        ("yynnnn", axes, lambda g: g(f(2, 3, 9, 5), f(1, 7)), lambda g: g(f(2, 3, 9, 5), f(2), f(1, 3)),
         lambda g: g(f(2, 4, 9), f(2)), lambda g: g(f(2, 3, 9), f(3)), lambda g: g(f(2, 3, 9, 5), f(2), f(4, 3)),
         lambda g: g(f(2, 3, 9), f(2), f(4))),
    ],
    "words-1, 2*n, n//2, n/2, n%3, min(a,b)": [
        ("ynnnnnny", arithmetic, *(lambda g, at=at: g(f(4), f(*(s + (i == at) for i, s in enumerate((3, 8, 2, 1, 3, 4)))))
                                   for at in range(-1, 6)), lambda g: g(f(4), f(3, 8, 2, 1, 3, 4), f(2))),
    ],
    "{self.hidden}, {argument}, {argument.size}, {self.sizes[0]}, {x.shape[0]}, {len(x)}": [
        ("ynn", braces, lambda g: g(3, Sized(None), f(3, 2), f(3, 3)), lambda g: g(4, Sized(None), f(3, 2), f(3, 3)),
         lambda g: g(3, Sized(None), f(3, 2), f(3, 2))),
        ("yn", of_self, lambda g: g(f(2, 4)), lambda g: g(f(2, 5))),
    ],
    "None in {argument}": [("n", nothing_there, lambda g: g(None, f(2)))],
    "Float, Int32, Bool, Shaped, ...": [
        ("ynn", dtypes, lambda g: g(f(), I32, YES, nn.Parameter(f())), lambda g: g(f(), f(), YES, nn.Parameter(f())),
         lambda g: g(f(), I32, YES, f())),
    ],
    "X | None, unions, *args, **kwargs": [
        ("yynn", unions, lambda g: g(None, f(2), 3, b="x", c=f(2), d=f(2)), lambda g: g(f(2), b=np.zeros(2), c=f(2)),
         lambda g: g(f(2), b=np.zeros(3), c=f(2)), lambda g: g(None, f(2), b="x", c=f(2), d=f(3))),
        ("ynyn", methods, lambda a: (setattr(a, "k", 2), a.p), lambda a: (setattr(a, "k", 3), a.p),
         lambda a: a.bound(f(2)), lambda a: a.bound(f(2, 2))),
    ],
    "a default of another type": [
        ("ynn", loose_default, lambda g: g(f(2)), lambda g: g(f(2), None), lambda g: g(f(2), f(2), "auto")),
    ],
    "isinstance(x, Float[...]), print_bindings()": [
        ("yn", asks, lambda g: g(f(2), f(2, 5)), lambda g: g(f(2), f(2, 6))),
        "test_shared_axes.py::test_async_functions_see_no_axes",
        "test_shared_axes.py::test_compiled_programs_never_take_isinstance_for_false",
    ],
    "Annotated[Float[...], Is[...]]": [
        ("yn", validated, lambda g: g(f(2)), lambda g: g(f(2) - 1)),
        "test_validators.py",
    ],
    "int, Literal, list[int], Callable, ...": [
        ("ynnnn", plain, lambda g: g(1, "a", [1], len, f(2)), lambda g: g("1", "a", [1], len, f(2)),
         lambda g: g(1, "b", [1], len, f(2)), lambda g: g(1, "a", ["1"], len, f(2)), lambda g: g(1, "a", [1], 3, f(2))),
    ],
    "strings, from __future__ import annotations": [
        ("ynn", text, lambda g: g(f(2), [f(2)]), lambda g: g(f(2), [f(3)]), lambda g: g(3, [f(2)])),
        ("y", unknown, lambda g: g("anything", f(2))),
        "test_strings.py",
    ],
    "an operator that returns NotImplemented": [
        ("yenn", operators, lambda a: a == 3, lambda a: 2 - a, lambda a: a < 3, lambda a: 3 - a),
        ("n", operators, lambda a: a.no_operator()),
    ],
    "list[X], tuple[X, ...], dict[K, X], Sequence[X], Mapping[K, X], Iterable[X], tuple[X, *tuple[Y, ...]]": [
        (("yyyy", "ynnn"), whole, whole_call("a", wrong=False), *(whole_call(place, wrong=True) for place in "cei")),
        ((None, "nnnn"), whole, *(whole_call(place, wrong=True) for place in "abdh")),
        (("yyy", "ynn"), unpacked, lambda g: g([(1, "a")]), lambda g: g([(1, "a", 2)]), lambda g: g([()])),
        (("d", "yn"), unpacked_arguments, lambda g: g(1, "a"), lambda g: g(1, 2)),
    ],
    "local names and later ones in a string": [
        (("yyn", "ynn"), local, lambda g: g(1, 1), lambda g: g(0, 1), lambda g: g(1, 0)),
    ],
    "the rest of a string with an unknown name": [(("yy", "yn"), partly_known, lambda g: g(f(2)), lambda g: g(f(2), 3))],
    "a string under a wrapper of another module": [
        (("yy", "yn"), text_under_wrapper, lambda g: g(f(2)), lambda g: g(f(2, 2))),
    ],
    "a default with tensors": [
        (("yy", "ny"), tensor_default, lambda g: g(f(2)), lambda g: g(f(3))),
    ],
    "async functions": [
        (("nn", "yn"), awaited, lambda g: asyncio.run(g(f(2), 2)), lambda g: asyncio.run(g(f(2), 3))),
    ],
    'annotations that are no types: torch.float32, [X], (X, Y), "the input"': [
        ("d", no_type), (("nny", "d"), tuple_of_types, lambda g: g(3), lambda g: g((f(2), f(2))), lambda g: g(f(2))),
        (("y", "d"), remark, lambda g: g(3)),
        "test_no_types.py",
    ],
    "fields of dataclasses, NamedTuples, and TypedDicts": [
        (("yyyy", "ynnn"), records, lambda g: g(Pair(f(2), f(2)), {"x": f(2), "more": 1}, Record(f(2))),
         lambda g: g(Pair(f(2), f(3)), {"x": f(2)}, Record(f(2))), lambda g: g(Pair(f(2), f(2)), {"x": f(3)}, Record(f(2))),
         lambda g: g(Pair(f(2), f(2)), {"x": f(2)}, Record(f(3)))),
    ],
    "a dataclass under @contract": [
        (("nyy", "yyn"), made, lambda g: g([[1.0]], 1), lambda g: g(f(2, 3), 3), lambda g: g(f(2, 3), 4)),
        ("n", made, lambda g: g(f(2, 3), 3, "one")),
    ],
    "n-1 before n, and 2*n alone": [
        (("ee", "yn"), before, lambda g: g(f(2), f(3), f(4)), lambda g: g(f(2), f(3), f(5))),
    ],
    "a name nearly like another": ["test_spelling.py"],
    'where="steps % chunk == 0"': ["test_values.py"],
    "under torch.compile, export, vmap": ["test_where_it_works.py"],
    "PyTree[X] of towers.contracts": ["test_trees.py"],
    '"*" without a name': [(("y", "d"), star, lambda g: g(f(2)))],
    "dtypes that torch does not have": [(("y", "n"), own_dtype, lambda g: g())],
    "a tensor or a text as {argument}": [
        (("ye", "nn"), of_anything, lambda g: g(torch.tensor(2), f(2)), lambda g: g("two", f(2))),
    ],
    "{self.nothing}": [(("n", "e"), of_nothing, lambda g: g(f(2)))],
    "@beartype on an inner function": [(("n", "y"), inner_beartype, lambda g: g(f(2, 3)))],
    "isinstance(x, Float[...]) in a helper": [
        (("y", "e"), helped, lambda g: g(f(2), f(3))), ("y", helped_and_asking, lambda g: g(f(2), f(3))),
    ],
    "@jaxtyped above @beartype": [("yn", two_decorators, lambda g: g(f(2), f(2)), lambda g: g(f(2), f(3)))],
    "a class that is no dataclass, decorated": [(("y", "d"), plain_class, lambda g: g("anything"))],
    "a partial, or an object with __call__": [("d", object_with_call), ("d", partly)],
    "@contract above @cached_property, a lambda": [
        (("d", "yn"), cached, lambda a: a(3).v, lambda a: a(4).v), (("d", "y"), short, lambda g: g(3)),
    ],
    "axes of an alternative that did not fit": [
        (("n", "y"), alternatives, lambda g: g((f(2), f(3)), f(5))),
    ],
    "Never as an argument": [(("d", "n"), never, lambda g: g(f(2), 3))],
    "Self, a Protocol without runtime_checkable": [
        (("d", "y"), oneself, lambda g: g(f(2), 3)), (("d", "y"), quiet, lambda g: g(f(2), 3)),
    ],
    "{self.n}{self.n}, {n}0, d{n}": [(("yn", "d"), joined, lambda g: g(f(22)), lambda g: g(f(4)))],
    "an __init__ with a contract in a dataclass with one": [
        ("yn", two_inits, lambda g: g(f(2)), lambda g: g(f(2, 2))),
    ],
    "equinox's field(converter=…)": [((None, "yn"), converted, lambda g: g("1"), lambda g: g(1))],
    "jaxtyping.TypeCheckError": [("y", theirs_or_ours, lambda g: g(f(2), [f(3, 3)]))],
    '?name, PyTree[X, "T"]': ["test_trees.py"],
    "{self.a+1}, {self.f()}, n**2, other code": [(("y", "d"), code_in_braces, lambda g: g(f(2), f(3), f(4)))],
    'jaxtyped("context")': [],
    "@no_type_check above @contract": [
        (("y", "n"), not_checked_above, lambda g: g(3)), ("y", not_checked_below, lambda g: g(3)),
    ],
    "torch.fx.symbolic_trace": ["test_where_it_works.py"],
    "torch.jit.trace": ["test_where_it_works.py"],
    "Iterator, Generator and Callable of tensors": [
        ("yn", callables, lambda g: g(f(2), lambda x: 3, iter([4])), lambda g: g(f(2), 3, iter([4]))),
    ],
    "a generator's arguments, at the call": [
        (("nn", "yn"), generated, lambda g: g(f(2, 2)), lambda g: next(g(f(2, 2)))),
    ],
    """'Float[Tensor, "*a *b"]' as text""": [(("y", "d"), strange_text, lambda g: g())],
    "install(…) where no shape is named": ["test_import_hook.py::test_the_rest_is_left_alone"],
    "assigning a field of a dataclass later": [("y", assigned, lambda g: g(f(7)))],
    "what a record holds of its own class": [
        ((None, "yn"), chained, lambda g: g(Node(f(2), Node(f(3)))), lambda g: g(Node(f(2), 3))),
    ],
    "torch.jit.script": ["test_import_hook.py"],
}  # fmt: skip


def table() -> list[str]:
    """The left cells of the table's rows."""
    assert towers.contracts.__doc__
    _, _, rows = towers.contracts.__doc__.partition("    ----   ")
    cells = [line[4:50].strip() for line in rows.splitlines() if line.startswith("    ")]
    heads = ("as in jaxtyping with beartype", "stricter", "not supported")
    return [cell for cell in cells if cell and set(cell) != {"-"} and cell not in heads]


def test_every_row_is_tried():
    assert " ".join(table()) == " ".join(ROWS)


CASES = [(row, case) for row, cases in ROWS.items() for case in cases]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(("row", "case"), CASES, ids=[f"{row}-{at}" for at, (row, _) in enumerate(CASES)])
def test_what_a_row_says(row: str, case: Any):
    if isinstance(case, str):  # where it is tried
        file, _, name = case.partition("::")
        assert f"def {name or 'test_'}" in (HERE / file).read_text("utf8")
        return
    wanted, make, *calls = case
    theirs, ours = (wanted, wanted) if isinstance(wanted, str) else wanted
    found = tried(make, *calls)
    if make is awaited:
        gc.collect()  # the coroutines that jaxtyping refuses
    assert found[contract] == ours
    assert theirs in (None, found[jaxtyping])
