"""RaggedLSTM against the equations, one sentence at a time, and against nn.LSTM."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from towers import Ragged, RaggedLSTM, ShapeContractError
from towers.contracts import checks

from ..helpers import reference

VARIANTS = {
    "plain": {},
    "single bias": {"bias": "single"},
    "no bias": {"bias": False},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True},
    "projected": {"proj_size": 2},
    "all at once": {"num_layers": 2, "bidirectional": True, "proj_size": 2, "bias": "single"},
}
LENGTHS = {
    "unsorted": [3, 7, 1, 4],
    "with none": [0, 4, 0, 2],
    "equal": [4, 4, 4],
    "one long": [1, 1, 30],
    "all none": [0, 0],
}
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
every_backend = pytest.mark.usefixtures("backend")


def layer(dtype=torch.float64, **options) -> RaggedLSTM:
    return reference.number_weights(RaggedLSTM(3, 5, **options, dtype=dtype))


def expect(lstm, rows, hx=None):
    h, c = hx or (rows[0].new_zeros(lstm.state_rows, len(rows), w) for w in (lstm.state_width, lstm.hidden_size))
    found = [reference.lstm(row, lstm, h[:, index], c[:, index]) for index, row in enumerate(rows)]
    outputs, ends_h, ends_c = zip(*found, strict=True)
    return list(outputs), torch.stack(ends_h, 1), torch.stack(ends_c, 1)


def start(lstm, batch):
    return tuple(torch.randn(lstm.state_rows, batch, w).double() for w in (lstm.state_width, lstm.hidden_size))


def close(found, wanted, tolerance=1e-12):
    bound = tolerance * max(1.0, wanted.abs().max().item() if wanted.numel() else 0.0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=bound)


@every_backend
@variants
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("given_state", [False, True], ids=["from zero", "from a state"])
def test_every_sentence_is_as_if_it_were_alone(variant, lengths, given_state):
    lstm = layer(**variant)
    rows = reference.sentences(lengths, 3)
    hx = start(lstm, len(rows)) if given_state else None
    outputs, h_n, c_n = expect(lstm, rows, hx)

    found, state = lstm(Ragged.from_list(rows), hx)
    close(found.values, torch.cat(outputs))
    close(state[0], h_n)
    close(state[1], c_n)

    padded, found_lengths = reference.pad(rows, words=31)
    found, state = lstm(padded, hx, lengths=found_lengths)
    close(found, reference.pad(outputs, 31, padding=0.0)[0])
    close(state[0], h_n)
    close(state[1], c_n)


@every_backend
@pytest.mark.parametrize("given_state", [False, True], ids=["from zero", "from a state"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_in_float32_every_sentence_is_as_if_it_were_alone(lengths, given_state):
    """oneDNN runs float32 alone."""
    lstm = layer(torch.float32)
    rows = reference.sentences(lengths, 3, torch.float32)
    hx = tuple(torch.randn(5, len(rows)).t().unsqueeze(0) for _ in range(2)) if given_state else None
    outputs, h_n, c_n = expect(lstm, rows, hx)
    padded, found_lengths = reference.pad(rows, words=31)
    for given_input, wanted in (
        (Ragged.from_list(rows), torch.cat(outputs)),
        (padded, reference.pad(outputs, 31, 0.0)[0]),
    ):
        own = None if isinstance(given_input, Ragged) else found_lengths
        found, state = lstm(given_input, hx, lengths=own)
        close(getattr(found, "values", found) if own is None else found, wanted, 1e-6)
        close(state[0], h_n, 1e-6)
        close(state[1], c_n, 1e-6)
        close(lstm.last(given_input, hx, lengths=own), h_n, 1e-6)
    close(lstm(padded.transpose(0, 1).contiguous().transpose(0, 1), hx, lengths=found_lengths)[1][0], h_n, 1e-6)


@every_backend
@variants
@pytest.mark.parametrize("lengths", [[3, 0, 6, 3], [3, 1, 6, 3], [4, 4, 4, 4]], ids=["with none", "mixed", "equal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_every_gradient_by_name(variant, lengths, dtype):
    lstm, wanted_lstm = layer(dtype, **variant), layer(dtype, **variant)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    rows = reference.sentences(lengths, 3, dtype)
    padded, lengths = reference.pad(rows)
    padded.requires_grad_()
    hx = tuple(part.to(dtype).requires_grad_() for part in start(lstm, 4))
    output, state = lstm(padded, hx, lengths=lengths)

    wanted_rows = [row.clone().requires_grad_() for row in rows]
    wanted_hx = tuple(part.detach().clone().requires_grad_() for part in hx)
    outputs, h_n, c_n = expect(wanted_lstm, wanted_rows, wanted_hx)

    torch.manual_seed(1)
    weights = [torch.randn_like(part) for part in (output, *state)]
    wanted = (reference.pad(outputs, padding=0.0)[0], h_n, c_n)
    sum((part * weight).sum() for part, weight in zip((output, *state), weights, strict=True)).backward()
    sum((part * weight).sum() for part, weight in zip(wanted, weights, strict=True)).backward()

    for name, parameter in wanted_lstm.named_parameters():
        close(dict(lstm.named_parameters())[name].grad, parameter.grad, tolerance)
    for index, row in enumerate(wanted_rows):
        close(padded.grad[index, : len(row)], row.grad if row.grad is not None else torch.zeros_like(row), tolerance)
        assert not padded.grad[index, len(row) :].any()
    for part, other in zip(hx, wanted_hx, strict=True):
        close(part.grad, other.grad, tolerance)


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_it_is_nn_lstm_with_its_weights(variant, dtype):
    lstm = layer(dtype, **variant)
    theirs = lstm.to_torch()
    assert theirs.batch_first
    padded, lengths = reference.pad(reference.sentences([5, 2, 7, 1], 3, dtype), padding=0.0)
    packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
    wanted, wanted_state = theirs(packed)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12

    found, state = lstm(packed)
    assert isinstance(found, PackedSequence)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    close(found.data, wanted.data, tolerance)
    for part, other in zip(state, wanted_state, strict=True):
        close(part, other, tolerance)

    found, state = lstm(padded, lengths=lengths)
    close(found, pad_packed_sequence(wanted, batch_first=True)[0], tolerance)
    back = RaggedLSTM.from_torch(theirs, bias=lstm.bias)
    close(back(padded, lengths=lengths)[0], found, tolerance)


def test_packed_input_that_was_sorted_already_stays_so():
    lstm = layer()
    padded, lengths = reference.pad(reference.sentences([5, 3, 3, 1], 3), padding=0.0)
    packed = pack_padded_sequence(padded, lengths, batch_first=True)
    found, _ = lstm(packed)
    assert found.sorted_indices is None
    close(found.data, lstm.to_torch()(packed)[0].data)


def test_jagged_in_jagged_out():
    lstm, rows = layer(), reference.sentences([3, 1, 4], 3)
    found, _ = lstm(torch.nested.nested_tensor(rows, layout=torch.jagged))
    for one, other in zip(found.unbind(), lstm(Ragged.from_list(rows))[0].to_list(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "proj_size": 3}, {"bias": False}])
def test_names_shapes_and_initial_values_are_nn_lstms(options):
    torch.manual_seed(3)
    theirs = nn.LSTM(4, 6, batch_first=True, **options)
    torch.manual_seed(3)
    ours = RaggedLSTM(4, 6, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(one, theirs.state_dict()[name]) for name, one in ours.state_dict().items())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_a_single_bias_is_the_sum_of_two():
    theirs = nn.LSTM(4, 6, num_layers=2, batch_first=True)
    ours = RaggedLSTM(4, 6, num_layers=2, bias="single")
    assert [name for name, _ in ours.named_parameters() if "bias" in name] == ["bias_ih_l0", "bias_ih_l1"]
    given = theirs.state_dict()
    ours.load_state_dict(given)
    assert len(given) == 8, "the state_dict that was given is not changed"
    for depth in (0, 1):
        both = given[f"bias_ih_l{depth}"] + given[f"bias_hh_l{depth}"]
        assert torch.equal(getattr(ours, f"bias_ih_l{depth}"), both)
        assert not getattr(ours.to_torch(), f"bias_hh_l{depth}").any()
    x = torch.randn(2, 3, 4)
    close(ours(x)[0], theirs(x)[0], 1e-6)
    nested = nn.Sequential(RaggedLSTM(4, 6, num_layers=2, bias="single"))
    nested.load_state_dict({f"0.{name}": value for name, value in given.items()})
    assert torch.equal(nested[0].bias_ih_l1, ours.bias_ih_l1)


def test_dropout_lies_between_layers_and_only_in_training():
    torch.manual_seed(0)
    lstm = RaggedLSTM(3, 200, num_layers=2, dropout=0.5)
    ragged = Ragged.from_list([torch.randn(4, 3), torch.randn(6, 3)])
    assert not torch.equal(lstm(ragged)[0].values, lstm(ragged)[0].values)
    lstm.eval()
    assert torch.equal(lstm(ragged)[0].values, lstm(ragged)[0].values)
    lstm.train()
    mean = torch.stack([lstm(ragged)[1][1][0].mean() for _ in range(20)])
    assert mean.std() < 1e-6, "the first layer meets no dropout"


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.randoms())
def test_a_sentence_does_not_depend_on_its_batch(lengths, random):
    lstm = layer(torch.float32)
    rows = reference.sentences(lengths, 3, torch.float32)
    order = list(range(len(rows)))
    random.shuffle(order)
    _, (h_n, c_n) = lstm(Ragged.from_list(rows))
    _, (h_p, c_p) = lstm(Ragged.from_list([rows[index] for index in order]))
    close(h_p, h_n[:, order], 1e-6)
    close(c_p, c_n[:, order], 1e-6)
    for index, row in enumerate(rows):
        close(lstm(Ragged.from_list([row]))[1][0][:, 0], h_n[:, index], 1e-6)


@every_backend
def test_an_empty_batch_gives_an_empty_result():
    lstm = layer()
    for given_input in (torch.zeros(0, 4, 3).double(), Ragged(torch.zeros(0, 3).double(), torch.tensor([0]))):
        output, (h_n, c_n) = lstm(given_input)
        assert len(output) == 0
        assert h_n.shape == c_n.shape == (1, 0, 5)
    output, (h_n, _) = lstm(torch.zeros(2, 0, 3).double())
    assert output.shape == (2, 0, 5)
    assert not h_n.any()


def test_lengths_may_be_any_int_type_and_results_do_not_change():
    lstm, padded = layer(), torch.randn(3, 4, 3).double()
    wanted = lstm(padded, lengths=torch.tensor([1, 4, 2]))[0]
    for dtype in (torch.int8, torch.int16, torch.int32):
        assert torch.equal(lstm(padded, lengths=torch.tensor([1, 4, 2], dtype=dtype))[0], wanted)


@every_backend
def test_bfloat16_and_autocast():
    lstm = layer(torch.bfloat16)
    ragged = Ragged.from_list(reference.sentences([3, 5, 2, 4], 3, torch.bfloat16))
    output, state = lstm(ragged)
    assert {output.dtype, *(part.dtype for part in state)} == {torch.bfloat16}

    lstm = layer(torch.float32)
    full = Ragged.from_list(reference.sentences([3, 5, 2, 4], 3, torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, state = lstm(full)
        half_output, half_state = lstm(full.to(torch.bfloat16))
    whole, (h_n, c_n) = lstm(full)
    for found, (h, c) in ((output, state), (half_output, half_state)):
        assert (found.values.dtype, h.dtype, c.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert torch.equal(output.values, whole.values.to(torch.bfloat16)), "the recurrence itself is float32"
    assert torch.equal(state[0], h_n.to(torch.bfloat16))
    assert torch.equal(state[1], c_n)


def test_it_copies_pickles_and_runs_with_other_weights():
    lstm, x = layer(bias="single"), torch.randn(2, 3, 3).double()
    wanted = lstm(x)[0]
    for other in (copy.deepcopy(lstm), pickle.loads(pickle.dumps(lstm))):
        assert torch.equal(other(x)[0], wanted)
    doubled = {name: 2 * value for name, value in lstm.named_parameters()}
    other = layer(bias="single")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    assert torch.equal(torch.func.functional_call(lstm, doubled, (x,))[0], other(x)[0])


def test_it_is_made_on_meta_and_shows_its_sizes():
    lstm = RaggedLSTM(3, 5, num_layers=2, bias="single", device="meta")
    assert all(parameter.is_meta for parameter in lstm.parameters())
    assert repr(lstm) == "RaggedLSTM(3, 5, num_layers=2, bias='single')"
    assert repr(RaggedLSTM(3, 5)) == "RaggedLSTM(3, 5)"
    output, (h_n, _) = lstm(torch.empty(2, 4, 3, device="meta"))
    assert output.is_meta
    assert h_n.shape == (2, 2, 5)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: RaggedLSTM(3, 5, batch_first=0), ValueError, r"batch_first \(0\) must be True or False"),
        (lambda: RaggedLSTM(3, 0), ValueError, r"hidden_size \(0\) must be an int of at least 1"),
        (lambda: RaggedLSTM(3, 5, bias="two"), ValueError, r"bias \('two'\) must be True, False or \"single\""),
        (lambda: RaggedLSTM(3, 5, dropout=1.5), ValueError, r"dropout \(1.5\) must be a probability"),
        (lambda: RaggedLSTM(3, 5, proj_size=5), ValueError, r"proj_size \(5\) must be less than hidden_size \(5\)"),
        (lambda: RaggedLSTM(3, 5, bias=1), ValueError, r"bias \(1\) must be True, False"),
        (lambda: RaggedLSTM(3, 5, bidirectional=2), ValueError, r"bidirectional \(2\) must be True or False"),
        (lambda: RaggedLSTM(3, 5, dropout="x"), ValueError, r"dropout \('x'\) must be a probability"),
        (lambda: RaggedLSTM.from_torch(nn.GRU(3, 5)), ValueError, r"lstm is a GRU; expected an nn.LSTM"),
        (lambda: layer(bias="single").load_state_dict({"bias_hh_l0": torch.zeros(20)}), RuntimeError, r"Missing key.*bias_ih_l0"),
        (lambda: RaggedLSTM.from_torch(nn.LSTM(3, 5, bias=False), bias="single"), ValueError, r"does not fit an nn.LSTM with bias=False"),
        (lambda: layer()(torch.zeros(1, 2, 4, 3).double()), ShapeContractError, r"input has 4 axes \(1, 2, 4, 3\); expected 3: \(batch, steps, input_size=3\)"),
        (lambda: layer()(torch.zeros(2, 4, 12).double()), ShapeContractError, r"input: input_size is 12; expected 3 \(self.input_size\)[\s\S]*not pooled yet: 12 = 3 x 4"),
        (lambda: layer()(torch.zeros(2, 3, 4).double()), ShapeContractError, r"input_size is 4; expected 3[\s\S]*transpose\(1, 2\) would fit"),
        (lambda: layer()(torch.zeros(2, 4, 3)), ShapeContractError, r"input is float32; expected float64 \(the dtype of weight_ih_l0\)"),
        (lambda: layer()(torch.zeros(2, 4, 3).double(), lengths=torch.tensor([4.0, 1.0])), ShapeContractError, r"lengths is float32; expected Int\n.*\.long\(\)"),
        (lambda: layer()(torch.zeros(2, 4, 3).double(), lengths=torch.tensor([5, 1])), ValueError, r"lengths\[0\] is 5; this RaggedLSTM needs at most 4 steps"),
        (lambda: layer()(torch.zeros(2, 4, 3).double(), lengths=torch.tensor([1, -2])), ValueError, r"lengths\[1\] is -2; this RaggedLSTM needs at least 0 steps"),
        (lambda: layer()(torch.zeros(2, 4, 3).double(), lengths=torch.tensor([1])), ShapeContractError, r"lengths: batch is 1; expected 2 \(as in input\)"),
        (lambda: layer()(torch.zeros(2, 4, 3).double(), (torch.zeros(1, 2, 5).double(),) * 3), ShapeContractError, r"hx is a tuple of 3; expected \(Float"),
        (lambda: layer()(torch.zeros(2, 4, 3).double(), (torch.zeros(1, 2, 5).double(), torch.zeros(1, 3, 5).double())), ShapeContractError, r"hx\[1\]: batch is 3; expected 2 \(as in input\)"),
        (lambda: layer()(torch.zeros(2, 4, 3).double(), (torch.zeros(2, 2, 5).double(),) * 2), ShapeContractError, r"hx\[0\]: state_rows is 2; expected 1 \(self.state_rows\)"),
        (lambda: layer()(Ragged.from_list(reference.sentences([2], 3)), lengths=torch.tensor([2])), ShapeContractError, r"only padded input takes lengths"),
        (lambda: layer()(Ragged.from_list(reference.sentences([2, 3], 4))), ShapeContractError, r"input: input_size is 4; expected 3"),
        (lambda: layer()(pack_padded_sequence(torch.zeros(2, 4, 4).double(), torch.tensor([4, 2]), batch_first=True)), ShapeContractError, r"input: input_size is 4; expected 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda lstm: lstm(torch.zeros(2, 4, 32)), r"RaggedLSTM.forward: input is \(32,\); expected \(3,\)"),
        (lambda lstm: lstm(torch.zeros(2, 4, 3), (torch.zeros(1, 1, 5),) * 2), r"hx\[0\] is \(1, 1, 5\); expected \(1, 2, 5\)"),
        (lambda lstm: lstm(torch.zeros(2, 4, 3), (torch.zeros(1, 2, 5), torch.zeros(1, 2, 6))), r"hx\[1\] is \(1, 2, 6\)"),
    ],
)  # fmt: skip
def test_with_contracts_off_nothing_is_read_out_of_bounds(call, text):
    with checks("off"), pytest.raises(ShapeContractError, match=text):
        call(RaggedLSTM(3, 5))


@every_backend
@variants
def test_the_last_states_alone_are_those_of_forward(variant):
    for dtype in (torch.float64, torch.float32):
        lstm = layer(dtype, **variant)
        padded, lengths = reference.pad(reference.sentences([3, 7, 2, 7, 4], 3, dtype))
        hx = tuple(part.to(dtype).requires_grad_() for part in start(lstm, 5))
        padded.requires_grad_()
        wanted = lstm(padded, hx, lengths=lengths)[1][0]
        found = lstm.last(padded, hx, lengths=lengths)
        close(found, wanted, 1e-6 if dtype == torch.float32 else 1e-12)
        inputs = (padded, *hx, *lstm.parameters())
        weight = torch.arange(wanted.numel(), dtype=dtype).view(wanted.shape) / wanted.numel()
        both = [torch.autograd.grad((one * weight).sum(), inputs) for one in (found, wanted)]
        for one, other in zip(*both, strict=True):
            close(one, other, 1e-5 if dtype == torch.float32 else 1e-11)
