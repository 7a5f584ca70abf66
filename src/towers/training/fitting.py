"""Fit, evaluate, predict."""

import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from numbers import Integral, Real
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor

from towers.data import SentencePairs
from towers.model import TwoTowers
from towers.training.borrow import borrowed, fitting_threads, own_random_state, quiet_lightning
from towers.training.extras import PACKAGES, require
from towers.training.history import Epoch, History
from towers.training.metrics import are_soft, majority, measure, metric_names
from towers.training.saving import run_folder, save_run

Precision = Literal["32-true", "bf16-mixed", "bf16-true", "64-true"]
MEASURING_BATCH = 256  # pairs at a time where nothing is learned: a pair's result does not depend on its batch


def fit(
    model: TwoTowers,
    train: SentencePairs,
    dev: SentencePairs | None = None,
    *,
    epochs: int = 10,
    batch_size: int = 5,
    lr: float = 1e-3,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "32-true",
    keep_best: str | None = None,
    progress: bool | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Train a model in place, as Keras would: mean binary cross-entropy of each batch, Keras's Adam.

    The model ends with the weights of the epoch that was best on the dev pairs (without them: of the last), on the
    device, in the dtype and in the training or evaluation mode in which it came, without gradients; in between it is in
    training mode. The same model, pairs and seed give the same weights, bit for bit on the CPU; torch's random state is
    afterwards what it was.

    Args:
        model: what to train, from the weights that it has.
        train: sentence pairs with labels and vectors.
        dev: other pairs, measured after each epoch.
        epochs: how often to go through the training pairs.
        batch_size: pairs of a step; the last batch of an epoch may have fewer.
        lr: learning rate.
        seed: of the order of the batches, and of what is random in the model itself.
        out: a folder, absent or empty, for config.json, model.safetensors, metrics.json and curves.png; without it
            nothing is written.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", …
        precision: Lightning's words; "32-true" trains the model in the dtype that it has.
        keep_best: the dev metric that chooses the epoch: "loss" (the default), "accuracy" or "auc"; for soft labels
            (not all 0 or 1) "pearson" (the default) or "loss".
        progress: whether to show a bar on standard error; None: if that is a terminal.
        on_epoch: called with each epoch's row as soon as it is there.

    Raises:
        ImportError: the packages of `towers[train]` are not installed.
        TypeError: `train` or `dev` is no SentencePairs.
        ValueError: pairs are empty or without labels, a number is out of range, the device is not there, `keep_best`
            or `precision` is unknown.
        FileExistsError: `out` holds something.
        OSError: `out` cannot be written.
    """
    require(*PACKAGES)
    from towers.training import loop

    place = check_arguments(epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, device=device, precision=precision)
    history, soft = _new_history(train, dev, keep_best)
    batches = loop.Batches(train, batch_size, seed)
    measured = None if dev is None else loop.Batches(dev, MEASURING_BATCH)
    with nullcontext() if out is None else run_folder(out) as folder:
        callback = loop.Epochs(history, batches, dev, soft=soft, on_epoch=on_epoch)
        with borrowed(model), own_random_state(seed, place), fitting_threads(batch_size), quiet_lightning():
            trainer = loop.trainer(place, precision, epochs=epochs, bar=_bar(progress), callback=callback)
            trainer.fit(loop.TowersModule(model.train(), lr), batches, measured)
            if callback.best_weights:
                model.load_state_dict(callback.best_weights)
        if folder is not None:
            save_run(folder, model, history)
    return history


def evaluate(
    model: TwoTowers,
    pairs: SentencePairs,
    *,
    batch_size: int = MEASURING_BATCH,
    device: str | torch.device = "auto",
    precision: Precision = "32-true",
    progress: bool | None = None,
) -> dict[str, float]:
    """Measure a model: "loss", "accuracy" and "auc"; of soft labels (not all 0 or 1) "loss" and "pearson".

    Arguments as `fit`'s. The model comes back as it was.

    Raises:
        ImportError: the packages of `towers[train]` are not installed.
        TypeError: `pairs` is no SentencePairs.
        ValueError: the pairs are empty or without labels, or an argument is out of range.
    """
    labels = _labels("pairs", pairs)
    return measure(_logits(model, pairs, batch_size, device, precision, progress), labels)


def predict(
    model: TwoTowers,
    pairs: SentencePairs,
    *,
    batch_size: int = MEASURING_BATCH,
    device: str | torch.device = "auto",
    precision: Precision = "32-true",
    progress: bool | None = None,
) -> Tensor:
    """Probabilities (pairs) in the order of the pairs, as float32 on the CPU. Labels are not needed.

    Arguments as `fit`'s. The model comes back as it was.

    Raises:
        ImportError: the packages of `towers[train]` are not installed.
        TypeError: `pairs` is no SentencePairs.
        ValueError: an argument is out of range.
    """
    return _logits(model, pairs, batch_size, device, precision, progress).sigmoid()


def _logits(
    model: TwoTowers,
    pairs: SentencePairs,
    batch_size: int,
    device: str | torch.device,
    precision: Precision,
    progress: bool | None,
) -> Tensor:
    require(*PACKAGES)
    from towers.training import loop

    place = check_arguments(batch_size=batch_size, device=device, precision=precision)
    _check_pairs("pairs", pairs)
    if len(pairs) == 0:
        return torch.empty(0)
    with borrowed(model), own_random_state(0, place), quiet_lightning():
        module = loop.TowersModule(model)
        trainer = loop.trainer(place, precision, bar=_bar(progress))
        trainer.predict(module, loop.Batches(pairs, batch_size), return_predictions=False)
    return module.logits.in_order()


def _new_history(train: SentencePairs, dev: SentencePairs | None, keep_best: str | None) -> tuple[History, bool]:
    """An empty history, and whether labels are soft: those of all pairs decide for all pairs."""
    labels = [_labels("train", train)] + ([] if dev is None else [_labels("dev", dev)])
    soft = any(are_soft(part) for part in labels)
    keep_best = ("pearson" if soft else "loss") if keep_best is None else keep_best
    _check_choice("keep_best", keep_best, metric_names(soft))
    return History(keep_best, majority=None if soft else majority(labels[-1])), soft


def _check_pairs(name: str, pairs: object) -> None:
    if not isinstance(pairs, SentencePairs):
        raise TypeError(f"{name} must be towers.data.SentencePairs, not {type(pairs).__name__}")


def _labels(name: str, pairs: SentencePairs) -> Tensor:
    _check_pairs(name, pairs)
    if len(pairs) == 0:
        raise ValueError(f"{name}: there are no pairs in {pairs.source}")
    if pairs.labels is None:
        raise ValueError(f"{name}: the pairs of {pairs.source} have no labels; load them with label_column")
    return pairs.labels


def check_arguments(
    *,
    batch_size: Any,
    device: str | torch.device,
    precision: str,
    epochs: Any = 1,
    lr: Any = 1.0,
    seed: Any = 0,
) -> torch.device:
    """The device that is meant, after all that can be said of these arguments without any pairs.

    Raises:
        ValueError: a number is out of range, the device is not there, `precision` is unknown.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if not _is_whole(value, 1, math.inf):
            raise ValueError(f"{name} ({value}) must be an int of at least 1")
    if not (isinstance(lr, Real) and 0 < float(lr) < math.inf):
        raise ValueError(f"lr ({lr}) must be a finite number above 0")
    if not _is_whole(seed, 0, 2**32 - 1):
        raise ValueError(f"seed ({seed}) must be an int from 0 to 2**32 - 1")
    _check_choice("precision", precision, Precision.__args__)
    return _device(device)


def _is_whole(value: object, low: int, high: float) -> bool:
    return isinstance(value, Integral) and low <= int(value) <= high


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} ({value!r}) must be one of {', '.join(map(repr, choices))}")


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device ({device!r}) is none that torch knows; say auto, cpu or cuda") from None
    if place.type not in ("cpu", "cuda"):
        raise ValueError(f"device ({str(place)!r}) is none that towers trains on; say auto, cpu or cuda")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device ({place}): torch finds {torch.cuda.device_count()} CUDA devices here; say auto or cpu"
        )
    return place


def _bar(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress
