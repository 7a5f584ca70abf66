"""What is there only to be quick, each beside the same call without it: the gain that its docstring names."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Float, Int
from report import Row
from timing import interleaved
from torch import Tensor

from towers import Ragged, RaggedLSTM, Tower
from towers.contracts import contract
from towers.contracts.codegen import conditions
from towers.data import SentencePairs, WordVectors, words
from towers.data import vectors as vectors_module
from towers.kernels import torch_lstm
from towers.kernels.batch import Batch, Weights
from towers.layers import lstm as lstm_file
from towers.layers import plain_lstm
from towers.layers.word_table import WordTable
from towers.training.loop import TowersModule
from towers.training.prediction import Predictor
from towers.training.presets import PRESETS, build

TITLE = "Quick paths, each beside the same call without it"
Calls = dict[str, Callable[[], object]]
WITH, WITHOUT = "with the quick path", "without"
VOCABULARY = [f"word{number}" for number in range(500)]


def replaced(module: Any, name: str, value: object, call: Callable[[], object]) -> Callable[[], object]:
    """A call with another value of a module's name; to be fair, both of a pair are made by it."""

    def run() -> object:
        with patch.object(module, name, value):
            return call()

    return run


def few_lengths() -> Calls:
    """`conditions.holds` and `conditions.between`: a few lengths are compared by Python."""

    def call(x: Float[Tensor, "batch words 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "batch words 8"]:
        return x

    x, lengths = torch.zeros(8, 9, 8), torch.tensor([9, 8, 7, 6, 5, 4, 3, 2])
    function = contract(where=("1 <= lengths", "lengths <= words"))(call)
    few = {WITH: conditions.FEW, WITHOUT: 0}
    return {name: replaced(conditions, "FEW", most, lambda: function(x, lengths)) for name, most in few.items()}


def two_bounds() -> Calls:
    """`conditions.between`: both bounds of lengths at once."""

    def call(x: Float[Tensor, "batch words 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "batch words 8"]:
        return x

    x, lengths = torch.zeros(256, 9, 8), torch.arange(256) % 9 + 1
    quick = contract(where=("1 <= lengths <= words",))(call)
    quick(x, lengths)
    with patch.object(conditions, "between", lambda *_: False):
        slow = contract(where=("1 <= lengths <= words",))(call)
        slow(x, lengths)
    return {WITH: lambda: quick(x, lengths), WITHOUT: lambda: slow(x, lengths)}


def ascii_words() -> Calls:
    """`words.split_words`: a rule without the letters and marks of other scripts, for ASCII."""
    text, whole = "Two dogs don't run in the well-known field, at 3.5 miles an hour. " * 100, words._rule(False)
    assert whole.findall(text) == words.split_words(text)
    return {WITH: lambda: words.split_words(text), WITHOUT: lambda: whole.findall(text)}


def finite_numbers() -> Calls:
    """`vectors._all_finite`: float16 numbers are looked at as bits."""
    part = torch.randn(4000, 300).half()
    return {WITH: lambda: vectors_module._all_finite(part), WITHOUT: lambda: bool(part.isfinite().all())}


def both_sides() -> Calls:
    """`TowersModule._states`: a training step's sentences of both sides through a shared tower in one call."""
    model, table = build(PRESETS["similarity"], vector_width=50), torch.randn(500, 50)
    left, right = (Ragged.from_list([torch.randint(500, (8,)) for _ in range(32)]) for _ in range(2))
    share: Any = SimpleNamespace(batch=SimpleNamespace(left=left.with_table(table), right=right.with_table(table)))

    def step(together: bool) -> Callable[[], object]:
        module: Any = SimpleNamespace(model=model, _together=together)

        def call() -> object:
            states = TowersModule._states(module, share)
            return torch.autograd.grad(model.compare(*states).sum(), list(model.parameters()), allow_unused=True)

        return call

    return {WITH: step(True), WITHOUT: step(False)}


def one_pair() -> Calls:
    """`Predictor.one`: a pair without what is only worth its time for many."""
    predictor = Predictor(build(PRESETS["similarity"], vector_width=50), WordVectors(VOCABULARY, torch.randn(500, 50)))
    left, right = tuple(VOCABULARY[:7]), tuple(VOCABULARY[5:12])
    pairs = SentencePairs([left], [right])
    assert (predictor.one(left, right) - predictor(pairs)).abs().max() < 1e-6
    return {WITH: lambda: predictor.one(left, right), WITHOUT: lambda: predictor(pairs)}


def met_words() -> Calls:
    """`MetWords` and `WordTable`: a pair's words are multiplied once, when they come first."""
    vectors = WordVectors(VOCABULARY, torch.randn(500, 300))
    predictor = Predictor(build(PRESETS["similarity"], vector_width=300), vectors)
    predictor.private = True  # as a loaded model has it
    left, right = tuple(VOCABULARY[:7]), tuple(VOCABULARY[5:12])

    def call() -> Tensor:
        return predictor.one(left, right)

    ways = {WITH: staticmethod(WordTable.of), WITHOUT: staticmethod(lambda table: None)}
    return {name: replaced(WordTable, "of", way, call) for name, way in ways.items()}


def words_of_a_batch() -> Calls:
    """`plain_lstm.run_word_ids`: each word of a batch of ids is multiplied once."""
    tower, table = Tower(filters=None, hidden=100, bidirectional=True, reduce="max"), torch.randn(500, 300)
    sentences = Ragged.from_list([torch.randint(500, (9,)) for _ in range(256)]).with_table(table)

    def call() -> Tensor:
        with torch.no_grad():
            return tower(sentences)

    ways: dict[str, object] = {WITH: plain_lstm.run_word_ids, WITHOUT: lambda *_, **__: None}
    return {name: replaced(lstm_file, "run_word_ids", way, call) for name, way in ways.items()}


def clean_padding() -> Calls:
    """`torch_lstm._to_clean`: padding that is finite is not filled with zeros, in training without the C code."""
    layer, values = RaggedLSTM(32, 32), torch.randn(64, 32, 32)
    lengths, zeros = torch.randint(1, 33, (64,)), torch.zeros(1, 64, 32)
    weights = Weights(tuple(layer.parameters()), 2, False, 1, False, 0.0)

    def step() -> object:
        _, (h_n, _) = torch_lstm.run(Batch(values, None, lengths, 32), (zeros, zeros), weights, outputs=False)
        return torch.autograd.grad(h_n.sum(), list(weights.flat))

    ways = {WITH: torch_lstm._to_clean, WITHOUT: lambda _: True}
    return {name: replaced(torch_lstm, "_to_clean", way, step) for name, way in ways.items()}


PATHS: dict[str, Callable[[], Calls]] = {
    "a few lengths": few_lengths,
    "two bounds at once": two_bounds,
    "words of ASCII": ascii_words,
    "finite numbers of float16": finite_numbers,
    "both sides in one call": both_sides,
    "one pair": one_pair,
    "words that came before": met_words,
    "words of a batch": words_of_a_batch,
    "padding that is finite": clean_padding,
}


def cases(quick: bool) -> list[str]:
    return list(PATHS)


def measure(case: str, device: torch.device, *, quick: bool) -> list[Row]:
    torch.manual_seed(0)
    timings = interleaved(PATHS[case](), torch.device("cpu"), seconds=0.1 if quick else 2)
    return [
        Row(
            "quick-paths", case, name, "call", timing.milliseconds, timing.time_ratio, None,
            {"spread": timing.spread, "rounds": timing.rounds},
        )
        for name, timing in timings.items()
    ]  # fmt: skip
