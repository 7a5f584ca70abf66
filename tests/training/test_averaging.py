"""The moving average of the weights: what it is by hand, where it is measured, and that it is what is kept."""

import pytest
import torch
from tests.helpers.small import small_model, some_pairs

from towers import training
from towers.training.averaging import Averaging

HOW = {"epochs": 2, "batch_size": 4, "device": "cpu", "progress": False}


def steps_of(monkeypatch, decay, **how):
    """The weights after each step of a training, by a callback of their own."""
    steps = []
    move = Averaging.on_train_batch_end

    def and_note(self, trainer, pl_module, *rest):
        steps.append({name: value.clone() for name, value in pl_module.model.state_dict().items()})
        move(self, trainer, pl_module, *rest)

    monkeypatch.setattr(Averaging, "on_train_batch_end", and_note)
    model = small_model()
    history = training.fit(model, some_pairs(16), average=decay, **HOW, **how)
    return model, history, steps


def by_hand(steps, decay):
    average = dict(steps[0])
    for number, weights in enumerate(steps[1:], 1):
        own = min(decay, (1 + number) / (10 + number))
        average = {name: own * average[name] + (1 - own) * value for name, value in weights.items()}
    return average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_without_dev_the_last_average_is_kept(monkeypatch, decay):
    model, _, steps = steps_of(monkeypatch, decay)
    assert len(steps) == 8
    for name, value in by_hand(steps, decay).items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)
    plain = small_model()
    training.fit(plain, some_pairs(16), **HOW)
    assert torch.equal(plain.state_dict()["logit.weight"], steps[-1]["logit.weight"]), "the steps are the usual ones"


def test_the_average_is_measured_and_the_best_of_it_kept(monkeypatch):
    dev = some_pairs(20, seed=1)
    model, history, steps = steps_of(monkeypatch, 0.9, dev=dev)
    rows = []
    for end in (4, 8):
        measured = small_model()
        measured.load_state_dict(by_hand(steps[:end], 0.9))
        rows.append(training.evaluate(measured, dev, device="cpu"))
    assert [row.dev["loss"] for row in history.epochs] == pytest.approx([row["loss"] for row in rows], rel=1e-5)
    assert training.evaluate(model, dev, device="cpu") == pytest.approx(rows[history.best - 1], rel=1e-5)


@pytest.mark.parametrize("average", [1, -0.1, float("nan"), "x"])
def test_a_decay_that_is_none(average):
    with pytest.raises(ValueError, match=r"average \(.*\) must be a number of at least 0 and below 1, such as 0.999"):
        training.fit(small_model(), some_pairs(16), average=average, **HOW)
