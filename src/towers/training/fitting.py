"""Fit, evaluate, predict."""

import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from towers.checkpoint import RESUME, undamaged
from towers.data import SentencePairs
from towers.model import TwoTowers, need_network
from towers.training.borrow import Stop, borrowed, fitting_threads, own_random_state, quiet_lightning
from towers.training.doubts import check_values, doubts
from towers.training.frames import AnyVectors, described, keep_words, pairs_of
from towers.training.history import LAST, Epoch, History
from towers.training.metrics import Measures, are_soft, majority
from towers.training.objectives import objective_of, second_objective
from towers.training.options import (
    PACKAGES,
    Options,
    Precision,
    Settings,
    check_arguments,
    check_choice,
    renewed,
    require,
)
from towers.training.origin import origin
from towers.training.processes import is_main, lost_ones_named
from towers.training.progress import Progress
from towers.training.run import Run

MEASURING_BATCH = 256  # batch size without training: the result of a pair does not depend on its batch


def fit(
    model: TwoTowers,
    train: Any,
    dev: Any = None,
    *,
    vectors: AnyVectors | None = None,
    columns: Mapping[str, Any] | None = None,
    out: str | PathLike[str] | None = None,
    resume: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    **options: Unpack[Options],
) -> History:
    """Train a model in place; by default as Keras would: mean binary cross-entropy of each batch, Keras's Adam.

    The loss follows from the model's outputs and the labels (`towers.training.objectives`): of one output binary
    cross-entropy, of several a divergence between bins, or for pairs with `classes` the cross-entropy. The loss of a
    second label, for a model with a `second` head, counts `second_weight`.

    At the end the model has the weights of the epoch that was best on the dev pairs (without dev pairs: of the last
    epoch), and its own device, dtype and mode again, without gradients; during training it is in training mode. The
    same model, pairs and seed give the same weights, bit for bit on the CPU; torch's random state is afterwards what it
    was.

    With `out`, a training that ended early for any reason can be continued with `resume`. The result is the same as
    without the interruption, bit for bit on the same kind of CPU with the same number of processes. Ctrl-C and SIGTERM
    save first.

    Args:
        model: what to train, from the weights that it has. To resume: one of the same sizes, with any weights.
        train: SentencePairs with labels and vectors; or a table: a frame of pandas or polars, a table of Arrow, a
            Hugging Face dataset, a dict of columns.
        dev: other pairs, or another table, measured after each epoch.
        vectors: of the words of tables: WordVectors, or a file of them.
        columns: of tables: arguments of `SentencePairs.from_table` other than its usual ones, such as
            {"label_column": "degree", "label_range": (1, 5)}. Labels are classes if none is a number.
        out: a folder, absent or empty, for config.json, model.safetensors, vectors.safetensors, metrics.json and
            curves.png, which `towers.load` and the command read, and, from the start on, for the state from which
            `resume` goes on; without it nothing is written.
        resume: the folder of a run to continue; a finished run continues with more `epochs`. The options are those of
            the run; only `epochs`, `patience`, `save_every`, `tensorboard`, and where it runs may change.
        overwrite: `out` may hold another run, which is replaced when this one has its first state.
        progress: whether to show a bar on standard error; None: if that is a terminal.
        on_epoch: called with each epoch's row as soon as it is there; of several processes, in the first.
        epochs: how often to go through the training pairs (10).
        batch_size: pairs of a step, over all processes (5); the last batch of an epoch may have fewer.
        lr: learning rate (1e-3).
        final_lr: to which the learning rate falls linearly, step by step; None: it stays.
        optimizer: "keras-adam" (the default), or "adamw" (Loshchilov and Hutter, 2019).
        weight_decay: of "adamw" (0).
        average: the decay of a moving average of the weights, step by step, which is measured and kept in place of the
            weights (Polyak and Juditsky, 1992), such as .999; None: the weights themselves.
        correlation: of labels that are degrees in bins, the weight of a further term of the loss: 1 - r, with Pearson's
            r between the answers and the degrees of a batch (of what one process has of it) (0).
        smoothing: of labels that are classes, the share of each that is spread over all classes (0).
        second_weight: what the loss of a second label counts, beside 1 for that of the first (.3).
        dropout_samples: how often the heads answer each pair of a batch, each time with dropout of their own; the loss
            is that of all answers together, as of a larger batch (1). It takes little more time where the towers take
            most of it (Inoue, "Multi-Sample Dropout for Accelerated Training and Better Generalization", 2019).
        by_length: whether batches are of sentences of similar lengths, which takes less time (yes); else they are drawn
            at random.
        seed: decides the order of the batches and what is random in the model itself (0).
        keep_best: the dev metric that chooses the epoch: "loss" (the default), "accuracy" or "auc"; for soft labels
            (not all 0 or 1) and bins "pearson" (the default) or "loss"; for classes "accuracy" (the default) or "loss".
            "last": the last epoch is kept, and the dev pairs are only measured.
        patience: end after this number of epochs without a better value of that metric; None: never.
        save_every: seconds of learning after which the state is saved again, at a step's end (30); 0: after each step.
        tensorboard: also write each epoch's metrics, and now and then a batch's loss, to `out`/tensorboard.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", …
        devices: processes on this machine, each with a device of its own (1); or "auto", or numbers of CUDA devices.
        nodes: machines (1).
        strategy: Lightning's strategy for several processes: "auto", "ddp", …
        precision: Lightning's names; "32-true" trains the model in its own dtype.

    Raises:
        ImportError: the packages of `towers[train]` are not installed, or that of `tensorboard`.
        TypeError: `model` is no network, `train` or `dev` is neither a SentencePairs nor a table, or an option or a
            name of `columns` is unknown.
        ValueError: there is a table without `vectors`, or `vectors` or `columns` without a table, or a cell is bad.
        ValueError: pairs are empty or without labels, the labels of `train` are all equal, a number is out of range,
            the device does not exist, `keep_best` or `precision` is unknown, or options exclude each other.
        ValueError: the model has a `forward` of its own, and a second head, or `dropout_samples` is above 1.
        ValueError: model, pairs or options differ from those of the run to resume, or its files are damaged.
        ValueError: the loss or a weight became NaN or infinite; the message names the step.
        FileExistsError: `out` holds something, or another process works on the folder.
        FileNotFoundError: `resume` holds no run.
        OSError: the folder cannot be written; the last state is still there.
        ConnectionError: another process of this training has ended.
    """
    require(*PACKAGES)
    need_network(model)
    parts = pairs_of({"train": train} if dev is None else {"train": train, "dev": dev}, vectors, columns)
    for warning in doubts(parts):
        warnings.warn(warning, stacklevel=2)
    if resume is not None and (out is not None or overwrite):
        raise ValueError("resume goes on in its own folder; leave out and overwrite out")
    if resume is None:
        settings = Settings(**options)
        about, writes = {"settings": settings.as_dict()}, is_main(settings.alone)
        taken = nullcontext() if out is None else Run.new(out, about, overwrite=overwrite, writes=writes)
    else:
        settings = resumed_settings(resume, options)
        taken = Run.reopened(resume, writes=is_main(settings.alone))
    with taken as run:
        learned = learn(model, parts["train"], parts.get("dev"), run, settings, progress=progress, on_epoch=on_epoch)
        if run is not None and not run.finished:
            if run.writes:
                with run.going_on():
                    keep_words(run.path, parts, vectors)
            run.finish(model, learned, metrics={"origin": origin(settings.as_dict(), parts)}, extra=described(parts))
    return learned


def resumed_settings(folder: str | PathLike[str], given: Mapping[str, Any]) -> Settings:
    """The settings of a run that is resumed.

    Raises:
        ValueError: an option contradicts the run, or its record is damaged.
        FileNotFoundError: there is no folder, or it holds no run.
    """
    record = Run.read(folder)
    with undamaged(Path(folder) / RESUME):
        entries: dict[str, Any] = dict(record["settings"])
    return renewed(entries, given, folder)


def learn(
    model: TwoTowers,
    train: SentencePairs,
    dev: SentencePairs | None,
    run: Run | None,
    settings: Settings,
    *,
    progress: bool | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """The part of `fit` between taking the run's folder and writing the results. Raises what `fit` does."""
    history, measures = _new_history(model, train, dev, settings, run)
    where, tensors = Progress(history), None
    if run is not None:
        pairs = {"train": train.fingerprint()} | ({} if dev is None else {"dev": dev.fingerprint()})
        if run.begun:
            tensors = run.tensors()
            where = _stand(run, tensors, pairs, model)
        run.record["pairs"] = pairs
    with borrowed(model):
        if not where.over(settings.epochs, settings.patience):
            _train(model, (train, dev), run, settings, where, tensors, measures=measures, bar=_bar(progress),
                   on_epoch=on_epoch)  # fmt: skip
        elif tensors is not None:
            last = {name.removeprefix("model."): x for name, x in tensors.items() if name.startswith("model.")}
            model.load_state_dict(last)
        if kept := where.best_weights or where.average:
            model.load_state_dict(kept)
    return where.history


def _train(
    model: TwoTowers,
    pairs: tuple[SentencePairs, SentencePairs | None],
    run: Run | None,
    settings: Settings,
    where: Progress,
    tensors: dict[str, Tensor] | None,
    *,
    measures: Measures,
    bar: bool,
    on_epoch: Callable[[Epoch], None] | None,
) -> None:
    from towers.training import averaging, epochs, loop, trainers

    train = loop.Batches(pairs[0], settings.batch_size, settings.seed, by_length=settings.by_length)
    dev = None if pairs[1] is None else loop.Batches(pairs[1], MEASURING_BATCH)
    with (
        nullcontext() if run is None else run.going_on(),
        own_random_state(settings.seed, settings.place),
        fitting_threads(settings.batch_size),
        quiet_lightning(),
        nullcontext() if settings.alone else lost_ones_named(),
    ):
        callbacks: list[Any] = [] if settings.average is None else [averaging.Averaging(where, settings.average)]
        callbacks.append(epochs.Epochs(where, train, dev, measures=measures, settings=settings, on_epoch=on_epoch))
        if run is not None:
            if settings.tensorboard:
                callbacks.append(epochs.Board(run.path / epochs.BOARD_FOLDER, where))
            callbacks.append(epochs.Keeper(run, where, train, settings, Stop()))
            callbacks[-1].before = tensors
        midway = where.batch > 0
        trainer = trainers.of_settings(settings, done=where.epoch, midway=midway, bar=bar, callbacks=callbacks)
        how = (settings, measures.objective, measures.second, pairs[0].second)
        trainer.fit(loop.TowersModule(model.train(), *how), train, dev)


def _stand(run: Run, tensors: Mapping[str, Tensor], pairs: Mapping[str, str], model: TwoTowers) -> Progress:
    """The progress of a run, after a check that these are its pairs and its model."""
    with undamaged(run.path / RESUME):
        where = Progress.from_dict(run.record, tensors)
        known: dict[str, str] = dict(run.record["pairs"])
    for part in ("train", "dev"):
        if known.get(part) != pairs.get(part):
            problem = f"are not those with which the run in {run.path} began"
            raise ValueError(f"{part}: the pairs, or their vectors, {problem}; bring those back, or start another run")
    saved = {name.removeprefix("model."): x.shape for name, x in tensors.items() if name.startswith("model.")}
    own = {name: value.shape for name, value in model.state_dict().items()}
    for name in dict.fromkeys((*own, *saved)):
        if saved.get(name) != own.get(name):
            sizes = " and ".join("none" if x is None else str(tuple(x)) for x in (own.get(name), saved.get(name)))
            raise ValueError(
                f"model: is not that of the run in {run.path}: {name} is {sizes} there; use the same sizes"
            )
    return where


def evaluate(
    model: TwoTowers,
    pairs: SentencePairs,
    *,
    batch_size: int = MEASURING_BATCH,
    device: str | torch.device = "auto",
    precision: Precision = "32-true",
    progress: bool | None = None,
) -> dict[str, float]:
    """Measure a model: "loss", "accuracy" and "auc"; of soft labels (not all 0 or 1) and bins "loss" and "pearson".

    Of classes "loss" and "accuracy"; of a second label "second_accuracy" too, or of degrees "second_pearson".

    `batch_size`, `device`, `precision` and `progress` are as in `fit`. The model is not changed.

    Raises:
        ImportError: the packages of `towers[train]` are not installed.
        TypeError: `pairs` is not a SentencePairs, or `model` no network.
        ValueError: the pairs are empty or without labels, or an argument is out of range.
        ValueError: the labels are of another number of classes than the model has outputs.
    """
    need_network(model)
    measures = _measures(model, {"pairs": pairs}, second=model.second is not None and pairs.second is not None)
    logits, seconds = all_logits(model, pairs, batch_size, device, precision, progress)
    found = measures.of(logits, pairs)
    return found if measures.second is None else found | measures.of_second(seconds, pairs)


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

    Of a model with several outputs, the probabilities (pairs, outputs) of classes or of bins, whose mean degree is
    `towers.training.objectives.mean_bin`.

    `batch_size`, `device`, `precision` and `progress` are as in `fit`. The model is not changed.

    Raises:
        ImportError: the packages of `towers[train]` are not installed.
        TypeError: `pairs` is not a SentencePairs, or `model` no network.
        ValueError: an argument is out of range.
    """
    logits, _ = all_logits(model, pairs, batch_size, device, precision, progress)
    return logits.sigmoid() if model.outputs == 1 else logits.softmax(-1)


def all_logits(
    model: TwoTowers,
    pairs: SentencePairs,
    batch_size: int,
    device: str | torch.device,
    precision: Precision,
    progress: bool | None,
) -> tuple[Tensor, Tensor]:
    """The logits of both heads for all pairs, as float32 on the CPU; without a second head its logits are empty."""
    require(*PACKAGES)
    from towers.training import loop, trainers

    place = check_arguments(batch_size=batch_size, device=device, precision=precision)
    need_network(model)
    _check_pairs("pairs", pairs)
    if len(pairs) == 0:
        return torch.empty((0,) if model.outputs == 1 else (0, model.outputs)), torch.empty(0)
    with borrowed(model), own_random_state(0, place), quiet_lightning():
        module = loop.TowersModule(model)
        trainer = trainers.alone(place, precision, bar=_bar(progress))
        trainer.predict(module, loop.Batches(pairs, batch_size), return_predictions=False)
    return module.logits.in_order(), module.second_logits.in_order()


def _new_history(
    model: TwoTowers, train: SentencePairs, dev: SentencePairs | None, settings: Settings, run: Run | None
) -> tuple[History, Measures]:
    """An empty history, and what is measured: one soft label makes all of them soft."""
    parts = {"train": train} if dev is None else {"train": train, "dev": dev}
    measures = _measures(model, parts)
    check_values(train)
    keep_best = measures.best if settings.keep_best is None else settings.keep_best
    check_choice("keep_best", keep_best, (*measures.names, LAST))
    for name in ("keep_best", "patience"):
        if (value := getattr(settings, name)) not in (None, LAST) and dev is None:
            raise ValueError(f"{name} ({value!r}) looks at the dev pairs, and there are none; give dev")
    if settings.tensorboard:
        require("tensorboard")
        if run is None:
            raise ValueError("tensorboard: its events go to the run's folder; give out")
    if type(model).forward is not TwoTowers.forward and (model.second is not None or settings.dropout_samples > 1):
        what = "a second head goes" if model.second is not None else f"dropout_samples ({settings.dropout_samples}) go"
        raise ValueError(f"{what} with the forward of TwoTowers; {type(model).__name__} has one of its own")
    degrees = measures.soft or measures.objective.kind == "bins"
    return History(keep_best, majority=None if degrees else majority(_labels("pairs", dev or train))), measures


def _measures(model: TwoTowers, parts: Mapping[str, SentencePairs], *, second: bool = True) -> Measures:
    """What is measured of these pairs; without `second` only the first label."""
    labels = [_labels(name, pairs) for name, pairs in parts.items()]
    (first, *others) = parts.items()
    for name, pairs in others:
        if (pairs.classes, pairs.second_classes) != (first[1].classes, first[1].second_classes):
            raise ValueError(f"{name}: its classes are not those of {first[0]}, in the same order; load it with them")
    soft = any(part.is_floating_point() and are_soft(part) for part in labels)
    objective = objective_of(model, first[1].classes, named=first[0])
    return Measures(objective, soft, second_objective(model, first[1], named=first[0]) if second else None)


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


def _bar(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress
