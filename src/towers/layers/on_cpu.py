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
    return Batch(features, ragged.offsets[:-1], ragged.lengths.sub_(fewer).clamp_(min=0), None), len(ragged)


def pooled_phrases(shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int) -> Tensor:
    """From the shares of each token, or those of words ("words places filters") and the word that each token is.

    Returns "rows features": the largest of each `pool` neighbouring features of the phrase that starts with each token.
    """
    if torch.is_grad_enabled() and (shares.requires_grad or bias.requires_grad):
        return _PooledPhrases.apply(shares, bias, ids, pool)
    return F.max_pool1d(_phrases(shares, bias, ids).unsqueeze(1), pool).squeeze(1)


def _phrases(shares: Tensor, bias: Tensor, ids: Tensor | None) -> Tensor:
    if ids is not None:  # a token's shares stand side by side: one look-up takes half the time of one for each place
        shares = shares.index_select(0, ids)
    count = max(len(shares) - shares.shape[1] + 1, 0)
    first, *others = [shares[place : place + count, place] for place in range(shares.shape[1])]
    total = first + (others[0] if others else 0)
    for part in others[1:]:
        total += part
    return total.add_(bias)


def _largest(phrases: Tensor, pooled: Tensor, pool: int) -> Tensor:
    """Which feature of a phrase each pooled one is, "rows features": the first of its group that equals it.

    torch's max_pool1d can say it too, by a branch for each feature, and then takes 880 µs for 9,962 rows instead of 90;
    this takes 160.
    """
    *others, _ = phrases.unflatten(1, (-1, pool)).unbind(2)
    chosen = torch.arange(0, phrases.shape[1], pool, dtype=torch.int32)
    missed = None
    for feature in others:
        differs = feature != pooled
        missed = differs if missed is None else missed & differs
        chosen = chosen + missed
    return chosen.expand(pooled.shape)


class _PooledPhrases(torch.autograd.Function):
    """The same with a backward that fills one tensor in place."""

    @staticmethod
    def forward(ctx: Any, shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int) -> Tensor:
        phrases = _phrases(shares, bias, ids)
        pooled = F.max_pool1d(phrases.unsqueeze(1), pool).squeeze(1)
        ctx.shape = shares.shape
        ctx.save_for_backward(_largest(phrases, pooled, pool), ids)
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (chosen, ids) = gradients, ctx.saved_tensors
        count, (words, places, filters) = len(gradient), ctx.shape
        phrases = gradient.new_zeros(count, filters).scatter_(1, chosen.long(), gradient)
        shares = gradient.new_empty(words if ids is None else len(ids), places, filters)
        for place in range(places):
            shares[:place, place] = 0
            shares[place : place + count, place] = phrases
            shares[place + count :, place] = 0
        if ids is not None:
            shares = gradient.new_zeros(words, places * filters).index_add_(0, ids, shares.flatten(1)).view(ctx.shape)
        return shares, phrases.sum(0), None, None
