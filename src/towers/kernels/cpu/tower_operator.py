"""A whole tower in C as one custom operation, `towers::tower`: torch.compile keeps it as it is, and looks at no layer.

The shape of the result depends only on the shapes of the inputs, so sizes may be symbols. The backward pass runs the
forward pass again, so only the inputs are kept between the two. What it gains beside compiled layers is in the rows
"towers, compiled" of `python benchmarks/run.py tower`.
"""

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from towers.kernels.batch import as_tensors
from towers.kernels.cpu import door, tower_call
from towers.kernels.cpu.library import REALS, code

_MOST = 64
_exports = threading.local()
_accepted: dict[tuple[str | int, ...], door.Accepted] = {}


def has_code(dtype: torch.dtype) -> bool:
    """Whether there is C code for numbers of this dtype, of which a compiler asks once."""
    return dtype in REALS and code(dtype) is not None


# What `torch.compiler.assume_constant_result` does, which would load the compiler for those who never compile.
has_code._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@contextmanager
def kept_in_exports() -> Generator[None]:
    """While it is entered, torch.export puts the operations of towers and pairs into the programs of this thread.

    Otherwise a program has the operations of layers, which are torch's own but for the LSTM.
    """
    _exports.kept = True
    try:
        yield
    finally:
        _exports.kept = False


def has_place() -> bool:
    """Whether the graph that is made now may have these operations."""
    return not torch.compiler.is_exporting() or getattr(_exports, "kept", False)


def serves(tensors: Sequence[Tensor], pool: int) -> bool:
    """Whether the operation takes these weights: (kernel_positions filters width), (filters,), W_ih, W_hh and bias."""
    weight, bias, w_ih, w_hh, lstm_bias = tensors
    if not has_code(weight.dtype):
        return False
    if any(one.dtype != weight.dtype or one.device.type != "cpu" for one in tensors):
        return False
    if weight.dim() != 3 or w_hh.dim() != 2:
        return False
    filters, hidden = weight.shape[1], w_hh.shape[1]
    sizes = [(filters,), (4 * hidden, filters // pool), (4 * hidden, hidden), (4 * hidden,)]
    return filters % pool == 0 and [tuple(one.shape) for one in (bias, w_ih, w_hh, lstm_bias)] == sizes


@torch.library.custom_op("towers::tower", mutates_args=())
def tower(
    sentences: Tensor,
    offsets: Tensor | None,
    lengths: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    lstm_bias: Tensor,
    pool: int,
) -> Tensor:
    """The last states "batch hidden" of sentences: vectors "batch words width", perhaps with lengths, or end to end.

    Raises:
        ValueError: lengths or offsets are not those of such sentences, or a sentence is shorter than a phrase.
        RuntimeError: the tensors are not dense, or their sizes or dtypes do not fit each other.
    """
    words, weights = _checked(sentences, offsets, lengths, (weight, bias, w_ih, w_hh, lstm_bias), pool)
    return whole("tower", tower_call.states(words, weights))


@tower.register_fake
def _(sentences: Tensor, offsets: Tensor | None, lengths: Tensor | None, *rest: Any) -> Tensor:
    count = sentences.shape[0] if offsets is None else offsets.shape[0] - 1
    return sentences.new_empty(count, rest[3].shape[1])


@torch.library.custom_op("towers::tower_backward", mutates_args=())
def tower_backward(
    gradient: Tensor,
    sentences: Tensor,
    offsets: Tensor | None,
    lengths: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    lstm_bias: Tensor,
    pool: int,
    wants_sentences: bool,
) -> list[Tensor]:
    """The gradients of sentences (without numbers unless wanted) and weights, from that of the states."""
    words, weights = _checked(sentences, offsets, lengths, (weight, bias, w_ih, w_hh, lstm_bias), pool)
    _, kept = whole("tower", tower_call.states_and_kept(words, weights))
    gradient = door.as_before("a tower's gradient", gradient, (words.batch, weights.hidden), weights.dtype)
    of_rows, *others = tower_call.backward(words, weights, kept, gradient, wants_rows=wants_sentences)
    return [sentences.new_empty(0) if one is None else one for one in (of_rows, *others)]


@tower_backward.register_fake
def _(gradient: Tensor, sentences: Tensor, *rest: Any) -> list[Tensor]:
    of_sentences = sentences.new_empty(sentences.shape if rest[-1] else (0,))
    return [of_sentences, *(one.new_empty(one.shape) for one in rest[2:7])]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.pool = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    wanted = ctx.needs_input_grad[0]
    of_sentences, *others = tower_backward(gradient, *ctx.saved_tensors, ctx.pool, wanted)
    return of_sentences if wanted else None, None, None, *others, None


tower.register_autograd(_backward, setup_context=_keep)


def _checked(
    sentences: Tensor, offsets: Tensor | None, lengths: Tensor | None, tensors: tuple[Tensor, ...], pool: int
) -> tuple[door.Words, door.TowerWeights]:
    """What the C code takes: everything is checked by the door, as in eager code."""
    sentences, *others = as_tensors(sentences, *tensors)
    tensors = tuple(others)
    weights = door.tower_weights(memory_of("tower", tensors[0], pool), tensors, pool) if pool > 0 else None
    words = words_of(sentences, offsets, lengths, weights)
    if weights is None or words is None:
        raise misfit("tower", (sentences, *tensors), f"pool is {pool}")
    return words, weights


# What `pair_operator` needs too.


def memory_of(operation: str, weight: Tensor, *pools: int) -> door.Accepted:
    """The door's memory for a set of weights, by the address of the first: an operation has no module to keep it."""
    if len(_accepted) >= _MOST:
        _accepted.clear()
    return _accepted.setdefault((operation, weight.data_ptr(), *pools), door.Accepted())


def words_of(
    sentences: Tensor, offsets: Tensor | None, lengths: Tensor | None, weights: door.TowerWeights | None
) -> door.Words | None:
    """The sentences for the C code: padded, or end to end beside offsets. None: they do not fit."""
    if weights is None or (offsets is not None and lengths is not None):
        return None
    if offsets is None:
        return door.padded(sentences, lengths, weights)
    return door.ragged(sentences, None, offsets, None, weights, shares=False)


def misfit(operation: str, tensors: Sequence[Tensor], pools: str) -> RuntimeError:
    """The error of tensors that the door does not take."""
    shapes = ", ".join(f"{tuple(one.shape)} {one.dtype}" for one in tensors)
    problem = f"sentences and weights are {shapes}, {pools}: they do not fit, or are not dense"
    return RuntimeError(f"towers::{operation}: {problem}")


def whole(operation: str, found: Any) -> Any:
    """What a call gave.

    Raises:
        ValueError: it gave nothing, as lengths or offsets are wrong.
    """
    if found is None:
        raise ValueError(f"towers::{operation}: a sentence is shorter than a phrase or longer than its words, "
                         "or the offsets do not begin with 0 and end with the number of words")  # fmt: skip
    return found
