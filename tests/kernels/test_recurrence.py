"""The written recurrence against nn.LSTM where gates are sigmoids, and against NumPy where they are not."""

import numpy as np
import pytest
import torch
from torch import nn

from towers import Ragged, RaggedLSTM, Tower, TwoTowers
from towers.kernels import recurrence

GATES = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.minimum(np.maximum(x + 3, 0), 6) / 6,
    "hard_sigmoid_keras2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
}
LENGTHS = [4, 1, 0, 6, 3]


def sentences(width=3) -> Ragged:
    values = torch.randn(sum(LENGTHS), width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Ragged(values, torch.tensor([0, *LENGTHS]).cumsum(0))


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 2}, {"bias": "single"}]
)
def test_it_is_an_lstm(options, monkeypatch):
    torch.manual_seed(0)
    lstm = RaggedLSTM(3, 5, dtype=torch.float64, **options)
    given = sentences()
    wanted, (h, c) = lstm(given)
    loss = wanted.values.square().sum() + h.square().sum() + c.sum()
    expected = torch.autograd.grad(loss, list(lstm.parameters()))
    monkeypatch.setattr("towers.layers.lstm.run", recurrence.run)
    found, (h_n, c_n) = lstm(given)
    loss = found.values.square().sum() + h_n.square().sum() + c_n.sum()
    for one, other in zip((found.values, h_n, c_n), (wanted.values, h, c), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    for one, other in zip(torch.autograd.grad(loss, list(lstm.parameters())), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def by_hand(lstm: RaggedLSTM, rows: np.ndarray) -> np.ndarray:
    """The last state of one sentence."""
    gate = GATES[lstm.recurrent_activation]
    w_ih, w_hh, bias = (part.detach().numpy() for part in (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0))
    h = c = np.zeros(lstm.hidden_size)
    for x in rows:
        i, f, g, o = np.split(w_ih @ x + w_hh @ h + bias, 4)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
    return h


@pytest.mark.parametrize("gates", GATES)
def test_gates_are_keras_functions(gates):
    torch.manual_seed(0)
    lstm = RaggedLSTM(3, 5, bias="single", recurrent_activation=gates, dtype=torch.float64)
    for parameter in lstm.parameters():
        parameter.data.mul_(6)  # far enough for the corners of hard gates
    given = sentences()
    wanted = np.stack([by_hand(lstm, rows.numpy()) for rows in given.to_list()])
    np.testing.assert_allclose(lstm(given)[1][0][0].detach().numpy(), wanted, rtol=0, atol=1e-12)
    padded = given.to_padded(float("nan"))[0]
    output, (h_n, _) = lstm(padded, lengths=torch.tensor(LENGTHS))
    np.testing.assert_allclose(h_n[0].detach().numpy(), wanted, rtol=0, atol=1e-12)
    assert not output[0, LENGTHS[0] :].any()
    assert gates == "sigmoid" or "step by step" in str(lstm.backend(given))


@pytest.mark.parametrize("gates", ["hard_sigmoid", "hard_sigmoid_keras2"])
def test_a_tower_of_them_trains_saves_and_loads(gates, tmp_path):
    torch.manual_seed(0)
    model = TwoTowers(Tower(recurrent_activation=gates), Tower(5, recurrent_activation=gates))
    left, right = torch.randn(3, 7, 300), torch.randn(3, 5, 300)
    model(left, right).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    states = model.left.lstm(model.left.pool(model.left.conv(left)))[1][0][-1]
    torch.testing.assert_close(model.left(left), states)
    model.save(tmp_path)
    back = TwoTowers.load(tmp_path)
    assert back.left.lstm.recurrent_activation == gates
    torch.testing.assert_close(back(left, right), model(left, right), rtol=0, atol=0)


def test_gates_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"recurrent_activation \('relu'\) must be one of sigmoid, hard_sigmoid"):
        RaggedLSTM(3, 5, recurrent_activation="relu")
    with pytest.raises(ValueError, match=r"not what an nn.LSTM has"):
        RaggedLSTM(3, 5, recurrent_activation="hard_sigmoid").to_torch()
    assert isinstance(RaggedLSTM(3, 5).to_torch(), nn.LSTM)
    assert "recurrent_activation='hard_sigmoid'" in repr(RaggedLSTM(3, 5, recurrent_activation="hard_sigmoid"))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_that_would_hold_for_one_length_is_refused():
    lstm = RaggedLSTM(3, 5, recurrent_activation="hard_sigmoid")
    with pytest.raises(RuntimeError, match=r"gates are hard_sigmoid cannot be traced by torch\.jit"):
        torch.jit.trace(lstm, (torch.randn(2, 4, 3),), check_trace=False)
