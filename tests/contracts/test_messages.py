"""What is said when something does not fit: whole messages, every hint, what programs can read, what nobody sees."""

import copy
import pickle
import traceback
from typing import Any, Literal, TypedDict, Unpack

import pytest
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from towers import PhraseConv, Ragged, RaggedLSTM, Tower
from towers.contracts import ShapeContractError, contract, hints
from towers.contracts.hints import TABLE, Hint, register_hints


def f(*shape, **options):
    return torch.zeros(shape, **options)


class Layer(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.width, self.weight = width, nn.Parameter(f(width))

    @contract(where=("time >= 2", "time % stride == 0"), dtype_of="weight")
    def forward(
        self, x: Float[Tensor, "batch time {self.width}"], lengths: Int[Tensor, "batch"] | None = None, stride: int = 1
    ) -> Float[Tensor, "batch time {self.width}"]:
        return x + self.weight if stride < 9 else x[:-1]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])

    def forward(self, x, lengths=None, stride=1):
        return self.layers[1](x, lengths, stride)


@contract
def attend(
    query: Float[Tensor, "batch heads time width"],
    key: Float[Tensor, "batch heads source width"],
    mask: Bool[Tensor, "time source"] | None = None,
) -> Float[Tensor, "batch heads time source"]:
    return query @ key.transpose(-1, -2)  # fmt: skip


@contract
def image(pixels: Float[Tensor, "batch 3 height width"]) -> None: ...


@contract
def rows(pixels: Float[Tensor, "batch height width 3"]) -> None: ...


@contract
def scaled(x: Float[Tensor, "batch time width"], scale: Float[Tensor, "width 1"]) -> None: ...


@contract
def flattened(x: Float[Tensor, "batch time 8"], y: Float[Tensor, "batch time 4"]) -> None: ...


@contract
def time_of(lengths: Int[Tensor, "batch"], x: Float[Tensor, "batch time 8"]) -> None: ...


@contract
def counted(k: int | None) -> None: ...


@contract
def exact(x: Float64[Tensor, "n"], y: Int[Tensor, "n"] | None = None) -> None: ...


@contract
def lagged(x: Float[Tensor, "batch words 8"], y: Float[Tensor, "batch words-1"]) -> None: ...


@contract
def halved(x: Float[Tensor, "2*n"], y: Float[Tensor, "n*{k}"], k: int = 2) -> None: ...


@contract
def sized_by(size: int, x: Float[Tensor, "{size}"]) -> None: ...


@contract
def single(x: Float[Tensor, ""]) -> None: ...


@contract
def wide(x: Float[Tensor, "n"], y: Float[Tensor, "#n"]) -> None: ...


@contract
def either(x: Float[Tensor, "batch time width"] | Float[Tensor, "batch width"]) -> None: ...


@contract(where="0 <= p < 1")
def dropped(x: Float[Tensor, "n"], p: float = 0.5) -> None: ...


class Named(TypedDict, total=False):
    y: Float[Tensor, "n"]


@contract
def unpacked(*xs: *tuple[Float[Tensor, "n"], Float[Tensor, "n"]], **named: Unpack[Named]) -> None: ...


def text_of(call) -> str:
    with pytest.raises(ShapeContractError) as caught:
        call()
    return str(caught.value)


WHOLE = {
    "a size of the instance, in a tree": (
        lambda: Model()(f(2, 4, 7)),
        "layers.1 in Model: Layer.forward: x: width is 7; expected 8 (self.width)\n"
        "  axis   expected  came\n"
        "  batch  any       2\n"
        "  time   any       4\n"
        "  width  8         7     <- self.width",
    ),
    "who bound what": (
        lambda: attend(f(2, 3, 4, 5), f(2, 3, 7, 6)),
        "attend: key: width is 6; expected 5 (as in query)\n"
        "  axis    expected  came\n"
        "  batch   2         2     as in query\n"
        "  heads   3         3     as in query\n"
        "  source  any       7\n"
        "  width   5         6     <- as in query",
    ),
    "the result": (
        lambda: Model()(f(9, 9, 8), None, 9),
        "layers.1 in Model: Layer.forward: the result: batch is 8; expected 9 (as in x)\n"
        "  axis   expected  came\n"
        "  batch  9         8     <- as in x\n"
        "  time   9         9     as in x\n"
        "  width  8         8     self.width",
    ),
    "rank": (lambda: attend(f(2, 3), f(2)), "attend: query has 2 axes (2, 3); expected 4: (batch, heads, time, width)"),
    "a bound": (lambda: Layer()(f(2, 1, 8)), "Layer.forward: x: time is 1; this layer needs at least 2 time"),
    "a multiple": (
        lambda: Model()(f(2, 7, 8), None, 3),
        "layers.1 in Model: Layer.forward: x: time is 7; this layer needs a multiple of 3 (stride)",
    ),
    "the dtype of a parameter": (
        lambda: Layer()(f(2, 4, 8, dtype=torch.float16)),
        "Layer.forward: x is float16; expected float32 (the dtype of weight)\n"
        "hint: convert the input, .to(torch.float32), or the module, .to(torch.float16)",
    ),
    "a kind": (
        lambda: Layer()("text"),
        'Layer.forward: x is a str; expected Float[Tensor, "batch time {self.width}"]',
    ),
    "nothing": (
        lambda: Layer()(None),
        'Layer.forward: x is None; expected Float[Tensor, "batch time {self.width}"]\n'
        "hint: perhaps the annotation lacks `| None`",
    ),
    "numpy's": (
        lambda: Layer()(f(2).numpy()),
        'Layer.forward: x is an ndarray; expected Float[Tensor, "batch time {self.width}"]\n'
        "hint: torch.as_tensor makes one of numpy's",
    ),
    "a ragged batch where a tensor was wanted": (
        lambda: image(Ragged(f(3, 2), torch.tensor([0, 3]))),
        'image: pixels is a Ragged; expected Float[Tensor, "batch 3 height width"]',
    ),
}


@pytest.mark.parametrize(("call", "text"), WHOLE.values(), ids=WHOLE.keys())
def test_a_whole_message(call, text):
    assert text_of(call) == text


READ = {
    "an expression": (lambda: lagged(f(2, 5, 8), f(2, 5)), "y: words-1 is 5; expected 4 (words=5 as in x)"),
    "a name that was worked out": (
        lambda: halved(f(6), f(4)),
        "y: n*k is 4; expected 6 (n=3 worked out from x, k=2)",
    ),
    "an argument": (lambda: sized_by(3, f(2)), "x: size is 2; expected 3 (the argument size)"),
    "a number has no name": (lambda: image(f(2, 4, 5, 5)), "pixels: axis 1 is 4; expected 3 (as annotated)"),
    "a single number": (lambda: single(f(2)), "x has 1 axis (2); expected none, a single number"),
    "what broadcasts": (lambda: wide(f(3), f(2)), "y: n is 2; expected 1 or 3 (as in x)"),
    "one of several ranks": (
        lambda: either(f(3)),
        'x has 1 axis (3); expected 3: (batch, time, width); it may also be Float[Tensor, "batch width"]',
    ),
    "not too many words": (lambda: either("x"), 'x is a str; expected Float[Tensor, "batch time width"] or Float'),
    "a condition on a float": (lambda: dropped(f(2), 1.5), "dropped: p is 1.5; dropped needs less than 1"),
    "*args of a tuple": (lambda: unpacked(f(2), f(3)), "xs[1]: n is 3; expected 2 (as in xs[0])"),
    "too few *args": (lambda: unpacked(f(2)), "xs is a tuple of 1; expected (Float"),
    "**kwargs of a TypedDict": (lambda: unpacked(f(2), f(2), y=f(3)), "named['y']: n is 3; expected 2"),
}


@pytest.mark.parametrize(("call", "text"), READ.values(), ids=READ.keys())
def test_a_message_reads_well(call, text):
    assert text in text_of(call).splitlines()[0]


HINTS = {
    "extra axis of 1": (
        lambda: Layer()(f(2, 4, 8, 1)),
        "there is an extra axis of 1: squeeze(-1) would fit",
    ),
    "missing batch axis": (lambda: Layer()(f(4, 8)), "the batch axis is missing: unsqueeze(0) would fit"),
    "missing axis of 1": (
        lambda: scaled(f(2, 4, 8), f(8)),
        "perhaps an axis of 1 is missing: unsqueeze(-1) would fit",
    ),
    "sequence first": (
        lambda: time_of(torch.zeros(2, dtype=torch.int64), f(4, 2, 8)),
        "perhaps the sequence comes first, the batch second (as of a module without batch_first=True): "
        "transpose(0, 1) would fit",
    ),
    "axes in another order": (
        lambda: Layer()(f(2, 8, 4)),
        "perhaps the axes are in another order: transpose(1, 2) would fit",
    ),
    "two axes flattened": (
        lambda: flattened(f(2, 5, 8), f(10, 4)),
        "perhaps two axes were flattened into one: 10 = 2 x 5",
    ),
    "another dtype than a parameter": (
        lambda: Layer()(f(2, 4, 8).double()),
        "convert the input, .to(torch.float32), or the module, .to(torch.float64)",
    ),
    "wrong dtype": (lambda: exact(f(2)), ".to(torch.float64) converts it"),
    "a list of tensors": (
        lambda: Layer()([f(4, 8), f(4, 8)]),
        "torch.stack joins tensors of one shape",
    ),
    "several results": (
        lambda: Layer()((f(2, 4, 8), None)),
        "perhaps its item 0 is meant, as of a module that gives several things (nn.LSTM)",
    ),
    "a numpy array": (lambda: Layer()(f(2, 4, 8).numpy()), "torch.as_tensor makes one of numpy's"),
    "an integer of another kind": (lambda: counted(torch.tensor(3)), "int(…) makes one of it"),
    "None": (lambda: Layer()(None), "perhaps the annotation lacks `| None`"),
    "a list of numbers": (lambda: Layer()([1.0, 2.0]), "torch.tensor makes one of numbers"),
    "nested, but not jagged": (
        lambda: Layer()(nested()),
        "torch.nested.nested_tensor(…, layout=torch.jagged)",
    ),
    "another device": (
        lambda: Layer()(f(2, 4, 7, device="meta")),
        "it is on meta, weight on cpu: perhaps a .to(…) is missing",
    ),
}


def nested():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([f(3, 8), f(2, 8)])


def quantized(*shape):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch._empty_affine_quantized(shape, scale=1.0, zero_point=0, dtype=torch.qint8)


@pytest.mark.parametrize("hint", TABLE, ids=lambda hint: hint.name)
def test_every_hint_of_the_table_is_given(hint):
    call, text = HINTS[hint.name]
    assert text_of(call).endswith(f"\nhint: {text}")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: scaled(f(2, 3, 4) + 1j, f(4, 1)), "hint: .real or .abs() converts it"),
        (lambda: scaled(quantized(2, 3, 4), f(4, 1)), "hint: .dequantize() converts it"),
        (lambda: image(f(2, 32, 32, 3)), "movedim(-1, 1) would fit"),
        (lambda: image(f(2, 32, 3, 30)), "transpose(1, 2) would fit"),
        (lambda: rows(f(2, 3, 30, 40)), "movedim(1, -1) would fit"),
        (lambda: Layer()(f(2, 1, 4, 8)), "there is an extra axis of 1: squeeze(1) would fit"),
        (lambda: exact(f(2).double(), f(2)), ".long() converts it"),
        (lambda: attend(f(2, 3, 4, 5), f(2, 3, 7, 5), f(4, 7)), ".bool() converts it"),
        (lambda: Layer()(torch.zeros(2, 4, 8, dtype=torch.int64)), ".float() converts it"),
    ],
)
def test_a_hint_says_what_would_fit(call, text):
    assert text in text_of(call).splitlines()[-1]


def test_a_package_has_hints_of_its_own_which_no_other_package_gets():
    assert "hint" not in text_of(lambda: Layer()(f(2, 4, 32)))
    assert text_of(lambda: RaggedLSTM(8, 6)(f(2, 4, 32))).endswith("not pooled yet: 32 = 8 x 4")
    keras = "there is an extra axis of 1 (Keras data carries such a trailing axis): squeeze(-1) would fit"
    assert text_of(lambda: Tower()(f(2, 4, 300, 1))).endswith(keras)
    assert text_of(lambda: PhraseConv()([f(2, 300), f(3, 300)])).endswith("Ragged.from_list those of different lengths")


def test_hints_can_be_registered(monkeypatch):
    monkeypatch.setattr(hints, "_OF_PACKAGES", {})
    package = exact.__contract__.package.partition(".")[0]
    register_hints(package, [Hint("all", lambda case: {"kind": case.kind}, "use {kind}")])
    assert text_of(lambda: exact(f(2))).endswith("hint: use Float64")


def test_at_most_one_hint_and_none_where_nothing_is_likely():
    assert "hint" not in text_of(lambda: Layer()(f(2, 4, 7)))
    assert text_of(lambda: Layer()(f(8, 8, 4))).count("hint") == 1


def test_programs_can_read_what_was_said():
    with pytest.raises(ShapeContractError) as caught:
        Model()(f(2, 8, 4), torch.zeros(2, dtype=torch.int64))
    error = caught.value
    assert (error.argument, error.axis, error.expected, error.actual) == ("x", "{self.width}", 8, 4)
    assert (error.bindings, error.module_path) == ({"batch": 2, "time": 8, }, "layers.1 in Model")  # fmt: skip
    assert error.hint == "perhaps the axes are in another order: transpose(1, 2) would fit"
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (str(twin), vars(twin)) == (str(error), vars(error))
    assert ShapeContractError("one text").axis is None


class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} ran")


@pytest.mark.parametrize("wrong", [f(2, 4, 7), f(2, 4), f(2, 4, 8).double(), f(2, 1, 8), [f(2)]], ids=str)
def test_no_tensor_is_read_and_nobody_sees_how_the_words_were_found(wrong):
    layer = Layer()
    with Watch(), pytest.raises(ShapeContractError) as caught:
        layer(wrong)
    error = caught.value
    assert error.__cause__ is error.__context__ is None
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    ours = [file for file in files if "contracts" in file and file != __file__ and not file.startswith("<contract of ")]
    assert ours == []
    assert [file for file in files if file.startswith("<contract of ")] == files[-1:]
    assert not [file for file in files if "jaxtyping" in file or "beartype" in file]
    assert "raise _refused(" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (f(2, 4, 7), "layer.forward: x: width is 7; expected 8 (self.width)"),
        (f(2, 4), "x has 2 axes (2, 4); expected 3: (batch, time, width=8)"),
        (f(2, 4, 8).double(), "x is float64; expected float32 (the dtype of weight)"),
        (f(2, 1, 8), "x: time is 1; this layer needs at least 2 time"),
        ([1.0], "torch.tensor makes one of numbers"),
    ],
    ids=str,
)
@pytest.mark.parametrize("whole", [False, True], ids=["with graph breaks", "fullgraph"])
def test_a_compiled_module_says_the_same(wrong, text, whole):
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"Layer\.forward") as caught:
        torch.compile(Layer(), backend="eager", fullgraph=whole)(wrong)
    assert text.removeprefix("layer.forward: ") in str(caught.value)
    assert isinstance(caught.value, ShapeContractError) is not whole


@contract
def halves(x: Float[Tensor, "*more time 3"], y: Float[Tensor, "*more time-1"], z: Float[Tensor, "2*n"]) -> None: ...


@pytest.mark.parametrize(
    ("checked", "arguments", "text"),
    [
        (halves, (f(2, 5, 4), f(2, 4), f(4)), "x: axis 2 is 4; expected 3 (as annotated)"),
        (halves, (f(2, 5, 3), f(2, 5), f(4)), "y: time-1 is 5; expected 4"),
        (halves, (f(2, 5, 3), f(3, 4), f(4)), "y: more is (3,); expected (2,) (as in x)"),
        (halves, (f(2, 5, 3), f(2, 4), f(5)), "z: 2*n is 5, which"),
        (attend, (f(2, 3, 4, 5), f(2, 3, 7)), "key has 3 axes (2, 3, 7); expected 4: (batch=2, heads=3, source"),
        (attend, (f(2, 3, 4, 5), f(2, 3, 5, 7)), "transpose(2, 3) would fit"),
        (Layer(), (f(2, 1, 8),), "this layer needs at least 2 time"),
        (Layer(), (f(2, 5, 8), None, 3), "this layer needs a multiple of 3 (stride)"),
    ],
)
def test_a_program_compiled_for_any_size_says_the_same(checked, arguments, text):
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported) as caught:
        torch.compile(checked, backend="eager", fullgraph=True, dynamic=True)(*arguments)
    assert text in str(caught.value)


def test_a_message_has_at_most_2000_characters():
    choices: Any = Literal[tuple(f"choice number {number}" for number in range(500))]  # type: ignore

    @contract
    def function(x: Float[Tensor, "n"] | None, a: choices, b: dict[str, Float[Tensor, "3"]]) -> None: ...

    for arguments in ((None, "none", {}), (None, "choice number 0", {"k" * 9000: f(4)})):
        with pytest.raises(ShapeContractError, match=r"^function: ") as caught:
            function(*arguments)
        assert len(str(caught.value)) == 2000
        assert str(caught.value).endswith("…")


class MadeOfWeights(nn.Module):
    @contract
    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, "out"]) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias


class MakesItFirst(nn.Module):
    def __init__(self) -> None:
        self.inner = MadeOfWeights(torch.zeros(2, 3), torch.zeros(3))
        super().__init__()


@pytest.mark.parametrize("make", [lambda: MadeOfWeights(torch.zeros(2, 3), torch.zeros(3)), MakesItFirst])
def test_a_module_that_is_not_yet_one_has_no_path(make):
    """Before nn.Module's own `__init__` has run, a module has no submodules that could be asked for."""
    with pytest.raises(ShapeContractError, match=r"^MadeOfWeights.__init__: bias: out is 3; expected 2"):
        make()
