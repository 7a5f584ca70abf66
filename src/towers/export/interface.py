"""What goes into an exported file and comes out: names, axes and dtypes, and the batches that it is compared on."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from towers.export.onnx_graph import Graph
from towers.export.portable import Portable
from towers.export.with_towers import WholeTowers
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

    def __str__(self) -> str:
        return f"{self.name}: {str(self.dtype).removeprefix('torch.')} ({', '.join(map(str, self.axes))})"


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
    """

    model: TwoTowers
    source: Source = "vectors"
    table: Tensor | None = None
    place: Place | None = None
    words: tuple[str, ...] | None = None

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
        """The logit of each pair."""
        return [Input("logit", torch.float32, ("batch",))]

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
        """With what the logit means, and the words of the table."""
        words = {} if self.words is None else {"words": json.dumps(self.words, ensure_ascii=False)}
        return super().metadata() | {"output": "logit (batch): its sigmoid is the probability"} | words

    def portable(self) -> nn.Module:
        """In torch's own operations."""
        return Portable(self.model, ids=self.source == "ids", table=self.table)

    def whole(self) -> nn.Module:
        """With towers' own operations."""
        return WholeTowers(self.model, ids=self.source == "ids", table=self.table)

    def graph(self, graph: Graph) -> list[str]:
        """As operators of ONNX."""
        names: dict[str, str | None] = {"left_lengths": None, "right_lengths": None}
        names |= {entry.name: entry.name for entry in self.inputs()}
        if self.source == "ids":
            table = names.get("table") or graph.constant(self.table.numpy() if self.table is not None else 0)
            names |= {side: graph.node("Gather", table, side, axis=0) for side in ("left", "right")}
        from towers.export.onnx_towers import towers_graph  # with numpy, which comes with onnx

        return [towers_graph(graph, self.model, names)]

    def draw(self, sentences: int, words: int, seed: int) -> Batch:
        """A batch: each tower's words are `words` more than it needs, or what it takes; padding holds other numbers."""
        generator = torch.Generator().manual_seed(seed)
        batch: dict[str, Tensor] = {}
        table = self._drawn_table(generator)
        for side, tower in self.sides():
            size = tower.words or tower.kernel_words + words
            if table is None:
                batch[side] = torch.randn(sentences, size, tower.vector_width, generator=generator)
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
            return torch.randn(50, self.model.left.vector_width, generator=generator)
        return self.table

    def expected(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the model itself gives."""
        sides = [batch["left"], batch["right"]]
        table = batch.get("table", self.table)
        if self.source == "ids" and table is not None:
            sides = [torch.nn.functional.embedding(ids, table) for ids in sides]
        with torch.no_grad():
            return (self.model(*sides, batch.get("left_lengths"), batch.get("right_lengths")),)
