"""A tower's phrase features as operators that compile, export and autograd know.

`phrase_features` multiplies vectors, or rows of a table of vectors; `phrase_lookup` adds up rows of a table that was
multiplied before. Row t of a result belongs to the tokens t, t + 1, …, whatever their sentences are.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from towers.kernels.triton import phrase_plain
from towers.kernels.triton.real_rows import contiguous


def _way(values: Tensor) -> ModuleType:
    if values.is_cuda:
        from towers.kernels.triton import phrase_launch  # needs Triton

        return phrase_launch
    return phrase_plain


@torch.library.custom_op("towers::phrase_features", mutates_args=())
def phrase_features(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None,
    pool: int, precision: str, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Convolution over neighbouring tokens, bias, and the maximum of each `pool` neighbouring features, in float32.

    Args:
        values: vectors "tokens width"; or with ids a table of vectors, "vocabulary width".
        ids: "tokens", of int64; None: the values are the tokens'.
        weight: "places filters width"; bias: "filters".
        real: "tokens", bool: which tokens are looked at at all; None: all. Others are as zeros.
        pool: neighbouring features of a group.
        precision: of the product: "tf32", "tf32x3" or "ieee"; "": as torch's own are set.
        keep: whether the winner of each group is kept, for the gradients.

    Returns:
        Features "tokens filters/pool"; winners "tokens filters/pool" of uint8, or no rows.
    """
    return _way(values).forward(*contiguous(values, ids, weight, bias, real), pool, precision, keep)


@torch.library.custom_op("towers::phrase_features_backward", mutates_args=())
def phrase_features_backward(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None, winners: Tensor,
    d_features: Tensor, precision: str, vectors: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of the vectors (only if `vectors`: no rows otherwise), of weight and bias."""
    tensors = contiguous(values, ids, weight, bias, real, winners, d_features)
    return _way(values).backward(*tensors, precision, vectors)


@torch.library.custom_op("towers::phrase_lookup", mutates_args=())
def phrase_lookup(
    projected: Tensor, ids: Tensor, bias: Tensor, real: Tensor | None, pool: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """As `phrase_features`, from each word's product with the weights: projected "vocabulary places filters"."""
    return _way(projected).lookup(*contiguous(projected, ids, bias, real), pool, keep)


def _fake_features(like: Tensor, rows: Any, groups: int, keep: bool) -> tuple[Tensor, Tensor]:
    winners = like.new_empty(rows if keep else 0, groups, dtype=torch.uint8)
    return like.new_empty(rows, groups, dtype=torch.float32), winners


@phrase_features.register_fake
def _(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None,
    pool: int, precision: str, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _fake_features(values, (values if ids is None else ids).shape[0], weight.shape[1] // pool, keep)


@phrase_features_backward.register_fake
def _(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None, winners: Tensor,
    d_features: Tensor, precision: str, vectors: bool,
) -> list[Tensor]:  # fmt: skip
    d_values = values.new_empty(values.shape[0] if vectors else 0, values.shape[1])
    return [d_values, weight.new_empty(weight.shape), bias.new_empty(bias.shape)]


@phrase_lookup.register_fake
def _(
    projected: Tensor, ids: Tensor, bias: Tensor, real: Tensor | None, pool: int, keep: bool
) -> tuple[Tensor, Tensor]:
    return _fake_features(projected, ids.shape[0], projected.shape[2] // pool, keep)


def _keep_features(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, _, ctx.precision, ctx.kept = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])


def _backward_features(ctx: Any, d_features: Tensor, _: None) -> Any:
    _refuse_without_winners(ctx.kept)
    ids, vectors = ctx.saved_tensors[1], ctx.needs_input_grad[0]
    if ids is not None and vectors:
        raise RuntimeError("towers::phrase_features: a table gets no gradient; look its rows up with F.embedding")
    d_values, d_weight, d_bias = phrase_features_backward(*ctx.saved_tensors, d_features, ctx.precision, vectors)
    return d_values if vectors else None, None, d_weight, d_bias, None, None, None, None


def _keep_lookup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    projected, ids, bias, real, ctx.pool, ctx.kept = inputs
    ctx.shape, ctx.dtypes = projected.shape, (projected.dtype, bias.dtype)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(ids, real, output[1])


def _backward_lookup(ctx: Any, d_features: Tensor, _: None) -> Any:
    _refuse_without_winners(ctx.kept)
    ids, real, winners = ctx.saved_tensors
    vocabulary, places, filters = ctx.shape
    d_total = phrase_plain.unpooled(d_features, winners, ctx.pool)
    d_shares = phrase_plain.shares_of(d_total, places)
    if real is not None:
        ids = ids.where(real, 0)  # their gradients are 0
    d_projected = torch.ops.aten.embedding_dense_backward(d_shares.flatten(1), ids, vocabulary, -1, False)
    d_projected = d_projected.unflatten(1, (places, filters)).to(ctx.dtypes[0])
    return d_projected, None, d_total.sum(0).to(ctx.dtypes[1]), None, None, None


def _refuse_without_winners(kept: bool) -> None:
    if not kept:
        raise RuntimeError("towers::phrase_features: there are no gradients after keep=False")


phrase_features.register_autograd(_backward_features, setup_context=_keep_features)
phrase_lookup.register_autograd(_backward_lookup, setup_context=_keep_lookup)
