"""RaggedLSTM where nn.LSTM stood: its attributes and calls, its orders of axes, and what other code does with it."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence

from towers import Ragged, RaggedLSTM, ShapeContractError
from towers.contracts import checks, trace, verify

from ..helpers import reference
from .test_lstm import VARIANTS, close, layer, start

variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
every_backend = pytest.mark.usefixtures("backend")


def test_loops_that_look_for_recurrent_layers_find_it():
    lstm = RaggedLSTM(3, 5, num_layers=2, bidirectional=True)
    theirs = nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True)
    assert isinstance(lstm, nn.RNNBase)
    assert not isinstance(lstm, nn.LSTM)
    for module in nn.Sequential(lstm).modules():
        if isinstance(module, nn.RNNBase):
            for weights in module.all_weights:
                nn.init.orthogonal_(weights[1])
                weights[2].data.fill_(1)
    close(lstm.weight_hh_l1_reverse.t() @ lstm.weight_hh_l1_reverse, torch.eye(5), 1e-5)
    assert bool((lstm.bias_ih_l0 == 1).all())
    for name in ("mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional",
                 "proj_size", "_flat_weights_names", "_all_weights"):  # fmt: skip
        assert getattr(lstm, name) == getattr(theirs, name), name
    assert [part.shape for part in lstm._flat_weights] == [part.shape for part in theirs._flat_weights]
    assert lstm.flatten_parameters() is None
    lstm.reset_parameters()
    assert not bool((lstm.bias_ih_l0 == 1).any())


def test_the_list_of_weights_is_made_anew_and_refuses_what_would_be_lost():
    lstm = RaggedLSTM(3, 5)
    weight = lstm.weight_hh_l0
    del lstm.weight_hh_l0
    assert lstm._flat_weights[1] is None
    lstm.double()  # as when weights are dropped: torch's own keeps a list that must stand this
    lstm.weight_hh_l0 = nn.Parameter(weight.double())
    assert lstm._flat_weights[1] is lstm.weight_hh_l0
    with pytest.raises(TypeError, match="does not support item assignment"):
        lstm._flat_weights[1] = weight
    with pytest.raises(AttributeError, match="_flat_weights"):
        lstm._flat_weights = []


# Orders of axes.


@every_backend
@variants
def test_steps_first_is_nn_lstms_default(variant):
    ours, theirs = layer(batch_first=False, **variant), layer(**variant).to_torch()
    theirs.batch_first = False
    x, hx = torch.randn(7, 4, 3, dtype=torch.float64), start(ours, 4)
    (found, state), (wanted, wanted_state) = ours(x, hx), theirs(x, hx)
    close(found, wanted)
    assert found.is_contiguous()
    for one, other in zip(state, wanted_state, strict=True):
        close(one, other)
    close(ours.last(x, hx), wanted_state[0])
    lengths = torch.tensor([7, 0, 3, 1])
    found, state = ours(x, hx, lengths=lengths)
    ours.batch_first = True
    wanted, wanted_state = ours(x.transpose(0, 1), hx, lengths=lengths)
    close(found, wanted.transpose(0, 1))
    for one, other in zip(state, wanted_state, strict=True):
        close(one, other)


def test_batches_that_say_themselves_what_they_are_ignore_batch_first():
    first, second = layer(), layer(batch_first=False)
    rows = reference.sentences([3, 1, 4], 3)
    padded, lengths = reference.pad(rows, padding=0.0)
    for given in (
        Ragged.from_list(rows),
        torch.nested.nested_tensor(rows, layout=torch.jagged),
        pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False),
    ):
        (one, (h, c)), (other, (h_2, c_2)) = first(given), second(given)
        assert type(one) is type(other)
        assert all(map(torch.equal, (h, c), (h_2, c_2)))


def test_messages_proofs_and_traces_name_the_axes_in_the_order_in_use():
    lstm = RaggedLSTM(3, 5, batch_first=False)
    with pytest.raises(ShapeContractError, match=r"input has 4 axes .*expected 3: \(steps, batch, input_size=3\)"):
        lstm(torch.zeros(1, 2, 4, 3))
    with pytest.raises(ShapeContractError, match=r"hx\[0\]: batch is 4; expected 2 \(as in input\)"):
        lstm(torch.zeros(4, 2, 3), (torch.zeros(1, 4, 5),) * 2)
    with pytest.raises(ValueError, match=r"lengths\[0\] is 5; this RaggedLSTM needs at most 4 steps"):
        lstm(torch.zeros(4, 2, 3), lengths=torch.tensor([5, 1]))
    proof = verify(lstm)
    assert proof.verdict == "proven"
    assert "steps batch" in str(trace(lstm)).replace(",", "")
    assert "batch steps" in str(trace(RaggedLSTM(3, 5))).replace(",", "")
    assert repr(lstm) == "RaggedLSTM(3, 5, batch_first=False)"


@every_backend
@variants
def test_one_sentence_needs_no_axis_for_the_batch(variant):
    for batch_first in (True, False):
        ours = layer(batch_first=batch_first, **variant)
        theirs = ours.to_torch()
        x, (h, c) = torch.randn(7, 3, dtype=torch.float64), start(ours, 1)
        for hx in (None, (h.squeeze(1), c.squeeze(1))):
            (found, state), (wanted, wanted_state) = ours(x, hx), theirs(x, hx)
            close(found, wanted)
            for one, other in zip(state, wanted_state, strict=True):
                close(one, other)
            close(ours.last(x, hx), wanted_state[0])
        short, state = ours(x, lengths=torch.tensor(4))
        close(short[:4], ours(x[:4])[0])
        assert not short[4:].any()
        close(state[1], ours(x[:4])[1][1])
        assert ours.backend(x).name in ("native", "torch")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda lstm: lstm(torch.zeros(4, 5)), r"input: input_size is 5; expected 3 \(self.input_size\)"),
        (lambda lstm: lstm(torch.zeros(4, 3), (torch.zeros(1, 1, 5),) * 2), r"hx\[0\] has 3 axes \(1, 1, 5\); expected 2"),
        (lambda lstm: lstm(torch.zeros(2, 4, 3), (torch.zeros(1, 5),) * 2), r"hx\[0\] has 2 axes \(1, 5\); expected 3"),
        (lambda lstm: lstm(torch.zeros(4, 3), lengths=torch.tensor([4])), r"lengths has 1 axis \(1\); expected none, a single number"),
        (lambda lstm: lstm(torch.zeros(3)), r"input has 1 axis \(3\); expected 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_one_sentence_is_refused(call, text):
    with pytest.raises(ShapeContractError, match=text):
        call(RaggedLSTM(3, 5))
    if "lengths" not in text:  # one length is one length, in whatever shape
        with checks("off"), pytest.raises((ShapeContractError, RuntimeError, IndexError)):
            call(RaggedLSTM(3, 5))


def test_states_may_be_a_list_and_sizes_numbers_of_numpy():
    lstm = RaggedLSTM(np.int64(3), np.int32(5), np.int64(2), dropout=np.float64(0.5), proj_size=np.int64(2))
    assert {type(size) for size in (lstm.input_size, lstm.hidden_size, lstm.num_layers, lstm.proj_size)} == {int}
    lstm = RaggedLSTM(3, 5)
    x, hx = torch.randn(2, 4, 3), [torch.randn(1, 2, 5), torch.randn(1, 2, 5)]
    assert torch.equal(lstm(x, hx)[0], lstm(x, tuple(hx))[0])
    with pytest.raises(ValueError, match=r"num_layers \(True\) must be an int of at least 1"):
        RaggedLSTM(3, 5, True)


def test_narrowed_jagged_tensors():
    lstm, padded, lengths = layer(), torch.randn(3, 6, 3).double(), torch.tensor([2, 4, 1])
    narrowed = torch.nested.narrow(padded, 1, torch.tensor([1, 0, 3]), lengths, layout=torch.jagged)
    rows = [padded[0, 1:3], padded[1, :4], padded[2, 3:4]]
    found, (h_n, _) = lstm(narrowed)
    wanted, (h_wanted, _) = lstm(Ragged.from_list(rows))
    for one, other in zip(found.unbind(), wanted.to_list(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(h_n, h_wanted)


# What comes out may be changed in place, as it is a view of nothing.


@every_backend
@pytest.mark.parametrize("variant", [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 2}], ids=str)
@pytest.mark.parametrize("kind", ["padded", "lengths", "ragged", "no steps", "no sentences", "one sentence"])
def test_states_may_be_changed_in_place(variant, kind):
    lstm = layer(**variant)
    sizes = {"no steps": (2, 0, 3), "no sentences": (0, 4, 3), "one sentence": (4, 3)}.get(kind, (2, 4, 3))
    x = torch.randn(sizes, dtype=torch.float64)
    lengths = torch.tensor([4, 2]) if kind == "lengths" else None
    if kind == "ragged":
        x = Ragged.from_padded(x)
    hx = start(lstm, 1 if kind == "one sentence" else sizes[0])
    hx = tuple(part.squeeze(1) if kind == "one sentence" else part for part in hx)
    kept = [part.clone() for part in hx]
    output, (h_n, c_n) = lstm(x, hx, lengths=lengths)
    values = output.values if kind == "ragged" else output
    before = values.clone(), c_n.clone()
    h_n.mul_(0).add_(7)
    assert torch.equal(values, before[0])
    assert torch.equal(c_n, before[1])
    c_n.fill_(3)
    assert bool((h_n == 7).all())
    assert all(map(torch.equal, hx, kept))
    if kind not in ("no steps", "no sentences"):
        (h_n.sum() + values.sum()).backward()


# To and from nn.LSTM.


@variants
@pytest.mark.parametrize("batch_first", [True, False])
def test_from_torch_keeps_what_the_other_is(variant, batch_first):
    bias = variant.get("bias", True)
    theirs = nn.LSTM(3, 5, batch_first=batch_first, **{**variant, "bias": bool(bias)}).double().eval()
    theirs.weight_hh_l0.requires_grad_(False)
    state = torch.get_rng_state()
    ours = RaggedLSTM.from_torch(theirs, bias=bias)
    assert torch.equal(torch.get_rng_state(), state)
    assert (ours.batch_first, ours.training, ours.weight_hh_l0.requires_grad) == (batch_first, False, False)
    assert ours.weight_ih_l0.requires_grad
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    close(ours(x)[0], theirs(x)[0])
    back = ours.to_torch()
    assert (back.batch_first, back.training, back.weight_hh_l0.requires_grad) == (batch_first, False, False)
    close(back(x)[0], theirs(x)[0])
    assert all(one.data_ptr() != other.data_ptr() for one in ours.parameters() for other in theirs.parameters())


class WithDoc(nn.LSTM):
    """A subclass that changes nothing of what it computes."""


class Squeezing(nn.LSTM):
    def forward(self, input, hx=None):
        return super().forward(input, hx)[0]


def test_from_torch_of_subclasses():
    theirs = WithDoc(3, 5)
    assert torch.equal(RaggedLSTM.from_torch(theirs).weight_ih_l0, theirs.weight_ih_l0)
    with pytest.raises(ValueError, match=r"lstm is a Squeezing, whose own forward would be lost; expected nn.LSTM's"):
        RaggedLSTM.from_torch(Squeezing(3, 5))


@pytest.mark.parametrize(
    "make", [parametrizations.spectral_norm, parametrizations.weight_norm, parametrizations.orthogonal]
)
def test_from_torch_copies_parametrizations(make):
    theirs = nn.LSTM(3, 5, batch_first=True)
    make(theirs, "weight_hh_l0")
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    for lstm in (RaggedLSTM.from_torch(theirs), RaggedLSTM.from_torch(theirs).to_torch(), theirs):
        for name, value in lstm.state_dict().items():  # in training, too, where to read a weight may change a buffer
            assert torch.equal(value, before[name]), name
    theirs.eval()
    ours = RaggedLSTM.from_torch(theirs)
    assert parametrize.is_parametrized(ours, "weight_hh_l0")
    x = torch.randn(2, 4, 3)
    close(ours(x)[0], theirs(x)[0], 1e-6)
    close(ours.to_torch()(x)[0], theirs(x)[0], 1e-6)
    for module in (ours, theirs):
        module.train()
        with parametrize.cached():  # spectral_norm takes a step each time that a weight is read: once in both
            module(x)[0].sum().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.1 * parameter.grad
        module.eval()
    close(ours(x)[0], theirs(x)[0], 1e-5)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_what_from_torch_cannot_copy_is_refused():
    theirs = nn.utils.weight_norm(nn.LSTM(3, 5), "weight_hh_l0")
    with pytest.raises(ValueError, match=r"weight_hh_l0 is not a parameter \(a hook such as weight_norm's"):
        RaggedLSTM.from_torch(theirs)
    theirs = nn.LSTM(3, 5)
    parametrizations.weight_norm(theirs, "bias_hh_l0")
    with pytest.raises(ValueError, match="bias_ih_l0 is parametrized: two biases"):
        RaggedLSTM.from_torch(theirs, bias="single")


def test_dropout_between_no_layers_is_a_warning():
    with pytest.warns(UserWarning, match=r"dropout \(0.5\) lies between layers: with num_layers=1 it does nothing"):
        lstm = RaggedLSTM(3, 5, dropout=0.5)
    assert lstm.to_torch().dropout == 0.5


# What other people's code does with it.


def weight_drop(module: nn.Module, name: str, p: float) -> None:
    """As AWD-LSTM's: the parameter becomes another one's noisy copy at each call."""
    raw = getattr(module, name)
    delattr(module, name)
    module.register_parameter(f"{name}_raw", nn.Parameter(raw.data))
    inner = module.forward

    def forward(*args, **kwargs):
        setattr(module, name, nn.functional.dropout(getattr(module, f"{name}_raw"), p, module.training))
        return inner(*args, **kwargs)

    module.forward = forward


def test_weights_that_are_replaced_at_each_call_are_seen():
    lstm = layer(torch.float32)
    wanted = layer(torch.float32)
    x = torch.randn(2, 4, 3)
    weight_drop(lstm, "weight_hh_l0", 0.5)
    torch.manual_seed(1)
    found = lstm(x)[0]
    torch.manual_seed(1)
    dropped = nn.functional.dropout(wanted.weight_hh_l0, 0.5)
    close(found, torch.func.functional_call(wanted, {"weight_hh_l0": dropped}, (x,))[0], 1e-6)
    found.sum().backward()
    assert lstm.weight_hh_l0_raw.grad is not None


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("change", [
    lambda m: parametrizations.spectral_norm(m, "weight_hh_l0"),
    lambda m: parametrizations.weight_norm(m, "weight_hh_l0"), lambda m: nn.utils.weight_norm(m, "weight_hh_l0"), lambda m: prune.l1_unstructured(m, "weight_hh_l0", 0.5),
    lambda m: prune.random_structured(m, "weight_ih_l0", 0.5, dim=0)])  # fmt: skip
def test_what_torch_wraps_around_a_weight_works_as_on_nn_lstm(change):
    theirs = nn.LSTM(3, 5, batch_first=True)
    ours = RaggedLSTM.from_torch(theirs)
    x, states = torch.randn(2, 4, 3), torch.get_rng_state()
    for module in (ours, theirs):
        torch.set_rng_state(states)
        change(module)
    found, wanted = ours(x)[0], theirs(x)[0]
    found.sum().backward(), wanted.sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    ours.load_state_dict(theirs.state_dict())  # spectral_norm goes on by a step whenever a weight is read
    ours.eval(), theirs.eval()
    close(ours(x)[0], theirs(x)[0], 1e-6)


def test_vectors_clipping_copies_and_replicas():
    theirs = nn.LSTM(3, 5, num_layers=2, batch_first=True)
    ours = RaggedLSTM.from_torch(theirs)
    vector = nn.utils.parameters_to_vector(theirs.parameters())
    assert torch.equal(nn.utils.parameters_to_vector(ours.parameters()), vector)
    x = torch.randn(2, 4, 3)
    nn.utils.vector_to_parameters(vector / 2, ours.parameters())
    nn.utils.vector_to_parameters(vector / 2, theirs.parameters())
    for module in (ours, theirs):
        (module(x)[0] ** 2).sum().backward()
    close(nn.utils.clip_grad_norm_(ours.parameters(), 1e-3), nn.utils.clip_grad_norm_(theirs.parameters(), 1e-3), 1e-6)
    wanted = ours(x)[0]
    for other in (copy.deepcopy(ours), copy.copy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(x)[0], wanted)
    replica = ours._replicate_for_data_parallel()  # what nn.DataParallel does for each GPU
    for name, parameter in ours.named_parameters():
        setattr(replica, name, parameter * 1)
    output = replica(x)[0]
    assert torch.equal(output, wanted)
    ours.zero_grad()
    output.sum().backward()
    assert ours.weight_hh_l1.grad is not None
    tied = RaggedLSTM(3, 5)
    tied.bias_hh_l0 = tied.bias_ih_l0
    assert len(list(tied.parameters())) == 3
    tied(x)[0].sum().backward()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deprecat")
def test_dynamic_quantization_leaves_it_as_it_is():
    model = nn.Sequential(nn.Linear(3, 3), RaggedLSTM(3, 5))
    small = torch.ao.quantization.quantize_dynamic(model)
    assert type(small[1]) is RaggedLSTM
    assert type(small[0]) is not nn.Linear


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deprecat")
def test_torch_jit_script_takes_an_nn_lstm_of_the_same_parameters_in_its_place():
    model = nn.Sequential(RaggedLSTM(3, 5, bidirectional=True, batch_first=False))
    own, x = model[0], torch.randn(4, 2, 3)
    with pytest.warns(
        UserWarning, match="RaggedLSTM: torch.jit.script puts an nn.LSTM of the same parameters in its place"
    ):
        scripted = torch.jit.script(model)
    close(scripted(x)[0], own(x)[0], 1e-6)
    scripted(x)[0].sum().backward()
    assert own.weight_hh_l0.grad is not None


# The same bits whatever stands beside it.


@pytest.mark.parametrize(("inputs", "hidden", "options"), [
    (8, 6, {}), (64, 128, {}), (64, 64, {"num_layers": 2, "bidirectional": True}), (64, 512, {}), (300, 300, {"bias": "single"})])  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
def test_a_sentence_has_the_same_bits_whatever_stands_beside_it(inputs, hidden, options, threads):
    lstm = RaggedLSTM(inputs, hidden, **options).eval()
    rows = reference.sentences([3, 17, 1, 9, 24, 2, 2, 11], inputs, torch.float32)
    if lstm.backend(Ragged.from_list(rows)).name != "native":
        pytest.skip("it holds for the C code")
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            output, (h_n, c_n) = lstm(Ragged.from_list(rows))
            for index, row in enumerate(rows):
                for others in ([], rows[:2], rows[:6], [rows[4]] * 20):
                    found, (h, c) = lstm(Ragged.from_list([*others, row]))
                    assert torch.equal(found.to_list()[-1], output.to_list()[index])
                    assert torch.equal(h[:, -1], h_n[:, index])
                    assert torch.equal(c[:, -1], c_n[:, index])
            padded, lengths = reference.pad(rows)
            assert torch.equal(lstm(padded, lengths=lengths)[1][0], h_n)
    finally:
        torch.set_num_threads(1)


@every_backend
def test_no_call_sets_the_threads_of_others(monkeypatch):
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(
            torch, "set_num_threads", lambda _: pytest.fail("it holds for every thread that starts later")
        )
        lstm = RaggedLSTM(3, 5)
        lstm(torch.randn(2, 4, 3))[0].sum().backward()
        lstm(torch.randn(2, 4, 3), lengths=torch.tensor([2, 4]))[0].sum().backward()
        assert torch.get_num_threads() == 2
    finally:
        monkeypatch.undo()
        torch.set_num_threads(1)
