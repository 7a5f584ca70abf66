# pyright: reportUnknownMemberType=false
"""`towers fit`."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import torch

from towers import training
from towers.cli import pairs
from towers.data import WordVectors
from towers.model import Tower, TwoTowers
from towers.training.extras import PACKAGES, require
from towers.training.fitting import check_arguments
from towers.training.metrics import are_soft, majority


def run(arguments: argparse.Namespace) -> None:
    """Load, train, measure, save."""
    require(*PACKAGES)
    # What does not fit is refused before any file is read.
    names = ("epochs", "batch_size", "lr", "seed", "device", "precision")
    check_arguments(**{name: getattr(arguments, name) for name in names})
    sizes = build(arguments, vector_width=1)
    with training.run_folder(arguments.out) as folder:
        data = pairs.load(arguments, sizes)
        model = build(arguments, data.vectors.width)
        _introduce(data, model)
        _warn_of_missing(data.vectors)
        history = training.fit(
            model,
            data.parts["train"],
            data.parts.get("dev"),
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            lr=arguments.lr,
            seed=arguments.seed,
            device=arguments.device,
            precision=arguments.precision,
            keep_best=arguments.keep_best,
            on_epoch=lambda epoch: _print_epoch(epoch, arguments.epochs),
        )
        metrics = _measure_test(arguments, data, model)
        training.save_run(folder, model, history, metrics=metrics, extra=data.extra)
    print(_conclusion(history, metrics))
    print(f"saved in {folder}: config.json, model.safetensors, metrics.json, curves.png", flush=True)


def build(arguments: argparse.Namespace, vector_width: int) -> TwoTowers:
    """The network that the options describe, with the initial weights of the seed."""
    sizes = {name: getattr(arguments, name) for name in ("kernel_words", "filters", "pool", "hidden", "chunk")}
    left_words, right_words = _words(arguments)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(arguments.seed)
        left = Tower(left_words, vector_width=vector_width, **sizes)
        right = left if arguments.shared else Tower(right_words, vector_width=vector_width, **sizes)
        return TwoTowers(left, right, dense=arguments.dense)


def _words(arguments: argparse.Namespace) -> tuple[int | None, int | None]:
    """Words of a left and of a right sentence; options that were not given are not in `arguments`."""
    given = vars(arguments)
    if not arguments.shared:
        return given.get("left_words"), given.get("right_words", 5)
    sides = {given[name] for name in ("left_words", "right_words") if name in given} or {None}
    if len(sides) > 1:
        raise ValueError("--shared is one tower for both sides; --left-words and --right-words must be the same then")
    return (words := sides.pop()), words


def _introduce(data: pairs.Data, model: TwoTowers) -> None:
    counts = [f"{name} {len(part)}" for name, part in data.parts.items()]
    print(f"pairs: {', '.join(counts)}")
    print(f"vectors: {data.vectors.source}, {data.vectors.width} numbers a word; {data.vectors.coverage}")
    left, right = ("any number of" if tower.words is None else tower.words for tower in (model.left, model.right))
    towers = "one tower" if model.left is model.right else "two towers"
    weights = sum(weight.numel() for weight in model.parameters())
    print(f"network: {towers}, left {left} words, right {right} words, {weights:,} parameters", flush=True)


def _warn_of_missing(vectors: WordVectors) -> None:
    """Say it where most words have no vector: the training would go on, and learn little."""
    found, words = vectors.coverage.types_found, vectors.coverage.types
    if 2 * found < words:
        problem = f"only {found} of {words} different words have a vector in {vectors.source}"
        print(f"towers fit: warning: {problem}; are these the vectors that you meant?", file=sys.stderr, flush=True)


def _print_epoch(epoch: training.Epoch, epochs: int) -> None:
    from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

    dev = f"   dev {_shown(epoch.dev)}" if epoch.dev else ""
    line = (
        f"epoch {epoch.number:{len(str(epochs))}}/{epochs}   train {_shown(epoch.train)}{dev}   {epoch.seconds:.1f} s"
    )
    Tqdm.write(line, file=sys.stdout)  # where a bar stands, the line goes above it
    sys.stdout.flush()


def _measure_test(arguments: argparse.Namespace, data: pairs.Data, model: TwoTowers) -> dict[str, Any]:
    test = data.parts.get("test")
    if test is None or test.labels is None:
        return {}
    measured = training.evaluate(model, test, device=arguments.device, precision=arguments.precision)
    share = {} if are_soft(test.labels) else {"majority": majority(test.labels)}
    return {"test": {"pairs": len(test), **measured, **share}}


def _conclusion(history: training.History, metrics: Mapping[str, Any]) -> str:
    best = history.epochs[history.best - 1]
    kept = f"best dev {_name(history.keep_best)}: {_shown(best.dev)}" if best.dev else "the last; --dev would choose"
    lines = [f"kept epoch {history.best}, {kept}"]
    if test := dict(metrics.get("test", {})):
        share = f" (majority class {test['majority']:.4f})" if "majority" in test else ""
        named = {name: test[name] for name in ("accuracy", "pearson", "auc", "loss") if name in test}
        lines.append(f"test, {test['pairs']} pairs: " + _shown(named).replace("  ", share + "  ", 1))
    return "\n".join(lines)


def _shown(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{_name(name)} {value:.4f}" for name, value in metrics.items())


def _name(metric: str) -> str:
    return {"auc": "AUC", "pearson": "Pearson's r"}.get(metric, metric)
