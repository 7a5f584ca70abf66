"""Sentences of different lengths end to end, with no padding between them."""

from collections.abc import Iterator, Sequence
from typing import Any, Self, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from towers.contracts import ShapeContractError, contract
from towers.contracts.errors import complaint
from towers.contracts.hints import register_hints
from towers.contracts.modes import may_read
from towers.contracts.operations import operation, unknown_size
from towers.kernels.batch import is_plain
from towers.kernels.onnx_operator import exporting_onnx
from towers.kernels.order import offsets_of, time_order
from towers.ragged_checks import check_ids, check_list, check_offsets, clamped, distinct
from towers.shape_hints import HINTS

register_hints("towers", HINTS)


def _from_padded_shape(cls: "type[Ragged]", padded: Tensor, lengths: Tensor | None = None) -> "Ragged":
    """What `verify` runs in place of `Ragged.from_padded`."""
    batch, words = padded.shape[:2]
    offsets = torch.empty(batch + 1, dtype=torch.int64, device=padded.device)
    tokens = batch * words if lengths is None else unknown_size(lengths)
    return cls.unchecked(padded.new_empty(tokens, *padded.shape[2:]), offsets, words if lengths is None else None)


class Ragged:
    """Sentences of different lengths end to end: sentence i is `values[offsets[i]:offsets[i + 1]]`.

    It is the layout of jagged nested tensors and of torch's EmbeddingBag. A contract writes it as
    `Float[Ragged, "batch words width"]`; each sentence has its own length of the second axis.

    With a table, the values are word ids ("tokens"): indices of rows of the table. A contract then reads the table's
    width and dtype, every layer takes ids where it takes vectors, and `PhraseConv` multiplies each word once
    instead of each token. The table may be fixed or trained (`nn.Embedding.weight`); its gradient is dense.
    `to_padded`, `to_list` and the like return the ids; `vectors()` looks the vectors up.

    Args:
        values: all tokens: vectors ("tokens width"), or word ids ("tokens").
        offsets: the start of each sentence, then the end of the last one; from 0 to the number of tokens.
        table: the vectors of the ids, one in each row; None: the values are the vectors.

    Raises:
        ShapeContractError: values has no axis; offsets is not one axis of at least one int; values is not one axis of
            ints, beside a table.
        ValueError: offsets does not rise from 0 to the number of tokens, or an id is not a row of the table
            (`towers.contracts.checks` says when values are looked at).

    >>> import torch
    >>> from towers import Ragged
    >>> sentences = Ragged.from_list([torch.ones(2, 3), torch.zeros(4, 3)])  # of two and of four words
    >>> sentences.offsets
    tensor([0, 2, 6])
    >>> sentences
    Ragged(2 sentences, 6 tokens, each (3), float32)
    """

    values: Tensor
    offsets: Tensor
    uniform: int | None
    """The number of words of every sentence, where it is known without reading the offsets."""
    table: Tensor | None
    """The vectors of the words, where the values are word ids."""

    @contract
    def __init__(
        self,
        values: Shaped[Tensor, "tokens ..."],
        offsets: Int[Tensor, "batch+1"],
        *,
        table: Float[Tensor, "vocabulary width"] | None = None,
    ) -> None:
        if may_read(offsets):
            check_offsets(offsets, values.shape[0])
        else:
            offsets = clamped(offsets, values.shape[0])
        if table is not None:
            values = check_ids("Ragged", values, table)
        self.values, self.offsets, self.uniform = values, offsets.to(values.device, torch.int64), None
        self.table = table

    @classmethod
    def unchecked(
        cls, values: Tensor, offsets: Tensor, uniform: int | None = None, table: Tensor | None = None
    ) -> Self:
        """A Ragged without checks: the offsets must be right, and on the values' device.

        Args:
            values: as for Ragged.
            offsets: as for Ragged.
            uniform: the number of words of every sentence, if it is known and the same for all.
            table: as for Ragged.
        """
        ragged = cls.__new__(cls)
        ragged.values, ragged.offsets, ragged.uniform, ragged.table = values, offsets, uniform, table
        return ragged

    # Its sizes.

    @property
    def batch(self) -> int:
        """The number of sentences; a symbol where sizes are symbols, which `len` cannot return."""
        return self.offsets.shape[0] - 1

    def __len__(self) -> int:
        """The number of sentences."""
        return self.batch

    def __repr__(self) -> str:
        words = self.values if self.table is None else self.table
        shape = ", ".join(str(size) for size in words.shape[1:])
        kind = str(words.dtype).removeprefix("torch.")
        table = "" if self.table is None else f", ids of {len(self.table)} words"
        return f"Ragged({self.batch} sentences, {self.values.shape[0]} tokens, each ({shape}), {kind}{table})"

    @property
    def lengths(self) -> Int[Tensor, "batch"]:
        """The number of tokens of each sentence."""
        return self.offsets.diff()

    @property
    def device(self) -> torch.device:
        """The device of the values and the offsets."""
        return self.values.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the vectors: that of the table, or of the values where there is none."""
        return self.values.dtype if self.table is None else self.table.dtype

    def to(self, *args: Any, **kwargs: Any) -> "Ragged":
        """As `Tensor.to`, for another device or another dtype of the vectors; word ids keep theirs."""
        if self.table is not None:
            table = self.table.to(*args, **kwargs)
            return Ragged.unchecked(self.values.to(table.device), self.offsets.to(table.device), self.uniform, table)
        values = self.values.to(*args, **kwargs)
        return Ragged.unchecked(values, self.offsets.to(values.device), self.uniform)

    # Word ids.

    def with_table(self, table: Float[Tensor, "vocabulary width"]) -> "Ragged":
        """The same sentences, whose values are ids of the rows of a table.

        Raises:
            ShapeContractError: values is not one axis of ints, or table is not two axes of floats.
            ValueError: an id is not a row of the table (`towers.contracts.checks` says when values are looked at).
        """
        if table.dim() != 2 or not table.is_floating_point():
            came = f"{tuple(table.shape)} {str(table.dtype).removeprefix('torch.')}"
            raise ShapeContractError(complaint("Ragged.with_table", f"table is {came}; expected (words, width) floats"))
        ids = check_ids("Ragged.with_table", self.values, table)
        return Ragged.unchecked(ids, self.offsets, self.uniform, table)

    def vectors(self) -> "Ragged":
        """The same sentences with the vectors as their values; itself where there is no table."""
        if self.table is None:
            return self
        return Ragged.unchecked(self.table.index_select(0, self.values), self.offsets, self.uniform)

    def distinct(self) -> "Ragged":
        """The same sentences of ids, with a table of only their own words; itself where there is no table.

        On a GPU this waits for the GPU.
        """
        if self.table is None:
            return self
        words, ids = distinct(self.values, len(self.table))
        return Ragged.unchecked(ids, self.offsets, self.uniform, self.table.index_select(0, words))

    # Other values, other cuts.

    def with_values(self, values: Tensor) -> "Ragged":
        """The same sentences with other values, one for each token, and no table.

        Raises:
            ShapeContractError: there is not one value for each token.
        """
        if values.shape[0] != self.values.shape[0]:
            raise ShapeContractError(
                complaint("Ragged.with_values", f"values has {values.shape[0]} tokens; expected {self.values.shape[0]}")
            )
        return Ragged.unchecked(values, self.offsets, self.uniform)

    def token_sentences(self) -> Int[Tensor, "tokens"]:
        """For each token, the index of its sentence."""
        batch, tokens = self.batch, self.values.shape[0]
        order = torch.arange(batch, device=self.device)
        if self.uniform is not None:
            return order.repeat_interleave(self.uniform, output_size=tokens)
        return order.repeat_interleave(self.lengths, output_size=tokens)

    def token_positions(self) -> Int[Tensor, "tokens"]:
        """For each token, its index in its sentence."""
        starts = self.offsets[self.token_sentences()]
        return torch.arange(self.values.shape[0], device=self.device) - starts

    def _runs_shape(self, length: int) -> tuple[Tensor, Tensor]:
        """What `verify` runs in place of `runs`."""
        if self.uniform is not None:
            count: Any = self.batch * max(self.uniform - length + 1, 0)
        else:
            count = unknown_size(self.offsets)
        return self.offsets.new_empty(count), self.offsets

    @operation(_runs_shape)
    def runs(self, length: int) -> tuple[Int[Tensor, "runs"], Int[Tensor, "batch+1"]]:
        """The first token of each run of `length` neighbouring tokens of one sentence, and the offsets of the runs."""
        if self.uniform is not None:
            steps = max(self.uniform - length + 1, 0)
            first = torch.arange(self.batch, device=self.device).unsqueeze(1) * self.uniform
            index = (first + torch.arange(steps, device=self.device)).flatten()
            return index, torch.arange(self.batch + 1, device=self.device) * steps
        steps = (self.lengths - (length - 1)).clamp(min=0)
        offsets, runs = offsets_of(steps), None
        if is_plain(offsets) and not offsets.is_cpu:
            # Counting the runs would wait for the device. The sizes give their number too, if no sentence is shorter
            # than `length - 1`; if one is, the offsets are cut there, so that nothing is written out of bounds.
            runs = max(self.values.shape[0] - self.batch * (length - 1), 0)
            offsets = offsets.clamp(max=runs)
            steps = offsets.diff()
        shifts = (self.offsets[:-1] - offsets[:-1]).repeat_interleave(steps, output_size=runs)
        return torch.arange(shifts.shape[0], device=self.device).add_(shifts), offsets

    def sentences(self, first: int, last: int) -> "Ragged":
        """Sentences first, first + 1, … last - 1, as a view; on a GPU this waits for the GPU."""
        start, stop = self.offsets[[first, last]].tolist()
        return Ragged.unchecked(
            self.values[start:stop], self.offsets[first : last + 1] - start, self.uniform, self.table
        )

    def slice_words(self, start: int, stop: int) -> "Ragged":
        """Words start, start + 1, … stop - 1 of each sentence; fewer, or none, where the sentence ends before."""
        if self.uniform is not None:
            start, stop = min(start, self.uniform), min(stop, self.uniform)
            values = self.values.unflatten(0, (self.batch, self.uniform))[:, start:stop].flatten(0, 1)
            offsets = torch.arange(self.batch + 1, device=self.device) * (stop - start)
            return Ragged.unchecked(values, offsets, stop - start, self.table)
        positions = self.token_positions()
        index = ((positions >= start) & (positions < stop)).nonzero().squeeze(1)
        lengths = self.lengths.clamp(max=stop) - self.lengths.clamp(max=start)
        return Ragged.unchecked(self.values.index_select(0, index), offsets_of(lengths), table=self.table)

    def chunks(self, size: int | None) -> "Iterator[Ragged]":
        """The sentences in parts of `size` words, as `slice_words` cuts them; None: one part."""
        longest = 0 if size is None else self.longest()
        if size is None or longest <= size:
            yield self
            return
        for start in range(0, longest, size):
            yield self.slice_words(start, min(start + size, longest))

    # From and to other forms.

    @classmethod
    @contract(where=("0 <= lengths <= words",))
    @operation(_from_padded_shape)
    def from_padded(
        cls, padded: Shaped[Tensor, "batch words ..."], lengths: Int[Tensor, "batch"] | None = None
    ) -> Self:
        """From sentences padded on the right; without lengths, all words are real.

        Padding is removed, so that it is part of no result and no gradient.

        Raises:
            ShapeContractError: lengths is not one int for each sentence.
            ValueError: a length is negative or larger than `words`.
        """
        return cls.unchecked_padded(padded, lengths)

    @classmethod
    def unchecked_padded(cls, padded: Tensor, lengths: Tensor | None) -> Self:
        """As `from_padded`, for `padded` sentences whose sizes and `lengths` were checked before.

        Raises:
            ShapeContractError: there is not one length for each sentence, where contracts are off.
        """
        batch, words = padded.shape[:2]
        if lengths is None:
            offsets = torch.arange(batch + 1, device=padded.device) * words
            return cls.unchecked(padded.flatten(0, 1), offsets, uniform=words)
        if is_plain(padded, lengths) and lengths.shape != (batch,):  # contracts are off
            problem = f"lengths is {tuple(lengths.shape)}; expected ({batch},), one for each sentence"
            raise ShapeContractError(complaint("Ragged.from_padded", problem))
        if exporting_onnx():
            problem = "torch.onnx.export takes lengths for Tower, TwoTowers and RaggedLSTM; other layers go without"
            raise ValueError(complaint("Ragged.from_padded", problem))
        lengths = lengths.to(torch.int64).clamp(0, words)
        real = torch.arange(words, device=lengths.device) < lengths.unsqueeze(1)
        index = real.flatten().nonzero().squeeze(1).to(padded.device)
        offsets = F.pad(lengths.cumsum(0), (1, 0)).to(padded.device)
        return cls.unchecked(padded.flatten(0, 1).index_select(0, index), offsets)

    def _padded_shape(self, padding: float = 0.0, words: int | None = None) -> tuple[Tensor, Tensor]:
        """What `verify` runs in place of `to_padded`; the length of the longest sentence is an unknown size."""
        words = unknown_size(self.lengths) if words is None else words
        return self.values.new_empty(self.batch, words, *self.values.shape[1:]), self.lengths

    @operation(_padded_shape)
    def to_padded(
        self, padding: float = 0.0, words: int | None = None
    ) -> tuple[Shaped[Tensor, "batch words ..."], Int[Tensor, "batch"]]:
        """The sentences padded on the right, to the longest one or to `words`, and their lengths.

        Args:
            padding: the value of the padding.
            words: the number of words of each padded sentence; None: that of the longest one.

        Raises:
            ValueError: a sentence has more than `words` words.
        """
        if self.uniform is not None and words in (None, self.uniform):
            return self.values.unflatten(0, (self.batch, self.uniform)), self.lengths
        longest = self.longest()
        words = longest if words is None else words
        if longest > words:
            raise ValueError(complaint("Ragged.to_padded", f"words is {words}; the longest sentence has {longest}"))
        padded = self.values.new_full((self.batch * words, *self.values.shape[1:]), padding)
        index = self.token_sentences() * words + self.token_positions()
        return padded.index_copy(0, index, self.values).unflatten(0, (self.batch, words)), self.lengths

    def longest(self) -> int:
        """The number of tokens of the longest sentence; on a GPU this waits for the GPU."""
        if self.uniform is not None:
            return self.uniform
        return int(self.lengths.max()) if self.batch else 0

    @classmethod
    def from_list(cls, sentences: Sequence[Shaped[Tensor, "words ..."]]) -> Self:
        """From a list with a tensor for each sentence.

        Raises:
            ValueError: the list is empty (it has neither width nor dtype).
            ShapeContractError: an item is not a tensor, or has not the width and dtype of the first.
        """
        sentences = list(sentences)
        if not sentences:
            raise ValueError(
                complaint("Ragged.from_list", "sentences is empty; Ragged(values, offsets) makes an empty batch")
            )
        check_list(sentences)
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        return cls.unchecked(torch.cat(sentences), offsets_of(lengths).to(sentences[0].device))

    def to_list(self) -> list[Tensor]:
        """A tensor for each sentence; they are views of the values."""
        return list(self.values.split(self.lengths.tolist()))

    @classmethod
    def from_packed(cls, packed: PackedSequence) -> Self:
        """From a PackedSequence, `packed`; the sentences are in their order before packing."""
        sizes = packed.batch_sizes
        batch = int(sizes[0]) if len(sizes) else 0
        lengths = (sizes.unsqueeze(0) > torch.arange(batch).unsqueeze(1)).sum(1)
        if packed.unsorted_indices is not None:
            lengths = lengths[packed.unsorted_indices.to(lengths.device)]
        offsets = offsets_of(lengths)
        index, _, _ = time_order(offsets, packed.sorted_indices)
        inverse = torch.empty_like(index).scatter_(0, index, torch.arange(len(index)))
        return cls.unchecked(
            packed.data.index_select(0, inverse.to(packed.data.device)), offsets.to(packed.data.device)
        )

    def to_packed(self) -> PackedSequence:
        """As a PackedSequence, longest sentence first; its batch sizes are on the CPU.

        Raises:
            ValueError: the batch is empty or a sentence has no token (a PackedSequence can hold neither).
        """
        offsets = self.offsets.cpu()
        if self.batch == 0 or bool((offsets.diff() == 0).any()):
            raise ValueError(
                complaint("Ragged.to_packed", "a PackedSequence holds no empty batch and no empty sentence")
            )
        index, batch_sizes, order = time_order(offsets)
        order = order.to(self.device)
        return PackedSequence(self.values.index_select(0, index.to(self.device)), batch_sizes, order, order.argsort())

    @classmethod
    def from_jagged(cls, jagged: Tensor) -> Self:
        """From a nested tensor of layout torch.jagged whose second axis is the ragged one.

        Where torch.nested.narrow left gaps between its sentences, the words are copied without them.

        Raises:
            ShapeContractError: it is another kind of tensor, or its ragged axis is not the second.
        """
        if not jagged.is_nested or jagged.layout is not torch.jagged:
            raise ShapeContractError(
                complaint("Ragged.from_jagged", "jagged is no nested tensor of layout torch.jagged")
            )
        if getattr(jagged, "_ragged_idx", 1) != 1:
            problem = "jagged's ragged axis is not the second: transpose it back"
            raise ShapeContractError(complaint("Ragged.from_jagged", problem))
        starts, lengths = (cast(Any, jagged).offsets().to(torch.int64), cast(Any, jagged).lengths())
        if lengths is None:
            return cls.unchecked(jagged.values(), starts)
        offsets = offsets_of(lengths.to(torch.int64))
        shifts = (starts[:-1] - offsets[:-1]).repeat_interleave(offsets.diff())
        index = torch.arange(len(shifts), device=shifts.device).add_(shifts)
        return cls.unchecked(jagged.values().index_select(0, index), offsets)

    def to_jagged(self) -> Tensor:
        """As a nested tensor of layout torch.jagged, a view of the values."""
        return torch.nested.nested_tensor_from_jagged(self.values, self.offsets)
