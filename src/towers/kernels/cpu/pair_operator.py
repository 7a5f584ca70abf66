"""Two towers with their head in C as one custom operation, `towers::pair`, as `towers::tower` is one tower.

A compiled pair is this operation alone. What it gains beside two operations and compiled dense layers is in the rows
"two towers, compiled" of `python benchmarks/run.py tower`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from towers.kernels.batch import as_tensors
from towers.kernels.cpu import door, tower_call
from towers.kernels.cpu.tower_operator import memory_of, misfit, serves, whole, words_of


def serves_pair(tensors: Sequence[Tensor], left_pool: int, right_pool: int) -> bool:
    """Whether the operation takes these weights, in the order of `PairWeights`."""
    if not serves(tensors[:5], left_pool) or not serves(tensors[5:10], right_pool):
        return False
    head, like, hidden = tensors[10:], tensors[0], tensors[3].shape[1]
    if tensors[8].shape[1] != hidden or tensors[5].dtype != like.dtype or head[0].dim() != 2:
        return False
    units = head[0].shape[0]
    sizes = [(units, hidden), (units,), (1, units), (1,)]
    return all(
        one.dtype == like.dtype and one.device.type == "cpu" and tuple(one.shape) == size
        for one, size in zip(head, sizes, strict=True)
    )


@torch.library.custom_op("towers::pair", mutates_args=())
def pair(
    left: Tensor,
    left_offsets: Tensor | None,
    left_lengths: Tensor | None,
    right: Tensor,
    right_offsets: Tensor | None,
    right_lengths: Tensor | None,
    weights: Sequence[Tensor],
    left_pool: int,
    right_pool: int,
) -> Tensor:
    """The logits "batch" of pairs; each side as `towers::tower` takes it, the weights in the order of `PairWeights`.

    Raises:
        ValueError: lengths or offsets are not those of such sentences, or a sentence is shorter than a phrase.
        RuntimeError: there are not as many sentences on both sides, the tensors are not dense, or their sizes or dtypes
            do not fit each other.
    """
    sides = (left, left_offsets, left_lengths), (right, right_offsets, right_lengths)
    return whole("pair", tower_call.logits(*_checked(sides, weights, left_pool, right_pool)))


@pair.register_fake
def _(left: Tensor, left_offsets: Tensor | None, *rest: Any) -> Tensor:
    return left.new_empty(left.shape[0] if left_offsets is None else left_offsets.shape[0] - 1)


@torch.library.custom_op("towers::pair_backward", mutates_args=())
def pair_backward(
    gradient: Tensor,
    left: Tensor,
    left_offsets: Tensor | None,
    left_lengths: Tensor | None,
    right: Tensor,
    right_offsets: Tensor | None,
    right_lengths: Tensor | None,
    weights: Sequence[Tensor],
    left_pool: int,
    right_pool: int,
    wants_left: bool,
    wants_right: bool,
) -> list[Tensor]:
    """The gradients of both sides (without numbers unless wanted) and of all weights, from that of the logits."""
    sides = (left, left_offsets, left_lengths), (right, right_offsets, right_lengths)
    one, other, own = _checked(sides, weights, left_pool, right_pool)
    _, kept = whole("pair", tower_call.logits_and_kept(one, other, own))
    gradient = door.as_before("a logit's gradient", gradient, (one.batch,), own.left.dtype)
    wanted = (wants_left, wants_right, *[True] * len(weights))
    found = tower_call.pair_backward(one, other, own, kept, gradient, wanted)
    return [left.new_empty(0) if part is None else part for part in found]


@pair_backward.register_fake
def _(gradient: Tensor, *rest: Any) -> list[Tensor]:
    left, right, weights, wants = rest[0], rest[3], rest[6], rest[-2:]
    sides = [one.new_empty(one.shape if want else (0,)) for one, want in zip((left, right), wants, strict=True)]
    return [*sides, *[one.new_empty(one.shape) for one in weights]]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *sides, weights, left_pool, right_pool = inputs
    ctx.pools = left_pool, right_pool
    ctx.save_for_backward(*sides, *weights)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    sides, weights = ctx.saved_tensors[:6], list(ctx.saved_tensors[6:])
    wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
    left, right, *others = pair_backward(gradient.contiguous(), *sides, weights, *ctx.pools, *wanted)
    return (left if wanted[0] else None, None, None, right if wanted[1] else None, None, None, others, None, None)


pair.register_autograd(_backward, setup_context=_keep)


def _checked(
    sides: tuple[tuple[Tensor, Tensor | None, Tensor | None], ...], tensors: Sequence[Tensor], *pools: int
) -> tuple[door.Words, door.Words, door.PairWeights]:
    """What the C code takes: everything is checked by the door, as in eager code."""
    left, right, *own = as_tensors(sides[0][0], sides[1][0], *tensors)
    weights = None
    if len(own) == 14 and min(pools) > 0:
        weights = door.pair_weights(memory_of("pair", own[0], *pools), tuple(own), *pools)
    one = words_of(left, *sides[0][1:], weights and weights.left)
    other = words_of(right, *sides[1][1:], weights and weights.right)
    if weights is None or one is None or other is None or one.batch != other.batch:
        raise misfit("pair", (left, right, *own), f"pools are {pools[0]} and {pools[1]}")
    return one, other, weights
