"""How `heads.c` is called: the logits of heads with one dense layer, of queries and of items.

Sizes and dtypes must fit each other: the caller checks them (`towers.search`), for C reads whatever lies there.
"""

import ctypes
from ctypes import c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels.cpu.library import code
from towers.kernels.cpu.threads import start

BLOCK, CHUNK, FEWEST = 16, 64, 4
"""Items that lie side by side, numbers of a state that are added up before others are, units of a vector of units."""
PART, PART_OF_LINES = 64, 8
"""Blocks of items that a thread takes at a time: the weights of a query are laid out for them, or all queries meet
them."""


class Job(ctypes.Structure):
    """The struct `Job` of `heads.c`."""

    _fields_ = (
        *((name, c_void_p) for name in ("queries", "blocks", "from_", "absolute", "linear", "product")),
        *((name, c_void_p) for name in ("bias", "weights", "offsets", "logits")),
        *((name, c_int64) for name in ("n_queries", "n_blocks", "hidden", "units", "outputs", "part", "parts", "next")),
    )


class Folded(NamedTuple):
    """A head in few products. For a query's state a and an item's b, the dense unit u is the sum over the numbers i of
    absolute[i, u] |a_i - b_i| + linear[i, u] (a_i - b_i) + product[i, u] a_i b_i, and bias[u].

    absolute, linear, product: "hidden units"; the number of units is a multiple of 4.
    bias: "units".
    weights, offsets: of the second layer, "outputs units" and "outputs".
    """

    absolute: Tensor
    linear: Tensor
    product: Tensor
    bias: Tensor
    weights: Tensor
    offsets: Tensor

    def to(self, dtype: torch.dtype) -> "Folded":
        """The same in another dtype."""
        return Folded(*(part.to(dtype).contiguous() for part in self))


def serves(dtype: torch.dtype) -> bool:
    """Whether the C code runs on this machine, with this dtype."""
    return code(dtype) is not None


def roundings(hidden: int, units: int) -> int:
    """How many roundings, one after the other, are between a state and a logit at most, those of the weights too."""
    return 2 * min(hidden, CHUNK) + -(-hidden // CHUNK) + units + 8


def logits(queries: Tensor, blocks: Tensor, head: Folded, first: Tensor | None = None) -> Tensor:
    """The logits of queries and items, summed in the order of `heads.c`.

    `python benchmarks/run.py search-heads` measures it beside torch.

    Args:
        queries: "queries hidden".
        blocks: states of items, "blocks hidden 16".
        head: of the same dtype.
        first: "queries+1": where the blocks of each query begin; None: each query meets all blocks.

    Returns:
        "outputs queries items", or with `first` "outputs items", for the items of whole blocks.
    """
    shape = (len(head.offsets), *((len(queries),) if first is None else ()), len(blocks) * BLOCK)
    found = queries.new_empty(shape)
    if not found.numel():
        return found
    most = len(blocks) if first is None else int(first.diff().max())
    threads = torch.get_num_threads()
    part = max(1, min(PART, -(-most * len(queries) // threads)))
    tensors = {"queries": queries.contiguous(), "blocks": blocks.contiguous(), **head._asdict(), "logits": found}
    if first is not None:
        tensors["from_"] = first
    job = Job(
        **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        n_queries=len(queries), n_blocks=len(blocks), hidden=queries.shape[1], units=len(head.bias),
        outputs=len(head.offsets), part=part, parts=-(-most // part), next=0,
    )  # fmt: skip
    own = code(queries.dtype)
    assert own is not None
    start(own.heads_logits, job, min(threads, len(queries) * job.parts))
    return found


def lines(queries: Tensor, blocks: Tensor, bend: Tensor, slope: Tensor) -> Tensor:
    """Scores "queries items" of whole blocks: sums over the numbers i of bend[i] |a_i - b_i| + slope[i] b_i.

    `python benchmarks/run.py search-heads` measures it: the rows of candidates.

    Args:
        queries: the a, "queries hidden".
        blocks: the b, "blocks hidden 16".
        bend, slope: "queries hidden".
    """
    found = queries.new_empty(len(queries), len(blocks) * BLOCK)
    tensors = {"queries": queries, "blocks": blocks, "absolute": bend, "linear": slope, "logits": found}
    kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
    parts = -(-len(blocks) // PART_OF_LINES)
    job = Job(
        **{name: tensor.data_ptr() for name, tensor in kept.items()},
        n_queries=len(queries), n_blocks=len(blocks), hidden=queries.shape[1], part=PART_OF_LINES, parts=parts,
    )  # fmt: skip
    own = code(queries.dtype)
    assert own is not None
    start(own.heads_lines, job, max(1, min(torch.get_num_threads(), parts)))
    return found
