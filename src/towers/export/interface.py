"""What goes into an exported file and comes out: names, axes and dtypes, and the batches that it is compared on."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from towers.model import Tower, TwoTowers

Source = Literal["vectors", "ids"]
Place = Literal["inside", "outside"]


@dataclass(frozen=True)
class Input:
    """An input of the file: its axes are names (any size) or sizes."""

    name: str
    dtype: torch.dtype
    axes: tuple[str | int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {str(self.dtype).removeprefix('torch.')} ({', '.join(map(str, self.axes))})"


@dataclass(frozen=True)
class Interface:
    """The inputs of a file.

    Attributes:
        model: the towers.
        source: "vectors" (batch, words, width) or "ids" (batch, words).
        table: with ids the vectors (vocabulary, width); "outside": they are an input.
        place: where the table is; None for vectors.
    """

    model: TwoTowers
    source: Source = "vectors"
    table: Tensor | None = None
    place: Place | None = None

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

    def draw(self, sentences: int, words: int, seed: int) -> dict[str, Tensor]:
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

    def expected(self, batch: dict[str, Tensor]) -> Tensor:
        """What the model itself gives."""
        sides = [batch["left"], batch["right"]]
        table = batch.get("table", self.table)
        if self.source == "ids" and table is not None:
            sides = [torch.nn.functional.embedding(ids, table) for ids in sides]
        with torch.no_grad():
            return self.model(*sides, batch.get("left_lengths"), batch.get("right_lengths"))
