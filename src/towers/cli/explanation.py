"""The work of `towers explain`: both towers stage by stage, in names and in numbers, and the author's questions."""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import torch
from torch import nn

from towers import checkpoint
from towers.contracts import ShapeContractError, trace
from towers.ensemble import Ensemble, load_network
from towers.layers.lstm import RaggedLSTM
from towers.layers.pair_head import PairFeatures
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.layers.word_features import WordFeatures
from towers.layers.word_map import WordMap
from towers.model import Tower, TwoTowers

SENTENCES = 3
"""The sentences of the batch that is walked through."""
WIDTH = 96
"""Characters of a line of an answer."""


class Stage(NamedTuple):
    """One stage of a tower: its input, its contract and its output, in axis names and in numbers."""

    name: str
    does: str
    arrives: str
    demands: str
    leaves: str
    weights: int
    why: str
    """How the number of weights is calculated."""


class Answer(NamedTuple):
    """A question, the answer in words, and the results of trying it on this model."""

    question: str
    said: list[str]
    tried: list[str]


def explain(arguments: argparse.Namespace) -> None:
    """Do what `towers explain` does."""
    whole = TwoTowers() if arguments.model is None else load_network(arguments.model)
    members = [one for one in whole.members if isinstance(one, TwoTowers)] if isinstance(whole, Ensemble) else [whole]
    model = members[0]
    if arguments.picture is not None:
        drawn = trace(model).to_svg()
        checkpoint.replace(arguments.picture, lambda path: path.write_text(drawn, "utf8"))
    towers = {"left": model.left, "right": model.right}
    words = arguments.words
    if words is not None and all(tower.words not in (None, words) for tower in towers.values()):
        taken = " and ".join(str(size) for size in dict.fromkeys(tower.words for tower in towers.values()))
        raise ValueError(f"--words {words}: the towers take sentences of exactly {taken} words")
    walks = {name: walk(tower, tower.words or words or 9) for name, tower in towers.items()}
    found = list(answers(model))
    total = sum(weight.numel() for weight in whole.parameters())
    if arguments.json:
        stages = {name: [stage._asdict() for stage in stages] for name, stages in walks.items()}
        heads = {name: [stage._asdict() for stage in own] for name, own in head(model).items()}
        told = {"networks": len(members), **stages, **heads, "weights": total}
        print(json.dumps({**told, "answers": [answer._asdict() for answer in found]}, indent=1))
        return
    if len(members) > 1:
        print(f"{len(members)} networks answer together, by the mean of their probabilities; the first of them:\n")
    for name, tower in towers.items():
        same = " (one tower reads both sides)" if tower is model.left and name == "right" else ""
        _tell(f"{name}: {_title(tower)}{same}", walks[name])
    for name, stages in head(model).items():
        _tell(f"{name}: the two states meet", stages)
    print(f"{total:,} weights in all\n")
    print("\n\n".join(_answer(answer) for answer in found))


def walk(tower: Tower, words: int) -> list[Stage]:
    """The stages of a tower for sentences of `words` words.

    Raises:
        ValueError: the tower takes no sentences of `words` words; its own message says which.
    """
    vectors = torch.zeros(SENTENCES, words, tower.vector_width, dtype=tower.weight.dtype)
    try:
        with torch.no_grad():
            tower(vectors)
    except ShapeContractError as error:
        raise ValueError(f"--words {words}: {str(error).splitlines()[0]}") from None
    rows = {row.path: row for row in trace(tower, vectors).rows}
    stages: list[Stage] = []
    for path, does in _parts(tower):
        layer = tower.get_submodule(path)
        came, went = rows[path].numbers.split(" -> ")
        if isinstance(layer, RaggedLSTM):
            symbols, went = f"(batch, {layer.output_width})", f"({SENTENCES}, {layer.output_width})"
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


def _parts(tower: Tower) -> list[tuple[str, str]]:
    """The name of each layer, and what it does, in the order of the forward pass."""
    ends = {"last": "the last state", "max": "the largest of its states", "mean": "the mean of its states"}
    beside = "beside it, " if tower.walks else ""
    lstm = ends[tower.reduce] + (" in both directions" if tower.hidden and tower.lstm.bidirectional else "")
    does: dict[str, Callable[[], str]] = {
        "word_map": lambda: "a linear map of each word's vector, which all that follows reads",
        "conv": lambda: _phrases(tower),
        "pool": lambda: _largest(tower),
        "lstm": lambda: lstm,
        "word_maximum": lambda: f"{beside}the largest of relu(W x + b) over the words",
        "word_mean": lambda: f"{beside}the mean of W x + b over the words",
    }
    return [(name, said()) for name, said in does.items() if getattr(tower, name) is not None]


def head(model: TwoTowers) -> dict[str, list[Stage]]:
    """From two states to the logits, of each head."""
    found = {"head": _head(model, model, model.outputs)}
    return found if model.second is None else found | {"second head": _head(model, model.second, model.second.outputs)}


def _head(model: TwoTowers, own: Any, outputs: int) -> list[Stage]:
    features: PairFeatures = own.pair_features
    dense, width = own.dense.out_features, features.width
    states = f"(batch, {model.hidden})"
    usual = features.features == ("difference",)
    meet = "left state - right state" if usual else f"side by side: {', '.join(features.features)}"
    means = "one number; its sigmoid is the probability"
    if outputs > 1:
        means = f"{outputs} numbers, for bins or classes; their softmax is the probability of each"
    leaves = "(batch)" if own is model and outputs == 1 else f"(batch, {outputs})"
    wide = f"(batch, {width})"
    return [
        Stage("compare", meet, f"{states} twice", demanded(model, "compare"), wide, 0, "none"),
        Stage("dense: Linear", "and ReLU", wide, f"{width} wide", f"(batch, {dense})", *weights(own.dense)),
        Stage("logit: Linear", means, f"(batch, {dense})", f"{dense} wide", leaves, *weights(own.logit)),
    ]


def demanded(layer: nn.Module, method: str = "forward") -> str:
    """What a contract demands of its first argument, with the sizes of this layer filled in."""
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
            twice = "2 directions x " if layer.bidirectional else ""
            return count, f"{twice}4 gates x {layer.hidden_size} units x ({inputs})"
        case WordFeatures() | WordMap():
            return count, f"{layer.features} features x ({layer.vector_width} numbers of a word + 1 bias)"
        case nn.Linear():
            return count, f"{layer.out_features} x ({layer.in_features}{'' if layer.bias is None else ' + 1 bias'})"  # pyright: ignore
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


def answers(model: TwoTowers) -> Iterator[Answer]:
    """The questions of the network's author, answered for the sizes of this model, where it has the parts."""
    parts = dict(_parts(model.left))
    if "lstm" in parts:
        yield _about_steps(model.left.lstm)
    yield Answer(
        "What did `input_shape=` do?",
        _said(
            """Nothing. In Keras's functional API a layer takes its shape from the tensor that it is called on. Keras 2
            ignores the argument in silence, Keras 3 warns."""
        ),
        [],
    )
    if {"conv", "lstm"} <= parts.keys():
        yield from _about_widths(model.left)
    if not model.left.has_other_parts:
        yield _about_chunks(model)
    if {"conv", "lstm"} <= parts.keys():
        yield _about_a_wrong_width(model.left)


def _about_steps(lstm: RaggedLSTM) -> Answer:
    width, hidden = lstm.input_size, lstm.hidden_size
    return Answer(
        "Why does an LSTM accept any number of steps?",
        _said(
            f"""It is one cell, applied to one step after the other. Its weights know how wide a step is ({width}) and
            how many units it has ({hidden}): 4 x {hidden} x ({width} + {hidden} + 1). The number of steps is
            not among them."""
        ),
        [f"lstm(zeros(1, {steps}, {width})): the last state is {_state_shape(lstm, steps)}" for steps in (1, 4, 100)],
    )


def _about_widths(tower: Tower) -> Iterator[Answer]:
    filters, pool, width = tower.conv.filters, tower.pool.size, tower.lstm.input_size
    yield Answer(
        f"Where does the width of {width} come from?",
        _said(
            f"""{filters} filters, of which the largest of every {pool} neighbours is kept: {filters} / {pool} =
            {width}. The pooling runs over the features of a step, never over the steps: that is what
            `channels_first` means for data that is (batch, steps, features)."""
        ),
        [],
    )


def _about_a_wrong_width(tower: Tower) -> Answer:
    lstm, filters, width = tower.lstm, tower.conv.filters, tower.lstm.input_size
    return Answer(
        "And what happens now with a wrong width?",
        _said(f"The {filters} features before pooling, given to the LSTM that was made for {width}:"),
        [f"lstm(zeros(3, 16, {filters}))", *_refusal(lambda: lstm(torch.zeros(3, 16, filters)))],
    )


def _about_chunks(model: TwoTowers) -> Answer:
    tower = model.left if model.right.words is None else model.right
    words = tower.words or tower.kernel_words + 3
    steps = words - tower.kernel_words + 1
    fitting = [size for size in range(1, steps + 1) if steps % size == 0]
    wrong = next((size for size in range(2, steps) if steps % size), steps + 1)
    sentences = torch.rand(7, words, tower.vector_width, generator=torch.Generator().manual_seed(0))
    whole = _rebuilt(tower, words, None)(sentences)
    apart = max(float((_rebuilt(tower, words, size)(sentences) - whole).abs().max()) for size in fitting)
    return Answer(
        f"What would {_listed(fitting, 'and')} mean?",
        _said(
            f"""How many of its {steps} steps ({words} words, {tower.kernel_words} a phrase) the LSTM is fed at a time:
            `chunk`. It carries its state from one part to the next and ends in the same state."""
        ),
        [
            f"chunk={_listed(fitting, 'or')}: the states differ by {_at_most(apart)}",
            f"chunk={wrong}: {_refusal(lambda: _rebuilt(tower, words, wrong))[0]}",
        ],
    )


def _at_most(apart: float) -> str:
    """A difference as text that is the same on every machine while it is within float32's rounding error."""
    return "at most 1e-06" if apart <= 1e-6 else f"{apart:.0e}"


def _rebuilt(tower: Tower, words: int, chunk: int | None) -> Tower:
    """The same tower for exactly this number of words, with its steps divided into chunks."""
    sizes: dict[str, Any] = {**tower.config(), "words": words, "chunk": chunk}
    other = Tower(**sizes)
    other.load_state_dict(tower.state_dict())
    return other.requires_grad_(False)


def _state_shape(lstm: RaggedLSTM, steps: int) -> str:
    with torch.no_grad():
        _, (h_n, _) = lstm(torch.zeros(1, steps, lstm.input_size, dtype=lstm.weight_ih_l0.dtype))
    return str(tuple(h_n[-1].shape))


def _refusal(call: Callable[[], object]) -> list[str]:
    """The lines of the error that a call raises; the call must fail."""
    try:
        call()
    except (TypeError, ValueError) as error:
        return str(error).splitlines()
    raise AssertionError("this was meant to be refused")


def _said(text: str) -> list[str]:
    return wrap(" ".join(text.split()), WIDTH)


def _listed(sizes: list[int], word: str) -> str:
    *front, last = map(str, sizes)
    return f"{', '.join(front)} {word} {last}" if front else last
