"""What `towers fit` says on standard output: lines for people, or JSON for programs."""

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from towers.checkpoint import without_nan
from towers.cli.common import Data, covered
from towers.data.kept_vectors import FILE
from towers.model import TwoTowers
from towers.training import Epoch, History
from towers.training.doubts import class_counts, listed
from towers.training.history import LAST
from towers.training.presets import PRESETS
from towers.training.run import RESULTS, Run


class Text:
    """Lines for people."""

    def start(self, data: Data, model: TwoTowers, run: Run) -> None:
        """Print the data and the network."""
        if run.begun:
            _say(f"going on with {run.path}: {run.standing}")
        counts = [f"{name} {len(part)}" for name, part in data.parts.items()]
        _say(f"pairs: {', '.join(counts)}")
        for name, found in _classes(data).items():
            _say(f"{name.replace('_', ' ')}: {listed(found)}")
        coverage = covered(data.vectors, data.vectors.coverage)
        _say(f"vectors: {data.vectors.source}, {data.vectors.width} numbers a word; {coverage}")
        left, right = ("any number of" if tower.words is None else tower.words for tower in (model.left, model.right))
        towers = "one tower" if model.left is model.right else "two towers"
        if preset := PRESETS.get(str(data.extra["data"].get("preset"))):
            _say(f"preset: {preset.does}")
        _say(f"network: {towers}, left {left} words, right {right} words, {_weights(model):,} parameters")

    def member(self, number: int, count: int) -> None:
        """Print which network of an ensemble learns now."""
        _say(f"network {number} of {count}")

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """Print the metrics of an epoch."""
        dev = f"   dev {_shown(epoch.dev)}" if epoch.dev else ""
        number = f"{epoch.number:{len(str(epochs))}}/{epochs}"
        _say(f"epoch {number}   train {_shown(epoch.train)}{dev}   {epoch.seconds:.1f} s")

    def end(self, history: History, metrics: Mapping[str, Any], run: Run) -> None:
        """Print the result and its folder."""
        members = [History.from_dict(member) for member in metrics.get("members", ())]
        for number, member in enumerate(members or [history], 1):
            which = f"network {number}: " if members else ""
            if len(member.epochs) < run.record["settings"]["epochs"]:
                _say(f"{which}ended after epoch {len(member.epochs)}: {member.stale} epochs without a better one")
            _say(f"{which}kept epoch {member.best}, {_why(member)}")
        if together := metrics.get("together", {}).get("dev"):
            _say(f"{len(members)} networks together: dev {_shown(together)}")
        if test := dict(metrics.get("test", {})):
            share = f" (majority class {test['majority']:.4f})" if "majority" in test else ""
            named = {name: test[name] for name in ("accuracy", "pearson", "auc", "loss") if name in test}
            _say(f"test, {test['pairs']} pairs: " + _shown(named).replace("  ", share + "  ", 1))
        _say(f"saved in {run.path}: config.json, model.safetensors, {FILE}, metrics.json, curves.png")

    def finished(self, history: History, run: Run, way_on: str) -> None:
        """Print that the run is finished and cannot be resumed as it is."""
        done = "1 epoch is" if len(history.epochs) == 1 else f"{len(history.epochs)} epochs are"
        _say(f"{run.path} is finished: {done} done, epoch {history.best} was kept; {way_on}")


class Json:
    """One object a line; NaN is null."""

    def start(self, data: Data, model: TwoTowers, run: Run) -> None:
        """Print the data and the network."""
        coverage = data.vectors.coverage
        found = {"tokens": coverage.tokens, "tokens_found": coverage.tokens_found}
        found |= {"words": coverage.types, "words_found": coverage.types_found}
        network = {"shared": model.left is model.right, "parameters": _weights(model)}
        network |= {"left_words": model.left.words, "right_words": model.right.words}
        self._say(
            "start",
            folder=str(run.path),
            resumed=run.begun,
            pairs={name: len(part) for name, part in data.parts.items()},
            **_classes(data),
            vectors={"source": data.vectors.source, "width": data.vectors.width, **found},
            network=network,
        )

    def member(self, number: int, count: int) -> None:
        """Print which network of an ensemble learns now."""
        self._say("network", network=number, networks=count)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """Print the metrics of an epoch."""
        row = {"train": epoch.train, "dev": epoch.dev, "seconds": epoch.seconds}
        self._say("epoch", epoch=epoch.number, epochs=epochs, **row)

    def end(self, history: History, metrics: Mapping[str, Any], run: Run) -> None:
        """Print the result and its folder."""
        self._say("end", **self._kept(history), **metrics, folder=str(run.path), files=sorted([*RESULTS, FILE]))

    def finished(self, history: History, run: Run, way_on: str) -> None:
        """Print that the run is finished and cannot be resumed as it is."""
        self._say("finished", **self._kept(history), folder=str(run.path))

    def _kept(self, history: History) -> dict[str, Any]:
        best = history.epochs[history.best - 1]
        return {
            "epochs": len(history.epochs),
            "best_epoch": history.best,
            "keep_best": history.keep_best,
            "dev": best.dev,
        }

    def _say(self, event: str, **entries: Any) -> None:
        _say(json.dumps(without_nan({"event": event, **entries})))


class Silence:
    """Print nothing: of several processes only the first reports."""

    def start(self, *_: Any) -> None:
        """Nothing."""

    member = epoch = end = finished = start


Report = Text | Json | Silence


def report(*, writes: bool, as_json: bool) -> Report:
    """The report of this process."""
    if not writes:
        return Silence()
    return Json() if as_json else Text()


def _say(line: str) -> None:
    if "lightning" in sys.modules:  # a line must not break a progress bar
        from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

        Tqdm.write(line, file=sys.stdout)
    else:
        print(line)
    sys.stdout.flush()


def _classes(data: Data) -> dict[str, dict[str, int]]:
    """The classes of the training pairs, with the number of pairs of each."""
    train = data.parts["train"]
    first, second = class_counts(train.classes, train.labels), class_counts(train.second_classes, train.second)
    return ({"classes": first} if first else {}) | ({"second_classes": second} if second else {})


def _why(history: History) -> str:
    """Why the kept epoch was kept, and its results."""
    dev = history.epochs[history.best - 1].dev
    if not dev:
        return "the last; --dev would choose"
    if history.keep_best == LAST:
        return f"the last: {_shown(dev)}"
    if math.isnan(dev[history.keep_best]):
        return f"best dev loss ({_name(history.keep_best)} is not defined): {_shown(dev)}"
    return f"best dev {_name(history.keep_best)}: {_shown(dev)}"


def _weights(model: TwoTowers) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _shown(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{_name(name)} {value:.4f}" for name, value in metrics.items())


def _name(metric: str) -> str:
    return {"auc": "AUC", "pearson": "Pearson's r"}.get(metric, metric)
