"""The ways on the CPU: the same bits where that is promised, compiled, exported, checkpointed, and what they refuse."""

import copy

import pytest
import torch
import torch._dynamo.testing
from torch.export import Dim, export
from torch.utils.checkpoint import checkpoint

from towers import Ragged, RaggedLSTM
from towers.kernels import cpu

from ..helpers import reference

needs_compiler = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")
every_backend = pytest.mark.usefixtures("backend")


def layer(dtype=torch.float32, **options) -> RaggedLSTM:
    return reference.number_weights(RaggedLSTM(3, 5, **options, dtype=dtype))


def batch_of(lengths, words=None, dtype=torch.float32):
    return reference.pad(reference.sentences(lengths, 3, dtype), words)


def results(lstm, padded_input, lengths, hx=None):
    """Everything: output, h_n, c_n, and the gradients of input and parameters."""
    x = padded_input.detach().clone().requires_grad_()
    output, state = lstm(x, hx, lengths=lengths)
    total = sum((part * torch.linspace(0, 1, part.numel()).view(part.shape)).sum() for part in (output, *state))
    return [output, *state, *torch.autograd.grad(total, [x, *lstm.parameters()])]


MIXED = [3, 30, 1, 7, 7, 12, 2, 30, 5, 19, 4, 4, 9, 1, 26]


# Bit for bit.


@every_backend
def test_neither_padding_nor_what_it_holds_changes_a_bit():
    lstm = layer(num_layers=2, bidirectional=True)
    narrow, lengths = batch_of(MIXED)
    wide, _ = batch_of(MIXED, 41)
    with torch.no_grad():
        (one, ends), (two, other_ends) = lstm(narrow, lengths=lengths), lstm(wide, lengths=lengths)
    assert torch.equal(one, two[:, :30])
    assert not two[:, 30:].any()
    assert all(torch.equal(*pair) for pair in zip(ends, other_ends, strict=True))
    first, second = (results(lstm, x, lengths) for x in (narrow, narrow.nan_to_num(-3e8)))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@every_backend
def test_the_same_call_twice_and_on_other_threads_has_the_same_bits():
    lstm = RaggedLSTM(16, 64)
    x, lengths = torch.randn(200, 20, 16), torch.randint(1, 21, (200,))
    first = results(lstm, x, lengths)
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            assert all(torch.equal(*pair) for pair in zip(first, results(lstm, x, lengths), strict=True))
    finally:
        torch.set_num_threads(1)


@every_backend
def test_a_permutation_permutes_the_bits():
    lstm = layer()
    x, lengths = batch_of(MIXED)
    order = torch.randperm(len(MIXED), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (output, (h_n, c_n)), (moved, (h_m, c_m)) = (
            lstm(x, lengths=lengths), lstm(x[order], lengths=lengths[order])
        )  # fmt: skip
    assert torch.equal(output[order], moved)
    assert torch.equal(h_n[:, order], h_m)
    assert torch.equal(c_n[:, order], c_m)


# One operation for those who look in from outside.


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("outputs", [False, True])
def test_the_operation_keeps_torchs_rules(gradients, outputs):
    lstm = layer(num_layers=2, bidirectional=True)
    flat = [weight.detach().clone().requires_grad_(gradients) for weight in lstm._weights().flat]
    values, lengths = torch.randn(5, 9, 3, requires_grad=gradients), torch.tensor([3, 0, 9, 4, 4])
    states = [torch.zeros(4, 5, 5, requires_grad=gradients) for _ in range(2)]
    arguments = (values, None, lengths, 9, *states, flat, 2, False, 2, True, 0.0, None, outputs)
    if outputs:
        torch.library.opcheck(torch.ops.towers.ragged_lstm.default, arguments)
    else:  # c_n is not defined then
        torch.library.opcheck(
            torch.ops.towers.ragged_lstm.default, arguments, test_utils=("test_schema", "test_faketensor")
        )


def test_compiled_once_for_all_lengths_and_the_same():
    lstm = layer()
    counted = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(lstm, fullgraph=True, backend=counted)
    for count, words in ((4, 9), (7, 5), (3, 12)):
        lengths, x = torch.randint(1, words + 1, (count,)), torch.randn(count, words, 3, requires_grad=True)
        torch._dynamo.mark_dynamic(lengths, 0)
        for axis in (0, 1):
            torch._dynamo.mark_dynamic(x, axis)
        found, wanted = compiled(x, lengths=lengths)[0], lstm(x, lengths=lengths)[0]
        torch.testing.assert_close(found, wanted)
        gradients = [torch.autograd.grad(one.square().sum(), [x, *lstm.parameters()]) for one in (found, wanted)]
        torch.testing.assert_close(*gradients)
    assert counted.frame_count == 1


def test_jagged_and_ragged_in_a_compiled_function():
    lstm, rows = layer(), reference.sentences([3, 1, 4], 3, torch.float32)
    jagged = torch.nested.nested_tensor(rows, layout=torch.jagged)
    wanted = lstm(Ragged.from_list(rows))
    found, (h_n, _) = torch.compile(lstm, backend="aot_eager")(jagged)
    torch.testing.assert_close(found.values(), wanted[0].values)
    torch.testing.assert_close(h_n, wanted[1][0])

    @torch.compile(backend="aot_eager", fullgraph=True)
    def over(values, offsets):
        return lstm(Ragged.unchecked(values, offsets))[0].values

    ragged = Ragged.from_list(rows)
    torch.testing.assert_close(over(ragged.values, ragged.offsets), wanted[0].values)


def test_exported_with_padded_and_lengths_for_any_size():
    lstm = layer(bidirectional=True)
    x, lengths = torch.randn(4, 9, 3), torch.tensor([3, 9, 1, 4])
    batch, words = Dim("batch"), Dim("words")
    program = export(
        lstm, (x,), {"lengths": lengths}, dynamic_shapes={"input": {0: batch, 1: words}, "lengths": {0: batch}}
    )
    x, lengths = torch.randn(6, 20, 3), torch.tensor([3, 0, 1, 4, 20, 11])
    for found, wanted in zip(
        torch.utils._pytree.tree_leaves(program.module()(x, lengths=lengths)),
        torch.utils._pytree.tree_leaves(lstm(x, lengths=lengths)),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_exported_with_values_and_offsets_for_any_size():
    class OverRagged(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = layer()

        def forward(self, values, offsets):
            output, (h_n, _) = self.lstm(Ragged.unchecked(values, offsets))
            return output.values, h_n

    module, first = OverRagged(), Ragged.from_list(reference.sentences([3, 1, 4], 3, torch.float32))
    shapes = {"values": {0: Dim("tokens")}, "offsets": {0: Dim("ends", min=3)}}
    program = export(module, (first.values, first.offsets), dynamic_shapes=shapes)
    other = Ragged.from_list(reference.sentences([2, 7, 4, 1, 9], 3, torch.float32))
    for found, wanted in zip(
        program.module()(other.values, other.offsets), module(other.values, other.offsets), strict=True
    ):
        torch.testing.assert_close(found, wanted)


def test_dropout_in_a_compiled_function_is_the_same_forwards_and_backwards():
    torch.manual_seed(0)
    lstm = RaggedLSTM(3, 40, num_layers=2, dropout=0.5)
    x = torch.randn(2, 6, 3, requires_grad=True)
    compiled = torch.compile(lstm, backend="aot_eager")
    torch.manual_seed(1)
    one = compiled(x)[0]
    assert not torch.equal(one, compiled(x)[0])
    (gradient,) = torch.autograd.grad(one.sum(), x)
    step = 1e-3 * torch.randn_like(x)
    torch.manual_seed(1)
    more = compiled(x + step)[0]
    assert (more - one).sum().item() == pytest.approx((gradient * step).sum().item(), rel=0.05)


# Gradients.


def test_gradcheck(backend):
    proj_size = 0 if backend == "native" else 2
    lstm = layer(torch.float64, num_layers=2, bidirectional=True, proj_size=proj_size)
    x, lengths = torch.randn(4, 5, 3).double().requires_grad_(), torch.tensor([2, 0, 5, 4])
    h, c = torch.randn(4, 4, lstm.state_width).double().requires_grad_(), torch.randn(4, 4, 5).double().requires_grad_()
    parameters = dict(lstm.named_parameters())

    def run(x, h, c, *weights):
        named = dict(zip(parameters, weights, strict=True))
        output, state = torch.func.functional_call(lstm, named, (x, (h, c)), {"lengths": lengths})
        return output, *state

    assert torch.autograd.gradcheck(run, (x, h, c, *parameters.values()), fast_mode=True)


@needs_compiler
@pytest.mark.parametrize("lengths", [[3, 5], [5, 5]], ids=["different", "equal"])
def test_gradients_of_the_c_code_have_gradients(lengths):
    lstm, lengths = layer(torch.float64, num_layers=2, bidirectional=True), torch.tensor(lengths)
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: lstm(x, lengths=lengths)[0], (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: lstm.last(x, lengths=lengths), (x,), fast_mode=True)


@every_backend
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed(reentrant):
    lstm = layer(num_layers=2)
    x, lengths = batch_of(MIXED)
    x = x.nan_to_num().requires_grad_()
    wanted = torch.autograd.grad(lstm(x, lengths=lengths)[0].sum(), x)[0]
    found = checkpoint(lambda x: lstm(x, lengths=lengths)[0], x, use_reentrant=reentrant)
    (gradient,) = torch.autograd.grad(found.sum(), x) if not reentrant else (None,)
    if reentrant:
        found.sum().backward()
        gradient = x.grad
    assert torch.equal(gradient, wanted)


def test_backward_twice_through_a_kept_graph_and_after_a_change():
    lstm = layer()
    x, lengths = batch_of(MIXED)
    x = x.nan_to_num().requires_grad_()
    total = lstm(x, lengths=lengths)[0].square().sum()
    first, second = (torch.autograd.grad(total, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    with torch.no_grad():
        x.add_(1)
    if (
        cpu.why_not() is not None
    ):  # torch.lstm reads a copy of x beside a mark of padding: the gradient is still that of before
        assert torch.equal(torch.autograd.grad(total, x)[0], first)
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(total, x)


def test_threads_are_as_before_whatever_happens():
    try:
        torch.set_num_threads(2)
        lstm = layer()
        x, lengths = batch_of(MIXED)
        lstm.last(x, lengths=lengths)
        assert torch.get_num_threads() == 2
        broken = copy.deepcopy(lstm)
        broken.weight_hh_l0 = torch.nn.Parameter(torch.zeros(20, 4))
        with pytest.raises(RuntimeError):
            broken.last(x, lengths=lengths)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
