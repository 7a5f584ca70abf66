# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Neighbours added and features pooled without moving a row: what `in_place` does, on the CPU.

The phrase that starts with a token takes that token's row, so that neighbours are the same rows one further down:

    shares of place 0   a0 b0 c0 | d0 e0 f0         rows
    shares of place 1      a1 b1 c1 | d1 e1 f1      one further
    phrases             ab bc .. | de ef            a phrase of two sentences (..) is never read
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.contracts.modes import autocast, proving
from towers.kernels import Batch
from towers.kinds import enter
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.ragged import Ragged
from towers.tokens import is_plain


def serves(conv: PhraseConv, pool: FeaturePool, sentences: Tensor | Ragged) -> bool:
    """Whether these are plain numbers on the CPU, and nobody listens to the layers themselves."""
    if any(layer._forward_hooks or layer._forward_pre_hooks for layer in (conv, pool)):  # pyright: ignore[reportPrivateUsage]
        return False
    if type(conv) is not PhraseConv or type(pool) is not FeaturePool:
        return False
    values = sentences if isinstance(sentences, Tensor) else sentences.values
    if isinstance(sentences, Tensor) and sentences.is_nested:
        if sentences.layout is not torch.jagged:
            return False
        values = sentences.values()
    vectors = values if isinstance(sentences, Tensor) or sentences.table is None else sentences.table
    weight = conv.weight
    alike = vectors.is_cpu and weight.is_cpu and vectors.dtype == weight.dtype and not proving()
    return alike and not autocast(vectors.device) and is_plain(values, vectors, weight, conv.bias)


def pooled(
    conv: PhraseConv, pool: FeaturePool, sentences: Tensor | Ragged, lengths: Tensor | None
) -> tuple[Batch, int]:
    """The pooled features of all phrases, as an LSTM's kernels take them, and the number of sentences."""
    ragged, fewer = enter(sentences, lengths, owner=conv, keep_ids=True), conv.kernel_words - 1
    shares, ids = conv.shares(ragged)
    features = pooled_phrases(shares, conv.bias, ids, pool.size)
    if ragged.uniform is not None:
        return Batch(features, ragged.offsets[:-1], None, max(ragged.uniform - fewer, 0)), len(ragged)
    return Batch(features, ragged.offsets[:-1], (ragged.lengths - fewer).clamp_(min=0), None), len(ragged)


def pooled_phrases(shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int) -> Tensor:
    """From the shares of each token, or those of words ("words places filters") and the word that each token is.

    Returns "rows features": the largest of each `pool` neighbouring features of the phrase that starts with each token.
    """
    if torch.is_grad_enabled() and (shares.requires_grad or bias.requires_grad):
        return _PooledPhrases.apply(shares, bias, ids, pool)
    return F.max_pool1d(_phrases(shares, bias, ids).unsqueeze(1), pool).squeeze(1)


def _phrases(shares: Tensor, bias: Tensor, ids: Tensor | None) -> Tensor:
    tokens, places = len(shares) if ids is None else len(ids), shares.unbind(1)
    count = max(tokens - len(places) + 1, 0)
    if ids is None:
        parts = [part[place : place + count] for place, part in enumerate(places)]
    else:
        parts = [part.index_select(0, ids[place : place + count]) for place, part in enumerate(places)]
    total = parts[0] + (parts[1] if len(parts) > 1 else 0)
    for part in parts[2:]:
        total += part
    return total.add_(bias)


class _PooledPhrases(torch.autograd.Function):
    """The same with a backward that fills one tensor in place."""

    @staticmethod
    def forward(ctx: Any, shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int) -> Tensor:
        phrases = _phrases(shares, bias, ids)
        pooled, chosen = F.max_pool1d(phrases.unsqueeze(1), pool, return_indices=True)
        ctx.shape, ctx.filters = shares.shape, phrases.shape[1]
        ctx.save_for_backward(chosen.squeeze(1), ids)
        return pooled.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (chosen, ids) = gradients, ctx.saved_tensors
        count, places = len(gradient), ctx.shape[1]
        phrases = gradient.new_zeros(count, ctx.filters).scatter_(1, chosen, gradient)
        if ids is None:
            shares = gradient.new_empty(ctx.shape)
            for place in range(places):
                shares[:place, place] = 0
                shares[place : place + count, place] = phrases
                shares[place + count :, place] = 0
        else:
            shares = gradient.new_zeros(ctx.shape)
            for place in range(places):
                shares[:, place].index_add_(0, ids[place : place + count], phrases)
        return shares, phrases.sum(0), None, None
