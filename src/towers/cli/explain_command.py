"""`towers explain`: both towers stage by stage, in names and in numbers, then the question that began it all."""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from towers.cli.answers import Answer, answers
from towers.contracts import ShapeContractError, trace
from towers.layers.lstm import RaggedLSTM
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.model import Tower, TwoTowers

SENTENCES = 3
"""The sentences of the batch that is walked through."""


class Stage(NamedTuple):
    """What happens at one boundary, in names and in numbers."""

    name: str
    does: str
    arrives: str
    demands: str
    leaves: str
    weights: int
    why: str
    """How these weights come together."""


def run(arguments: argparse.Namespace) -> None:
    """Walk, try, print."""
    model = TwoTowers() if arguments.model is None else TwoTowers.load(arguments.model)
    towers = {"left": model.left, "right": model.right}
    words = arguments.words
    if words is not None and all(tower.words not in (None, words) for tower in towers.values()):
        taken = " and ".join(str(size) for size in dict.fromkeys(tower.words for tower in towers.values()))
        raise ValueError(f"--words {words}: the towers take sentences of exactly {taken} words")
    walks = {name: walk(tower, tower.words or words or 9) for name, tower in towers.items()}
    found = list(answers(model))
    total = sum(weight.numel() for weight in model.parameters())
    if arguments.json:
        stages = {name: [stage._asdict() for stage in stages] for name, stages in walks.items()}
        told = {**stages, "head": [stage._asdict() for stage in head(model)], "weights": total}
        print(json.dumps({**told, "answers": [answer._asdict() for answer in found]}, indent=1))
        return
    for name, tower in towers.items():
        same = " (one tower reads both sides)" if tower is model.left and name == "right" else ""
        _tell(f"{name}: {_title(tower)}{same}", walks[name])
    _tell("head: the two states meet", head(model))
    print(f"{total:,} weights in all\n")
    print("\n\n".join(_answer(answer) for answer in found))


def walk(tower: Tower, words: int) -> list[Stage]:
    """The stages of a tower for sentences of `words` words.

    Raises:
        ValueError: the tower takes no sentences of `words` words; its own message says which.
    """
    vectors = torch.zeros(SENTENCES, words, tower.vector_width, dtype=tower.conv.weight.dtype)
    try:
        with torch.no_grad():
            tower(vectors)
    except ShapeContractError as error:
        raise ValueError(f"--words {words}: {str(error).splitlines()[0]}") from None
    rows = {row.path: row for row in trace(tower, vectors).rows}
    stages: list[Stage] = []
    for layer, does in ((tower.conv, _phrases(tower)), (tower.pool, _largest(tower)), (tower.lstm, "the last state")):
        path = next(name for name, module in tower.named_children() if module is layer)
        came, went = rows[path].numbers.split(" -> ")
        if layer is tower.lstm:
            symbols, went = f"(batch, {tower.hidden})", f"({SENTENCES}, {tower.hidden})"
        else:
            symbols = rows[path].went
        stages.append(
            Stage(
                f"{path}: {type(layer).__name__}",
                does,
                f"{rows[path].came}  here {came}",
                demanded(layer),
                f"{symbols}  here {went}",
                *weights(layer),
            )
        )
    return stages


def head(model: TwoTowers) -> list[Stage]:
    """From two states to one logit."""
    hidden, dense = model.hidden, model.dense.out_features
    states = f"(batch, {hidden})"
    return [
        Stage("compare", "left state - right state", f"{states} twice", demanded(model, "compare"), states, 0, "none"),
        Stage("dense: Linear", "and ReLU", states, f"{hidden} wide", f"(batch, {dense})", *weights(model.dense)),
        Stage(
            "logit: Linear",
            "one number; its sigmoid is the probability",
            f"(batch, {dense})",
            f"{dense} wide",
            "(batch)",
            *weights(model.logit),
        ),
    ]


def demanded(layer: nn.Module, method: str = "forward") -> str:
    """What a contract demands of its first argument, with the sizes of this very layer in it."""
    signature: Any = getattr(type(layer), method).__contract__
    first = next(name for name in signature.arguments if name not in ("self", "return"))
    about_values = ("lengths",)
    texts = [
        signature.arguments[first][0].text,
        *(one.text for one in signature.where if not any(name in one.text for name in about_values)),
    ]
    return "; ".join(_with_sizes(layer, text) for text in dict.fromkeys(texts))


def _with_sizes(layer: nn.Module, text: str) -> str:
    def size(match: re.Match[str]) -> str:
        value: Any = layer
        for name in match[1].split("."):
            value = getattr(value, name)
        return str(value)

    return re.sub(r"\{self\.([\w.]+)\}", size, text)


def weights(layer: nn.Module) -> tuple[int, str]:
    """How many weights a layer has, and why."""
    count = sum(weight.numel() for weight in layer.parameters())
    match layer:
        case PhraseConv():
            return count, f"{layer.filters} filters x ({layer.kernel_words} words x {layer.vector_width} + 1 bias)"
        case RaggedLSTM():
            inputs = f"{layer.input_size} features + {layer.hidden_size} states + 1 bias"
            return count, f"4 gates x {layer.hidden_size} units x ({inputs})"
        case nn.Linear():
            return count, f"{layer.out_features} x ({layer.in_features} + 1 bias)"
        case FeaturePool():
            return count, "it only compares"
        case _:
            raise AssertionError(type(layer))


def _phrases(tower: Tower) -> str:
    return f"every {tower.kernel_words} neighbouring words become a phrase of {tower.conv.filters} features"


def _largest(tower: Tower) -> str:
    return f"of every {tower.pool.size} neighbouring features of a phrase the largest"


def _title(tower: Tower) -> str:
    return "sentences of " + (
        f"any number of words from {tower.kernel_words}" if tower.words is None else f"exactly {tower.words} words"
    )


def _tell(title: str, stages: Sequence[Stage]) -> None:
    print(title)
    for stage in stages:
        print(f"  {stage.name}: {stage.does}")
        count = f"{stage.weights:,}" + (f" = {stage.why}" if stage.weights else f": {stage.why}")
        rows = {"arrives": stage.arrives, "demands": stage.demands, "leaves": stage.leaves, "weights": count}
        print("\n".join(f"    {name:8} {text}" for name, text in rows.items()))
    print()


def _answer(answer: Answer) -> str:
    return "\n".join(_lines(answer))


def _lines(answer: Answer) -> Iterator[str]:
    yield answer.question
    yield from (f"  {line}" for line in answer.said)
    yield from (f"    {line}" for line in answer.tried)
