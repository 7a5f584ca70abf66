"""What goes into an exported file and comes out: names, axes and dtypes, and the batches that it is compared on."""

import copy
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from towers.export.onnx_graph import Graph, looked_up
from towers.export.portable import Pairs, make_portable, make_whole
from towers.model import Tower, TwoTowers

Source = Literal["vectors", "ids"]
Place = Literal["inside", "outside"]


Batch = dict[str, Tensor]

TRIED = ((3, 5), (1, 0), (5, 0), (1, 9), (0, 3), (32, 20))
"""Sentences, and words beyond the smallest number, of the batches on which file and model are compared."""


@dataclass(frozen=True)
class Input:
    """An input or output of the file: its axes are names (any size) or sizes."""

    name: str
    dtype: torch.dtype
    axes: tuple[str | int, ...]
    columns: tuple[str, ...] = ()
    """What the last axis counts: the names of classes, or the degrees of bins."""

    def __str__(self) -> str:
        columns = f": {', '.join(self.columns)}" if self.columns else ""
        return f"{self.name}: {str(self.dtype).removeprefix('torch.')} ({', '.join(map(str, self.axes))}){columns}"


class Labels(NamedTuple):
    """What the outputs of TwoTowers mean, for the metadata of a file.

    Attributes:
        classes: the names of the classes, if the model answers with classes.
        second_classes: those of the second head.
        label_range: what the probabilities 0 and 1 mean, or the first and the last bin.
        second_label_range: the same of the second head.

    >>> from towers.export import Labels
    >>> Labels(label_range=(1, 5))  # towers.export.export takes it
    Labels(classes=None, second_classes=None, label_range=(1, 5), second_label_range=(0.0, 1.0))
    """

    classes: tuple[str, ...] | None = None
    second_classes: tuple[str, ...] | None = None
    label_range: tuple[float, float] = (0.0, 1.0)
    second_label_range: tuple[float, float] = (0.0, 1.0)

    def heads(self) -> tuple["Head", "Head"]:
        """What the first and the second head answer with."""
        return Head(self.classes, self.label_range), Head(self.second_classes, self.second_label_range)


class Head(NamedTuple):
    """What the outputs of one head mean."""

    classes: tuple[str, ...] | None
    label_range: tuple[float, float]

    def columns(self, outputs: int) -> tuple[str, ...]:
        """The names of the classes, or the degrees of the bins; nothing for one logit."""
        (low, high), last = self.label_range, outputs - 1
        bins = tuple(f"{low + (high - low) * bin / last:g}" for bin in range(outputs)) if last else ()
        return bins if self.classes is None else self.classes

    def meaning(self, name: str, axes: tuple[str | int, ...], outputs: int) -> str:
        """In a sentence."""
        low, high = self.label_range
        what = f"{name} ({', '.join(map(str, axes))}): "
        if self.classes is not None:
            return what + "its softmax is the probability of each class"
        if outputs > 1:
            return what + "the score is the mean of the bins under its softmax"
        score = f", and the score is {low:g} + {high - low:g} * probability" if (low, high) != (0, 1) else ""
        return what + "its sigmoid is the probability" + score


UNNAMED = Labels()


class Interface(ABC):
    """What is exported, as every format needs it."""

    @abstractmethod
    def inputs(self) -> list[Input]:
        """The inputs, in the order of the file."""

    @abstractmethod
    def outputs(self) -> list[Input]:
        """The outputs, in the order of the file."""

    @abstractmethod
    def lowest(self) -> dict[str, int]:
        """The smallest size of each named axis."""

    @abstractmethod
    def demands(self) -> dict[str, str]:
        """What the file demands of the sizes of its inputs, for people."""

    @abstractmethod
    def draw(self, sentences: int, words: int, seed: int) -> Batch:
        """A batch with `words` words more than the smallest number."""

    @abstractmethod
    def expected(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the model itself gives."""

    @abstractmethod
    def portable(self) -> nn.Module:
        """The same in torch's own operations, for torch.export."""

    @abstractmethod
    def whole(self) -> nn.Module:
        """The model itself, with towers' own operations, for torch.export."""

    @abstractmethod
    def graph(self, graph: Graph) -> list[str]:
        """Add the same as operators of ONNX; the names of the values that are the outputs."""

    def metadata(self) -> dict[str, str]:
        """What the file says of itself: each input and output with its axes, and what is demanded."""
        return {
            "inputs": json.dumps({entry.name: list(entry.axes) for entry in self.inputs()}),
            "outputs": json.dumps({entry.name: list(entry.axes) for entry in self.outputs()}),
            "demands": json.dumps(self.demands()),
        }


@dataclass(frozen=True)
class TowersInterface(Interface):
    """Of TwoTowers.

    Attributes:
        model: the towers.
        source: "vectors" (batch, words, width) or "ids" (batch, words).
        table: with ids the vectors (vocabulary, width); "outside": they are an input.
        place: where the table is; None for vectors.
        words: the word of each row of a table inside, for the file's metadata.
        labels: what the outputs mean.
    """

    model: TwoTowers
    source: Source = "vectors"
    table: Tensor | None = None
    place: Place | None = None
    words: tuple[str, ...] | None = None
    labels: Labels = UNNAMED

    def inputs(self) -> list[Input]:
        """In the order of the file: left, right, lengths of towers for any number of words, table."""
        found: list[Input] = []
        lengths: list[Input] = []
        dtype = torch.float32 if self.source == "vectors" else torch.int64
        for side, tower in self.sides():
            words = f"{side}_words" if tower.words is None else tower.words
            width = (tower.vector_width,) if self.source == "vectors" else ()
            found.append(Input(side, dtype, ("batch", words, *width)))
            if tower.words is None:
                lengths.append(Input(f"{side}_lengths", torch.int64, ("batch",)))
        found += lengths
        if self.place == "outside":
            found.append(Input("table", torch.float32, ("vocabulary", self.model.left.vector_width)))
        return found

    def sides(self) -> tuple[tuple[str, Tower], tuple[str, Tower]]:
        """The towers by their names."""
        return ("left", self.model.left), ("right", self.model.right)

    def outputs(self) -> list[Input]:
        """The logit of each pair, or one for each class or bin; and those of the second head."""
        first, second = self.labels.heads()
        outputs, other = self.model.outputs, self.model.second
        axes = ("batch",) if outputs == 1 else ("batch", outputs)
        found = [Input("logit", torch.float32, axes, first.columns(outputs))]
        if other is not None:
            found.append(Input("second_logit", torch.float32, ("batch", other.outputs), second.columns(other.outputs)))
        return found

    def lowest(self) -> dict[str, int]:
        """As many words as the towers need."""
        words = {f"{side}_words": tower.kernel_words for side, tower in self.sides()}
        return {"batch": 0, "vocabulary": 2} | words

    def demands(self) -> dict[str, str]:
        """What each tower demands."""
        return {
            side: f"words >= {tower.kernel_words}" if tower.words is None else f"words == {tower.words}"
            for side, tower in self.sides()
        }

    def metadata(self) -> dict[str, str]:
        """With what the outputs mean, the names of their columns, and the words of the table."""
        found = super().metadata() | {"output": self._meaning()}
        columns = {entry.name: entry.columns for entry in self.outputs() if entry.columns}
        if columns:
            found["columns"] = json.dumps(columns, ensure_ascii=False)
        if self.words is not None:
            found["words"] = json.dumps(self.words, ensure_ascii=False)
        return found

    def _meaning(self) -> str:
        outputs = [self.model.outputs, 0 if self.model.second is None else self.model.second.outputs]
        heads = zip(self.labels.heads(), self.outputs(), outputs, strict=False)
        return "; ".join(head.meaning(entry.name, entry.axes, count) for head, entry, count in heads)

    def portable(self) -> nn.Module:
        """In torch's own operations."""
        return Pairs(make_portable(copy.deepcopy(self.model)), ids=self.source == "ids", table=self.table)

    def whole(self) -> nn.Module:
        """With towers' own operations."""
        return Pairs(make_whole(copy.deepcopy(self.model)), ids=self.source == "ids", table=self.table)

    def graph(self, graph: Graph) -> list[str]:
        """As operators of ONNX."""
        names: dict[str, str | None] = {"left_lengths": None, "right_lengths": None}
        names |= {entry.name: entry.name for entry in self.inputs()}
        if self.source == "ids":
            table = names.get("table") or graph.constant(self.table.numpy() if self.table is not None else 0)
            names |= {side: looked_up(graph, table, side, names[f"{side}_lengths"]) for side, _ in self.sides()}
        from towers.export.onnx_towers import towers_graph  # with numpy, which comes with onnx

        return towers_graph(graph, self.model, names)

    def draw(self, sentences: int, words: int, seed: int) -> Batch:
        """A batch: each tower's words are `words` more than it needs, or what it takes; padding holds other numbers."""
        generator = torch.Generator().manual_seed(seed)
        batch: dict[str, Tensor] = {}
        table = self._drawn_table(generator)
        for side, tower in self.sides():
            size = tower.words or tower.kernel_words + words
            if table is None:
                batch[side] = torch.randn(sentences, size, tower.vector_width, generator=generator, dtype=torch.float32)
            else:
                batch[side] = torch.randint(len(table), (sentences, size), generator=generator)
            if tower.words is None:
                batch[f"{side}_lengths"] = torch.randint(
                    tower.kernel_words, size + 1, (sentences,), generator=generator
                )
        if self.place == "outside" and table is not None:
            batch["table"] = table
        return {entry.name: batch[entry.name] for entry in self.inputs()}

    def _drawn_table(self, generator: torch.Generator) -> Tensor | None:
        if self.place == "outside":
            return torch.randn(50, self.model.left.vector_width, generator=generator, dtype=torch.float32)
        return self.table

    def expected(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the model itself gives."""
        sides = [batch["left"], batch["right"]]
        table = batch.get("table", self.table)
        if self.source == "ids" and table is not None:
            sides = [torch.nn.functional.embedding(ids, table) for ids in sides]
        lengths = batch.get("left_lengths"), batch.get("right_lengths")
        second = self.model.second
        with torch.no_grad():
            logits = self.model(*sides, *lengths)
            return (logits,) if second is None else (logits, second(*self.model.states(sides[0], sides[1], *lengths)))
