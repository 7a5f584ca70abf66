"""TwoTowers against Keras itself: every intermediate result, a training run, and the initial weights."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from towers import RaggedLSTM, Tower, TwoTowers
from towers.optim import KerasAdam

from .helpers import keras_files
from .keras_network import cut

WORDS = (2, 3, 4, 5, 7, 10, 33)
SIDES = ("left", "right")


FOLDER = cut.FOLDER


@pytest.fixture(scope="module")
def cases() -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in cut.read()[0].items()}


@pytest.fixture
def model() -> TwoTowers:
    return keras_files.load(FOLDER / "model.keras")


def test_the_cut_is_what_keras_wrote(shared: Path):
    for name, arrays in zip(("cases", "training"), cut.read(), strict=True):
        with np.load(shared / "keras" / f"{name}.npz") as whole:
            assert arrays.keys() == {*whole.files}
            assert all(np.array_equal(arrays[key], whole[key]) for key in whole.files)
    for name, layers in (
        ("model", keras_files.read_layers(FOLDER / "model.keras")),
        ("model_after_training", np.load(FOLDER / "model_after_training.npz")),
    ):
        whole = keras_files.read_layers(shared / "keras" / f"{name}.keras")
        assert layers.keys() == whole.keys()
        assert all(np.array_equal(layers[key], whole[key]) for key in whole)


def test_the_cut_is_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir() if file.is_file()) < 400_000


def test_every_length_in_the_file_is_compared(cases: dict[str, Tensor]):
    assert {name.split("/")[0] for name in cases} == {f"n{words}" for words in WORDS}


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("side", SIDES)
def test_convolution(model: TwoTowers, cases: dict[str, Tensor], side: str, words: int):
    expected = cases[f"n{words}/{side}_conv"].squeeze(2)
    phrases = getattr(model, side).conv(cases[f"n{words}/{side}"])
    torch.testing.assert_close(phrases, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("side", SIDES)
def test_pool(model: TwoTowers, cases: dict[str, Tensor], side: str, words: int):
    tower = getattr(model, side)
    features = tower.pool(tower.conv(cases[f"n{words}/{side}"]))
    torch.testing.assert_close(features, cases[f"n{words}/{side}_pool"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("side", SIDES)
def test_last_state(model: TwoTowers, cases: dict[str, Tensor], side: str, words: int):
    state = getattr(model, side)(cases[f"n{words}/{side}"])
    torch.testing.assert_close(state, cases[f"n{words}/{side}_lstm"], atol=5e-6, rtol=0)


@pytest.mark.parametrize("words", WORDS)
def test_probability(model: TwoTowers, cases: dict[str, Tensor], words: int):
    probability = model.probability(cases[f"n{words}/left"], cases[f"n{words}/right"])
    torch.testing.assert_close(probability, cases[f"n{words}/probability"].squeeze(1), atol=1e-6, rtol=0)


def test_probability_of_all_lengths_in_one_padded_batch(model: TwoTowers, cases: dict[str, Tensor]):
    # What Keras cannot do: 42 sentences of 7 lengths at once, each as if it were alone.
    left = [sentence for words in WORDS for sentence in cases[f"n{words}/left"]]
    lengths = torch.tensor([len(sentence) for sentence in left])
    padded = nn.utils.rnn.pad_sequence(left, batch_first=True, padding_value=math.nan)
    right = torch.cat([cases[f"n{words}/right"] for words in WORDS])
    expected = torch.cat([cases[f"n{words}/probability"] for words in WORDS]).squeeze(1)
    torch.testing.assert_close(model.probability(padded, right, lengths), expected, atol=1e-6, rtol=0)


class TrainingRun(NamedTuple):
    """Three epochs of Keras, and what it got: `loss` of each epoch, `probability` of each pair afterwards."""

    left: Tensor
    right: Tensor
    label: Tensor
    loss: Tensor
    probability: Tensor

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return zip(self.left.split(5), self.right.split(5), self.label.split(5), strict=True)


@pytest.fixture(scope="module")
def run() -> TrainingRun:
    names = ("left", "right", "label", "epoch_loss", "probability_after")
    arrays = cut.read()[1]
    return TrainingRun(*(torch.from_numpy(arrays[name]) for name in names))


def train(model: TwoTowers, run: TrainingRun, optimizer: torch.optim.Optimizer) -> tuple[Tensor, Tensor]:
    """The mean loss of each epoch and the probabilities afterwards."""
    losses = [[_step(model, optimizer, *batch) for batch in run.batches()] for _ in run.loss]
    with torch.no_grad():
        return torch.tensor(losses, dtype=torch.float64).mean(1), model.probability(run.left, run.right)


def _step(model: TwoTowers, optimizer: torch.optim.Optimizer, left: Tensor, right: Tensor, label: Tensor) -> float:
    optimizer.zero_grad()
    loss = nn.functional.binary_cross_entropy_with_logits(model(left, right), label)
    loss.backward()
    optimizer.step()
    return loss.item()


def test_training_run(model: TwoTowers, run: TrainingRun):
    loss, probability = train(model, run, KerasAdam(model.parameters(), lr=1e-3))
    torch.testing.assert_close(loss, run.loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(probability, run.probability, atol=2e-5, rtol=0)
    with np.load(FOLDER / "model_after_training.npz") as layers:
        trained = keras_files.as_state_dict(dict(layers))
    torch.testing.assert_close(dict(model.state_dict()), trained, atol=2e-5, rtol=0)


def _torch_adam(model: TwoTowers) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)


def _two_biases(model: TwoTowers) -> torch.optim.Optimizer:
    for tower in (model.left, model.right):
        state = tower.lstm.state_dict()
        tower.lstm = RaggedLSTM(tower.lstm.input_size, tower.lstm.hidden_size)
        tower.lstm.load_state_dict({**state, "bias_hh_l0": torch.zeros_like(state["bias_ih_l0"])})
    return KerasAdam(model.parameters(), lr=1e-3)


@pytest.mark.parametrize("trap", [_torch_adam, _two_biases], ids=["torch's epsilon", "two biases"])
def test_the_training_run_tells_keras_from(
    trap: Callable[[TwoTowers], torch.optim.Optimizer], model: TwoTowers, run: TrainingRun
):
    start = model.probability(run.left, run.right)
    optimizer = trap(model)
    torch.testing.assert_close(model.probability(run.left, run.right), start)  # the trap is in the training only
    _, probability = train(model, run, optimizer)
    assert (probability - run.probability).abs().max() > 1e-3  # 50 times the tolerance


# Initial weights: Keras counts the convolution's fans with its whole window, and the four gates as one kernel

SIZES = {
    "the seed's": {},
    "others": {"vector_width": 20, "kernel_words": 3, "filters": 12, "pool": 3, "hidden": 5},
}


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys())
def fresh(request: pytest.FixtureRequest) -> Tower:
    torch.manual_seed(0)
    return Tower(**request.param)


def glorot_limit(fan_in: int, fan_out: int) -> float:
    return math.sqrt(6 / (fan_in + fan_out))


def assert_uniform(values: Tensor, limit: float):
    """Within (-limit, limit), and spread as a uniform law is: five standard errors of mean and variance."""
    values = values.detach().double().flatten() / limit
    assert values.abs().max() < 1
    assert values.mean().abs() < 5 / math.sqrt(3 * len(values))
    assert (values.square().mean() - 1 / 3).abs() < 5 * math.sqrt(4 / 45 / len(values))


def test_fresh_convolution_is_glorot_uniform_over_its_window(fresh: Tower):
    window = fresh.kernel_words * fresh.vector_width
    assert_uniform(fresh.conv.weight, glorot_limit(window, window * fresh.conv.bias.numel()))
    assert not fresh.conv.bias.any()


def test_fresh_lstm_kernel_is_glorot_uniform_over_all_gates(fresh: Tower):
    kernel = fresh.lstm.weight_ih_l0
    assert_uniform(kernel, glorot_limit(fresh.lstm.input_size, 4 * fresh.hidden))


def test_fresh_recurrent_kernel_is_orthogonal(fresh: Tower):
    kernel = fresh.lstm.weight_hh_l0
    torch.testing.assert_close(kernel.T @ kernel, torch.eye(fresh.hidden), atol=1e-6, rtol=0)


def test_fresh_lstm_bias_is_one_in_the_forget_gate_and_zero_elsewhere(fresh: Tower):
    i, f, g, o = fresh.lstm.bias_ih_l0.detach().chunk(4)
    assert f.eq(1).all()
    assert not torch.cat([i, g, o]).any()
    assert [name for name, _ in fresh.lstm.named_parameters() if "bias" in name] == ["bias_ih_l0"]


def test_fresh_head_is_glorot_uniform():
    torch.manual_seed(0)
    models = [TwoTowers(Tower(vector_width=4), Tower(5, vector_width=4)) for _ in range(50)]
    assert_uniform(torch.stack([model.dense.weight for model in models]), glorot_limit(6, 16))
    assert_uniform(torch.stack([model.logit.weight for model in models]), glorot_limit(16, 1))
    assert not any(layer.bias.any() for model in models for layer in (model.dense, model.logit))


def test_reset_parameters_draws_anew_from_the_same_laws(fresh: Tower):
    before = fresh.conv.weight.detach().clone()
    fresh.conv.reset_parameters()
    assert not torch.equal(fresh.conv.weight, before)
    test_fresh_convolution_is_glorot_uniform_over_its_window(fresh)


def test_39313_parameters():
    assert sum(parameter.numel() for parameter in TwoTowers().parameters()) == 39_313
