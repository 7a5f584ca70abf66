"""Neighbours added and features pooled without moving a row: what `in_place` does, on the CPU.

The phrase that starts with a token takes that token's row, so that neighbours are the same rows one further down:

    shares of place 0   a0 b0 c0 | d0 e0 f0         rows
    shares of place 1      a1 b1 c1 | d1 e1 f1      one further
    phrases             ab bc .. | de ef            a phrase of two sentences (..) is never read
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from towers.contracts.modes import autocast, proving
from towers.convert import to_ragged
from towers.kernels import Batch, cpu
from towers.kernels.batch import forward_mode
from towers.layers import pooling
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.ragged import Ragged
from towers.ragged_checks import is_plain


def serves(conv: PhraseConv, pool: FeaturePool, sentences: Tensor | Ragged) -> bool:
    """Whether these are plain numbers on the CPU."""
    if type(conv) is not PhraseConv or type(pool) is not FeaturePool:
        return False
    values = sentences if isinstance(sentences, Tensor) else sentences.values
    if isinstance(sentences, Tensor) and sentences.is_nested:
        if sentences.layout is not torch.jagged:
            return False
        values = sentences.values()
    vectors = values if isinstance(sentences, Tensor) or sentences.table is None else sentences.table
    weight = conv.weight
    alike = vectors.is_cpu and weight.is_cpu and vectors.dtype == weight.dtype and not proving() and not forward_mode()
    return alike and not autocast(vectors.device) and is_plain(values, vectors, weight, conv.bias)


def pooled(
    conv: PhraseConv, pool: FeaturePool, sentences: Tensor | Ragged, lengths: Tensor | None
) -> tuple[Batch, int]:
    """The pooled features of all phrases, as an LSTM's kernels take them, and the number of sentences."""
    ragged, fewer = to_ragged(sentences, lengths, owner=conv, keep_ids=True), conv.kernel_words - 1
    features = pooled_features(conv, pool.size, ragged)
    if ragged.uniform is not None:
        return Batch(features, ragged.offsets[:-1], None, max(ragged.uniform - fewer, 0)), len(ragged)
    return Batch(features, ragged.offsets[:-1], ragged.lengths.sub_(fewer).clamp_(min=0), None), len(ragged)


def pooled_features(conv: PhraseConv, pool: int, ragged: Ragged) -> Tensor:
    """Of the phrase that starts with each token, "rows features"."""
    multiplied = conv.multiplied_table(ragged)
    if multiplied is not None:
        shares, ids = multiplied
        return pooled_phrases(shares, conv.bias, ids, pool)
    vectors = ragged.vectors().values
    if conv.product_dtype is None and cpu.phrases_call.serves(vectors.dtype):
        return pooled_products(vectors, conv.weight, conv.bias, pool)
    return pooled_phrases(conv.project(vectors), conv.bias, None, pool)


def pooled_products(vectors: Tensor, weight: Tensor, bias: Tensor, pool: int) -> Tensor:
    """From the vector of each token, "words width", and the weights of each place, "places filters width".

    What `pooled_phrases` makes of their products, which never lie in memory.
    """
    if torch.is_grad_enabled() and (vectors.requires_grad or weight.requires_grad or bias.requires_grad):
        return _PooledProducts.apply(vectors, weight, bias, pool)
    return cpu.phrases_call.forward_vectors(vectors, weight, bias, pool, keep=False)[0]


class _PooledProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, weight: Tensor, bias: Tensor, pool: int) -> Tensor:
        pooled, chosen = cpu.phrases_call.forward_vectors(vectors, weight, bias, pool, keep=True)
        ctx.pool = pool
        ctx.save_for_backward(chosen, vectors, weight)
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (chosen, vectors, weight) = gradients, ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        way = cpu.phrases_call.backward_vectors
        return *way(gradient, chosen, vectors, weight, ctx.pool, wants_vectors=wanted), None


def pooled_phrases(shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int) -> Tensor:
    """From the shares of each token, or those of words ("words places filters") and the word that each token is.

    Returns "rows features": the largest of each `pool` neighbouring features of the phrase that starts with each token.
    """
    if torch.is_grad_enabled() and (shares.requires_grad or bias.requires_grad):
        return _PooledPhrases.apply(shares, bias, ids, pool)
    return _way(shares).forward(shares, bias, ids, pool, keep=False)[0]


class _PooledPhrases(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int) -> Tensor:
        pooled, chosen = _way(shares).forward(shares, bias, ids, pool, keep=True)
        ctx.shape, ctx.pool = shares.shape, pool
        ctx.save_for_backward(chosen, ids)
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (chosen, ids) = gradients, ctx.saved_tensors
        return *_way(gradient).backward(gradient, chosen, ids, ctx.shape, ctx.pool), None, None


def _way(like: Tensor) -> ModuleType:
    return cpu.phrases_call if cpu.phrases_call.serves(like.dtype) else pooling
