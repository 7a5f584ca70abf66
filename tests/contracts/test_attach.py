"""Contracts for modules of others, by forward hooks."""

import copy
import pickle
import traceback

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from towers.contracts import ShapeContractError, attach, checks


def f(*shape):
    return torch.zeros(shape)


def lstm_contract(
    self: nn.LSTM, input: Float[Tensor, "batch time {self.input_size}"], hx: object = None
) -> tuple[Float[Tensor, "batch time {self.hidden_size}"], object]: ...


def forward_only(input: Float[Tensor, "batch 8"]): ...


def only_input(input: Float[Tensor, "batch time {self.input_size}"]): ...


def lstm() -> nn.LSTM:
    return nn.LSTM(8, 6, batch_first=True)


def test_a_text_is_a_contract_for_tensors():
    module = nn.Linear(8, 6)
    attach(module, "batch time {self.in_features} -> batch time {self.out_features}")
    module(f(2, 3, 8))
    module(input=f(2, 3, 8))
    with pytest.raises(
        ShapeContractError, match=r"^Linear.forward: input: in_features is 7; expected 8 \(self.in_features\)"
    ):
        module(f(2, 3, 7))
    with pytest.raises(ShapeContractError, match=r"input has 2 axes"):
        module(input=f(2, 8))


def test_a_text_can_speak_of_several_tensors_and_of_tuples():
    module = nn.Bilinear(3, 4, 5)
    attach(module, "batch 3, batch 4 -> batch 5")
    module(f(2, 3), f(2, 4))
    with pytest.raises(ShapeContractError, match=r"Bilinear.forward: input2: batch is 1; expected 2 \(as in input1\)"):
        module(f(2, 3), f(1, 4))
    recurrent = lstm()
    attach(recurrent, "batch time 8 -> batch time 6, (1 batch 6, 1 batch 6)")
    recurrent(f(2, 3, 8))
    other = lstm()
    attach(other, "batch time 8 -> batch time 6, (1 batch 6, 1 batch 7)")
    with pytest.raises(ShapeContractError, match=r"the result\[1\]\[1\]: axis 2 is 6; expected 7"):
        other(f(2, 3, 8))


def test_a_text_can_speak_of_dtypes():
    module = nn.Embedding(10, 3)
    attach(module, "Int batch words -> Float32 batch words 3")
    module(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ShapeContractError, match=r"Embedding.forward: input is float32; expected Int\nhint: .long()"):
        module(f(2, 5))
    module.double()
    with pytest.raises(ShapeContractError, match=r"the result is float64; expected Float32"):
        module(torch.zeros(2, 5, dtype=torch.int64))
    key = nn.Bilinear(3, 4, 5)
    attach(key, "key 3, key 4 -> key 5")  # a name that an axis may have
    key(f(2, 3), f(2, 4))


def test_a_signature_is_a_contract():
    module = lstm()
    attach(module, lstm_contract)
    module(f(2, 3, 8), (f(1, 2, 6), f(1, 2, 6)))
    with pytest.raises(ShapeContractError, match=r"LSTM.forward: input: input_size is 7; expected 8"):
        module(f(2, 3, 7))
    linear = nn.Linear(8, 6)
    attach(linear, forward_only)
    with pytest.raises(ShapeContractError, match=r"Linear.forward: input: axis 1 is 7; expected 8"):
        linear(f(2, 7))


def test_conditions_and_the_dtype_of_a_parameter():
    module = nn.Linear(8, 6)
    attach(module, forward_only, where="batch <= 4", dtype_of="weight")
    with pytest.raises(ShapeContractError, match=r"batch is 5; this linear needs at most 4"):
        module(f(5, 8))
    with pytest.raises(ShapeContractError, match=r"input is float64; expected float32 \(the dtype of weight\)"):
        module(f(2, 8).double())


def test_it_can_be_removed():
    module = nn.Linear(8, 6)
    attached = attach(module, "batch 7 -> batch 6")
    with pytest.raises(ShapeContractError):
        module(f(2, 8))
    attached.remove()
    module(f(2, 8))
    with attach(module, "batch 7 -> batch 6"), pytest.raises(ShapeContractError):
        module(f(2, 8))
    module(f(2, 8))


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize(
    "contract", ["batch time {self.input_size} -> batch time 6, _", lstm_contract], ids=["text", "signature"]
)
def test_copies_keep_it(twin, contract):
    module = lstm()
    attached = attach(
        module, contract if callable(contract) else "batch time {self.input_size} -> batch time 6, (_ _ _, _ _ _)"
    )
    other = twin(module)
    other.input_size = 9  # sizes are those of the copy
    with pytest.raises(ShapeContractError, match="input_size is 8; expected 9"):
        other(f(2, 3, 8))
    attached.remove()
    with pytest.raises(ShapeContractError):
        other(f(2, 3, 8))


def test_the_place_in_the_tree_is_named_and_only_the_generated_check_is_seen():
    model = nn.Sequential(nn.ReLU(), nn.Linear(8, 6))
    attach(model[1], "batch 8 -> batch 6")
    with pytest.raises(ShapeContractError, match=r"^1 in Sequential: Linear.forward: input: axis 1 is 7") as caught:
        model(f(2, 7))
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not [
        file
        for file in files
        if "towers" in file.replace("/torch/", "") and "contract of" not in file and "test_" not in file
    ]
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_modes_hold_for_it():
    module = nn.Linear(8, 6)
    attach(module, "batch 7 -> batch 6")
    with checks("off"):
        module(f(2, 8))
        attach(nn.Linear(8, 6), "batch 7 -> batch 6")
    with checks("off", module):
        module(f(2, 8))
    with pytest.raises(ShapeContractError):
        module(f(2, 8))


def test_under_compile_and_export():
    module = nn.Linear(8, 6)
    attach(module, "batch {self.in_features} -> batch 6")
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert compiled(f(2, 8)).shape == (2, 6)
    with pytest.raises(Exception, match="in_features is 7; expected 8"):
        torch.compile(module, backend="eager")(f(2, 7))
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (f(3, 8),), dynamic_shapes=({0: batch},))
    assert program.module()(f(5, 8)).shape == (5, 6)


def another_name(input: Float[Tensor, "batch time width"], hidden: object = None): ...


def another_keyword(input: Float[Tensor, "batch time width"], *, state: object = None): ...


def one_too_many(input: Float[Tensor, "*sizes"], other: object, /): ...


def test_a_stub_may_leave_out_what_it_does_not_speak_of():
    module = lstm()
    attach(module, only_input)
    states = (f(1, 2, 6), f(1, 2, 6))
    module(f(2, 3, 8), states)
    module(f(2, 3, 8), hx=states)
    with pytest.raises(ShapeContractError, match="input_size is 7; expected 8"):
        module(f(2, 3, 7), states)


def test_parameters_of_any_name_are_those_of_a_forward_that_takes_any():
    class Open(nn.Module):
        def forward(self, *inputs, **options):
            return inputs[0]

    module = Open()
    attach(module, "batch 3, batch -> batch 3")
    with pytest.raises(ShapeContractError, match="input_1: batch is 4; expected 2"):
        module(f(2, 3), f(4))
    attach(module, another_keyword)


def test_what_is_no_call_is_refused_in_the_name_of_forward():
    module = nn.Linear(8, 6)
    attach(module, "batch 8 -> batch 6")
    with pytest.raises(TypeError, match=r"^Linear.forward\(\) missing 1 required positional argument: 'input'"):
        module()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: attach(f, "a -> b"), TypeError, r"attach: module is a function; expected an nn.Module"),
        (lambda: attach(lstm(), 3), TypeError, r"attach: contract is a int; expected a text or a function"),
        (lambda: attach(lstm(), "a b"), ValueError, r"'a b' is no contract: it must read \"axes, axes -> axes\""),
        (lambda: attach(lstm(), "a -> (b, c"), ValueError, r"a parenthesis is not closed, or not opened"),
        (lambda: attach(lstm(), "a) -> b"), ValueError, r"a parenthesis is not closed, or not opened"),
        (lambda: attach(lstm(), "len(a) -> b"), ValueError, r"may only hold"),
        (
            lambda: attach(lstm(), "int64 a b -> c"),
            ValueError,
            r"'int64 a b -> c' is no contract: 'int64' cannot be an axis; one name .*, such as \"Int64 a b\"",
        ),
        (lambda: attach(lstm(), "a Int -> c"), ValueError, r"'Int' cannot be an axis; .*, such as \"Int a\""),
        (lambda: attach(lstm(), "a -> Int Bool c"), ValueError, r"'Bool' cannot be an axis; .*such as \"Bool c\""),
        (lambda: attach(lstm(), "a -> b", where=3), TypeError, r"attach: where is 3; expected a text"),
        (
            lambda: attach(nn.Linear(8, 6), "batch 8, batch -> batch 6"),
            ValueError,
            r"the contract's input_1 stands where Linear.forward has no such parameter; its parameters are input$",
        ),
        (lambda: attach(lstm(), another_name), ValueError, r"the contract's hidden stands where LSTM.forward has no"),
        (lambda: attach(lstm(), another_keyword), ValueError, r"the contract's state stands where LSTM.forward has no"),
        (lambda: attach(nn.ReLU(), one_too_many), ValueError, r"the contract's other stands where ReLU.forward has no"),
    ],
)
def test_what_cannot_be_attached_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()
