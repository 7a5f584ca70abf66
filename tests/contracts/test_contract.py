"""What @contract accepts and refuses, on modules that are not towers'."""

import inspect
import pickle
from collections.abc import Collection, Iterable
from typing import Any

import pytest
import torch
from jaxtyping import Bool, Float, Float32, Int, Shaped
from torch import Tensor, nn

from towers.contracts import ShapeContractError, contract


def f(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


@contract
def names(a: Float[Tensor, "batch time"], b: Float[Tensor, "time batch"]) -> Float[Tensor, "batch batch"]:
    return a @ b


@contract
def fixed(a: Float[Tensor, "batch 3"]) -> None: ...


@contract
def anything(a: Shaped[Tensor, "_ 3 ..."]) -> None: ...


@contract
def leading(a: Float[Tensor, "*lead width"], b: Float[Tensor, "*lead"]) -> None: ...


@contract
def broadcast(a: Float[Tensor, "*#lead width"], b: Float[Tensor, "*#lead width"]) -> Float[Tensor, "*lead"]:
    return (a + b).sum(-1)


@contract
def one_or_n(a: Float[Tensor, "n"], b: Float[Tensor, "#n"]) -> None: ...


@contract
def expression(a: Float[Tensor, "n-1"], b: Float[Tensor, "n"], c: Float[Tensor, "2*n+1"] | None = None) -> None: ...


@contract
def argument(a: Float[Tensor, "batch {width}"], width: int = 3) -> Float[Tensor, "batch {width}//2"]:
    return a[:, : width // 2]


@contract
def optional(a: Float[Tensor, "batch"] | None = None, b: Int[Tensor, "batch"] | None = None) -> None: ...


@contract
def either(a: Float[Tensor, "batch width"] | Int[Tensor, "batch"]) -> None: ...


@contract
def nested(a: tuple[Float[Tensor, "batch 2"], tuple[Int[Tensor, "batch"], Bool[Tensor, "batch"]]]) -> None: ...


@contract
def plain(a: Float[Tensor, "batch"], mode: int | str = 1) -> None: ...


@contract(where=("n >= 2", "n % 4 == 0", "least <= n", "0 <= ids < n"))
def bounded(a: Float[Tensor, "n"], ids: Int[Tensor, "k"] | None = None, least: int | None = None) -> None: ...


@contract
def only_float32(a: Float32[Tensor, "..."]) -> None: ...


@contract
def result(a: Float[Tensor, "batch width"], kind: str) -> tuple[Float[Tensor, "batch"], Float[Tensor, "width"]]:
    return {"right": (a.sum(1), a.sum(0)), "swapped": (a.sum(0), a.sum(1)), "no tuple": a}[kind]


@contract
def shapes(a: Float[Tensor, "n 3"] | Float[Tensor, "n 4"], b: Float[Tensor, "n"] | None = None) -> None: ...


@contract
def keywords(a: Float[Tensor, "out in"], b: Float[Tensor, "in"]) -> None: ...


@contract
def named(a: Float[Tensor, "rows=4 n"], len: int = 3, *, any: int = 2) -> int:
    return len + any


@contract
def both_kinds(a: Float[Tensor, "*a"], b: Float[Tensor, "a"]) -> None: ...


@contract
def doubled(a: Float[Tensor, "2*n"]) -> None: ...


@contract(where="0 <= ids < n")
def table(a: Float[Tensor, "n"], ids: Int[Tensor, "k m"]) -> None: ...


class Static:
    @contract
    @staticmethod
    def under(a: Float[Tensor, "3"]) -> None: ...

    @staticmethod
    @contract
    def over(a: Float[Tensor, "3"]) -> None: ...

    @contract
    @classmethod
    def of_class(cls, a: Float[Tensor, "3"]) -> "Static":
        return cls()

    @contract
    def of_its_own_class(self, other: "Static | None", a: Float[Tensor, "3"]) -> "Static":
        return self


ACCEPTED = {
    "either shape, first": lambda: shapes(f(2, 3)),
    "either shape, second": lambda: shapes(f(2, 4), f(2)),
    "keywords of Python": lambda: keywords(f(2, 3), f(3)),
    "a named number, and parameters that hide builtins": lambda: named(f(4, 2), 3, any=1),
    "one name for one axis and for several": lambda: both_kinds(f(2, 3), f(5)),
    "two of something": lambda: doubled(f(6)),
    "static, either order": lambda: (Static.under(f(3)), Static.over(f(3)), Static().under(f(3))),
    "class method": lambda: Static.of_class(f(3)),
    "its own class": lambda: Static().of_its_own_class(Static(), f(3)),
    "shared names": lambda: names(f(2, 3), f(3, 2)),
    "fixed": lambda: fixed(f(9, 3)),
    "anonymous": lambda: anything(f(9, 3, 1, 1, dtype=torch.int8)),
    "anonymous, nothing more": lambda: anything(f(9, 3, dtype=torch.bool)),
    "leading axes": lambda: leading(f(2, 3, 4), f(2, 3)),
    "no leading axis": lambda: leading(f(4), f()),
    "broadcast": lambda: broadcast(f(5, 1, 4), f(3, 4)),
    "broadcast with none": lambda: broadcast(f(5, 2, 4), f(4)),
    "one": lambda: one_or_n(f(4), f(1)),
    "expression before its name": lambda: expression(f(3), f(4), f(9)),
    "argument given": lambda: argument(f(2, 5), 5),
    "argument by default": lambda: argument(f(2, 3)),
    "argument by name": lambda: argument(width=4, a=f(2, 4)),
    "none": lambda: optional(),
    "only the second": lambda: optional(b=f(3, dtype=torch.int32)),
    "first of two": lambda: either(f(2, 3)),
    "second of two": lambda: either(f(2, dtype=torch.int64)),
    "nested": lambda: nested((f(4, 2), (f(4, dtype=torch.int64), f(4, dtype=torch.bool)))),
    "plain": lambda: plain(f(2), "x"),
    "bounds": lambda: bounded(f(8), torch.tensor([0, 7]), 8),
    "bounds with none": lambda: bounded(f(4)),
    "results": lambda: result(f(2, 3), "right"),
    "bfloat16 is a Float": lambda: fixed(f(1, 3, dtype=torch.bfloat16)),
    "empty": lambda: names(f(0, 3), f(3, 0)),
    "on meta": lambda: names(torch.empty(2, 3, device="meta"), torch.empty(3, 2, device="meta")),
}

REFUSED = {
    "either shape": (lambda: shapes(f(2, 5)), r"a: axis 1 is 5; expected 3 \(as annotated\)"),
    "either shape, then a name": (lambda: shapes(f(2, 4), f(3)), r"b: n is 3; expected 2 \(as in a\)"),
    "keywords of Python": (lambda: keywords(f(2, 3), f(2)), r"b: in is 2; expected 3 \(as in a\)"),
    "a named number": (lambda: named(f(3, 2)), r"a: axis 0 is 3; expected 4 \(as annotated\)"),
    "no half": (lambda: doubled(f(5)), r"a: 2\*n is 5, which it is for no whole n"),
    "numbers": (lambda: fixed([1, 2]), r"a is a list; expected Float\[Tensor, \"batch 3\"\]\nhint: torch.tensor makes one of numbers"),
    "static": (lambda: Static.under(f(2)), r"Static.under: a: axis 0 is 2; expected 3"),
    "static, the other order": (lambda: Static.over(f(2)), r"Static.over: a: axis 0 is 2; expected 3"),
    "class method": (lambda: Static.of_class(f(2)), r"Static.of_class: a: axis 0 is 2"),
    "its own class": (lambda: Static().of_its_own_class(3, f(3)), r"other is an int; expected"),
    "shared names": (lambda: names(f(2, 3), f(2, 3)), r"names: b: time is 2; expected 3 \(as in a\)"),
    "fixed": (lambda: fixed(f(3, 9)), r"a: axis 1 is 9; expected 3 \(as annotated\)[\s\S]*transpose\(0, 1\) would fit"),
    "rank": (lambda: fixed(f(3)), r"a has 1 axis \(3\); expected 2: \(batch, 3\)[\s\S]*batch axis is missing"),
    "extra axis of 1": (lambda: fixed(f(2, 1, 3)), r"a has 3 axes[\s\S]*extra axis of 1: squeeze\(1\) would fit"),
    "least rank": (lambda: anything(f(9)), r"a has 1 axis \(9\); expected at least 2: \(_, 3, ...\)"),
    "leading axes": (lambda: leading(f(2, 3, 4), f(3, 2)), r"b: lead is \(3, 2\); expected \(2, 3\) \(as in a\)"),
    "broadcast": (lambda: broadcast(f(5, 2, 4), f(3, 4)), r"b: lead is \(3,\); expected what broadcasts with \(5, 2\) \(as in a\)"),
    "one or n": (lambda: one_or_n(f(4), f(2)), r"b: n is 2; expected 1 or 4 \(as in a\)"),
    "expression": (lambda: expression(f(4), f(4)), r"a: n-1 is 4; expected 3 \(n=4 as in b\)"),
    "second expression": (lambda: expression(f(3), f(4), f(8)), r"c: 2\*n\+1 is 8; expected 9 \(n=4 as in b\)"),
    "argument": (lambda: argument(f(2, 4)), r"a: width is 4; expected 3 \(the argument width\)"),
    "optional": (lambda: optional(f(2), f(3, dtype=torch.int32)), r"b: batch is 3; expected 2 \(as in a\)"),
    "kind": (lambda: optional("text"), r"a is a str; expected Float\[Tensor, \"batch\"\] or None"),
    "list": (lambda: fixed([f(3), f(3)]), r"a is a list; expected Float\[Tensor, \"batch 3\"\]\nhint: torch.stack"),
    "dtype": (lambda: fixed(f(2, 3, dtype=torch.int64)), r"a is int64; expected Float"),
    "precise dtype": (lambda: only_float32(f(2).double()), r"a is float64; expected Float32"),
    "either": (lambda: either(f(2, dtype=torch.bool)), r"a is bool; expected Int"),
    "nested": (lambda: nested((f(4, 2), (f(4, dtype=torch.int64), f(3, dtype=torch.bool)))), r"a\[1\]\[1\]: batch is 3; expected 4 \(as in a\[0\]\)"),
    "tuple of another length": (lambda: nested((f(4, 2),)), r"a is a tuple of 1; expected \(Float"),
    "plain": (lambda: plain(f(2), 1.5), r"mode is a float; expected int or str"),
    "bound": (lambda: bounded(f(0)), r"a: n is 0; bounded needs at least 2 n"),
    "divisor": (lambda: bounded(f(6)), r"a: n is 6; bounded needs a multiple of 4$"),
    "bound by an argument": (lambda: bounded(f(4), None, 5), r"least is 5; bounded needs at most 4 n"),
    "results": (lambda: result(f(2, 3), "swapped"), r"the result\[0\]: batch is 3; expected 2 \(as in a\)"),
    "kind of result": (lambda: result(f(2, 3), "no tuple"), r"the result is a Tensor; expected \(Float"),
}  # fmt: skip


@pytest.mark.parametrize("call", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_fits_passes(call):
    call()


@pytest.mark.parametrize(("call", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(call, text):
    with pytest.raises(ShapeContractError, match=text):
        call()


@pytest.mark.parametrize(("ids", "text"), [([0, 9], r"ids\[1\] is 9; bounded needs less than 8 n"), ([3, 4, -1], r"ids\[2\] is -1; bounded needs at least 0")])  # fmt: skip
def test_a_value_in_a_tensor_is_named_by_its_position(ids, text):
    with pytest.raises(ValueError, match=text) as caught:
        bounded(f(8), torch.tensor(ids))
    assert not isinstance(caught.value, ShapeContractError)


def test_a_value_in_a_table_is_named_by_both_positions():
    with pytest.raises(ValueError, match=r"ids\[1, 0\] is 5; table needs less than 3 n"):
        table(f(3), torch.tensor([[0, 1], [5, 2]]))


def test_options_that_could_never_apply_are_refused_when_decorating():
    with pytest.raises(ValueError, match=r"'out <= 5': out is none of n, x"):

        @contract(where=("out <= 5",))
        def only_in_the_result(x: Float[Tensor, "n"]) -> Float[Tensor, "out"]: ...

    with pytest.raises(ValueError, match=r"dtype_of \('weight'\) is a path from `self`"):

        @contract(dtype_of="weight")
        def function(x: Float[Tensor, "n"]) -> None: ...


def test_a_name_that_is_nowhere_is_not_checked_and_the_others_are():
    @contract
    def function(x: "Nowhere", y: Float[Tensor, "3"]) -> "list[Nowhere]":
        return [x]

    assert function(5, f(3)) == [5]
    with pytest.raises(ShapeContractError, match="y: axis 0 is 2; expected 3"):
        function(5, f(2))


def test_python_itself_refuses_what_is_no_call():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'b'"):
        names(f(2, 3))
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        fixed(f(2, 3), f(2, 3))
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        fixed(f(2, 3), c=1)


def test_the_function_stays_itself():
    assert fixed.__name__ == "fixed"
    assert list(inspect.signature(names).parameters) == ["a", "b"]
    assert names(f(2, 3), f(3, 2)).shape == (2, 2)


class Block(nn.Module):
    def __init__(self, width: int, limit: int | None = None):
        super().__init__()
        self.width, self.limit = width, limit
        self.linear = nn.Linear(width, 2 * width)

    @contract(where=("time <= {self.limit}",), dtype_of="linear.weight")
    def forward(self, x: Float[Tensor, "batch time {self.width}"]) -> Float[Tensor, "batch time 2*{self.width}"]:
        return self.linear(x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(4, limit=6), Block(8)])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_sizes_of_the_instance_are_read_at_each_call():
    block = Block(4)
    block(f(2, 99, 4))
    with pytest.raises(ShapeContractError, match=r"x: width is 3; expected 4 \(self.width\)"):
        block(f(2, 3, 3))
    block.width, block.linear = 3, nn.Linear(3, 6)
    block(f(2, 3, 3))
    block.limit = 2
    with pytest.raises(ShapeContractError, match=r"x: time is 3; this block needs at most 2 time"):
        block(f(2, 3, 3))


def test_the_place_in_the_tree_is_named():
    model = Model()
    model(f(2, 6, 4))
    with pytest.raises(
        ShapeContractError, match=r"^blocks.0 in Model: Block.forward: x: time is 7; this block needs at most 6"
    ):
        model(f(2, 7, 4))


def test_programs_read_the_error_too():
    with pytest.raises(ShapeContractError) as caught:
        Model()(f(2, 3, 5))
    error = caught.value
    assert (error.argument, error.axis, error.expected, error.actual) == ("x", "{self.width}", 4, 5)
    assert error.bindings == {"batch": 2, "time": 3}
    assert error.module_path == "blocks.0 in Model"
    assert error.hint is None
    assert isinstance(error, TypeError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_whole_message():
    with pytest.raises(ShapeContractError) as caught:
        Model()(f(2, 4, 3))
    assert str(caught.value) == (
        "blocks.0 in Model: Block.forward: x: width is 3; expected 4 (self.width)\n"
        "  axis   expected  came\n"
        "  batch  any       2\n"
        "  time   any       4\n"
        "  width  4         3     <- self.width\n"
        "hint: perhaps the axes are in another order: transpose(1, 2) would fit"
    )


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((2, 8, 7), r"transpose\(1, 2\) would fit"),
        ((7, 8), r"batch axis is missing"),
        ((2, 7, 8, 1), r"extra axis of 1: squeeze\(-1\)"),
        ((2, 1, 7, 8), r"extra axis of 1: squeeze\(1\)"),
    ],
)
def test_the_likely_cause_is_hinted_at(shape, hint):
    with pytest.raises(ShapeContractError, match=f"hint: .*{hint}"):
        Block(8)(f(*shape))


def test_two_axes_in_one_are_hinted_at():
    @contract
    def known(a: Float[Tensor, "batch time"], b: Float[Tensor, "batch time 3"]) -> None: ...

    with pytest.raises(ShapeContractError, match=r"hint: perhaps two axes were flattened into one: 10 = 2 x 5"):
        known(f(2, 5), f(10, 3))


def test_floating_arguments_have_the_dtype_of_the_weights_unless_autocast_is_on():
    block = Block(4)
    with pytest.raises(ShapeContractError, match=r"x is float64; expected float32 \(the dtype of linear.weight\)"):
        block(f(2, 3, 4).double())
    block.double()(f(2, 3, 4).double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block.float()(f(2, 3, 4).bfloat16())


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (("n",), r"'n' is no condition"),
        (("n != 3",), r"'n != 3' is no condition: it must compare sizes by <=, <, >=, > or =="),
        (("n >=",), r"'n >=' is no condition: it must compare"),
        (("n = 3",), r"'n = 3' is no condition: it must compare sizes by <=, <, >=, > or ==$"),
        (("n > 1 and n < 9",), r"or ==; where both must hold, they are two conditions"),
        (("n > len(x)",), r"may only hold ints, names, names in braces"),
        (("n ** 2 > 1",), r"may only hold ints"),
        (("2 > 1",), r"bounds nothing"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused_when_decorating(where, text):
    with pytest.raises(ValueError, match=text):

        @contract(where=where)
        def function(a: Float[Tensor, "n"]) -> None: ...


@pytest.mark.parametrize("where", [3, ("n > 2", 3)])
def test_a_condition_that_is_no_text_is_refused_when_decorating(where):
    with pytest.raises(TypeError, match=r"contract: where is 3; expected a text such as 'words >= 2', or several"):
        contract(where=where)


def test_a_function_without_an_instance_has_no_place_in_a_tree():
    with pytest.raises(ShapeContractError) as caught:
        plain(f(2, 3))
    assert caught.value.module_path == ""


def test_an_axis_that_is_code_is_refused_when_decorating():
    with pytest.raises(ValueError, match="may only hold ints, names"):

        @contract
        def function(a: Float[Tensor, "len(n)"]) -> None: ...


def test_under_vmap_and_functional_grad():
    block = Block(4)
    rows = torch.randn(5, 2, 3, 4)
    mapped = torch.func.vmap(block)(rows)
    torch.testing.assert_close(mapped[1], block(rows[1]))
    slope = torch.func.grad(lambda x: block(x).sum())(rows[0])
    assert slope.shape == rows[0].shape
    torch.func.vmap(lambda a, ids: (bounded(a, ids), a)[1])(f(3, 8), torch.tensor([[9], [1], [2]]))


def test_a_compiled_module_accepts_what_fits_and_refuses_what_does_not():
    block = torch.compile(Block(4, limit=6), backend="eager", fullgraph=True)
    assert block(f(2, 3, 4)).shape == (2, 3, 8)
    assert block(f(2, 5, 4)).shape == (2, 5, 8)
    torch._dynamo.reset()
    with pytest.raises(ShapeContractError, match=r"time is 7"):
        torch.compile(Block(4, limit=6), backend="eager")(f(2, 7, 4))


@pytest.mark.parametrize("kind", [Iterable, Collection])
def test_a_union_with_an_iterable_makes_no_tensor_of_each_row(kind: Any, monkeypatch: pytest.MonkeyPatch):
    real, rows = torch.Tensor.unbind, list[int]()

    def unbind(self: Tensor, dim: int = 0) -> Any:
        rows.append(self.shape[0] if self.dim() else 0)
        return real(self, dim)

    def function(x: Float[Tensor, "n 6"] | kind[str], y: kind[Tensor] | None = None) -> None:
        pass

    checked = contract(function)
    monkeypatch.setattr(torch.Tensor, "unbind", unbind)
    checked(torch.zeros(50, 6), torch.zeros(50, 3))
    checked(torch.zeros(0, 6), torch.zeros(0))
    checked(["a", "b"])
    for wrong in (torch.zeros(50, 5), torch.zeros(50), torch.zeros(()), [1]):
        with pytest.raises(TypeError, match="x"):
            checked(wrong)
    assert max(rows) <= 1
