"""The work of `towers evaluate`."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from towers.checkpoint import without_nan
from towers.cli.common import COLUMNS, LABELS, READING, answering, chosen, fitted, newest, skipping
from towers.data import SentencePairs, WordVectors
from towers.model_config import Config
from towers.training import assess
from towers.training.fitting import MEASURING_BATCH, all_logits
from towers.training.metrics import are_soft, pearson
from towers.training.objectives import mean_bin

NAMES = {"pearson": "Pearson's r", "spearman": "Spearman's rho", "mse": "mean squared error", "auc": "AUC", "f1": "F1",
         "majority": "majority class", "cosine_pearson": "Pearson's r of the cosine of mean vectors"}  # fmt: skip


def evaluate(arguments: argparse.Namespace) -> None:
    """Do what `towers evaluate` does."""
    arguments.model = newest(arguments)
    config = Config(arguments.model)
    of_second = ("second_label_column", "second_classes", "second_label_range")
    known = ("fit_length", "yes", *of_second)
    options: dict[str, Any] = COLUMNS | LABELS | dict.fromkeys(known) | config.data
    wanted = chosen(arguments, {name: options[name] for name in (*COLUMNS, *LABELS, "fit_length", "yes")})
    fit_length = wanted.pop("fit_length")
    second = {name: options[name] for name in of_second}
    label_range = (float(wanted["label_range"][0]), float(wanted["label_range"][1]))
    reading = chosen(arguments, READING) | {"label_range": label_range, "classes": config.classes or False}
    pairs = None if arguments.skip_bad else SentencePairs.load(arguments.pairs, **(wanted | reading), **second)
    with answering(arguments) as model:
        if pairs is None:
            pairs = skipping(arguments.pairs, model.network, wanted | reading | second, reading, "evaluate")
        if not len(pairs):
            raise ValueError(f"{arguments.pairs}: there are no pairs")
        pairs = fitted(pairs, model.network, fit_length, "predict")
        vectors = model.words_of(pairs)
        first, seconds = all_logits(
            model.network, pairs.with_vectors(vectors), MEASURING_BATCH, "auto", "32-true", False
        )
        if not bool(first.isfinite().all() and seconds.isfinite().all()):
            raise ValueError(f"{arguments.model}: the model gives no number for some pairs; train it again")
        assert pairs.labels is not None
        objective = model.objective
        cosine: float | None = None
        if objective.kind == "classes":
            found = assess.of_classes(first, pairs.labels)
        elif are_soft(pairs.labels) or objective.kind == "bins":
            found = assess.of_degrees(objective.answer(first.double()), pairs.labels, label_range)
            cosine = _of_cosine(pairs, vectors, pairs.labels)
        else:
            found = assess.of_yes_and_no(first, pairs.labels)
        said = assess.shortfalls(found, cosine)
        if pairs.second is not None:
            of_second = _of_second(seconds, pairs, second)
            degrees = pairs.second_classes is None
            other = _of_cosine(pairs, vectors, pairs.second) if degrees else None
            said += assess.shortfalls(of_second, other, "of the second label, ")
            found |= {f"second_{name}": value for name, value in of_second.items()}
        if cosine is not None:
            found["cosine_pearson"] = cosine
    _say(len(pairs), found, said, as_json=arguments.json)


def _of_cosine(pairs: SentencePairs, vectors: WordVectors, labels: Tensor) -> float:
    return pearson(assess.cosine(pairs, vectors).double(), labels.double())


def _of_second(logits: Tensor, pairs: SentencePairs, how: Mapping[str, Any]) -> dict[str, float]:
    assert pairs.second is not None
    if pairs.second_classes is not None:
        return assess.of_classes(logits, pairs.second)
    low, high = how["second_label_range"]
    return assess.of_degrees(mean_bin(logits.double().softmax(-1)), pairs.second, (low, high))


def _say(pairs: int, found: dict[str, float], said: list[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(without_nan({"pairs": pairs, **found})))
    else:
        print(f"{pairs} pairs")
        for name, value in found.items():
            second = name.startswith("second_")
            plain = name.removeprefix("second_")
            print(f"{value:.4f}\t{'second label: ' if second else ''}{NAMES.get(plain, plain)}")
    for problem in said:
        print(f"towers evaluate: warning: {problem}", file=sys.stderr, flush=True)
