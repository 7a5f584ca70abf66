# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Convolution and pool in one pass over the words: on the CPU, and where the fused kernels serve them.

Sentences stay where they are: the phrase that starts with a token takes that token's row, and rows in which a sentence
has no whole phrase are never read. Nothing is moved together, so nobody has to know how many phrases there are, and
nothing waits for a device.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.contracts.modes import autocast, proving
from towers.kernels import Batch, fused
from towers.kernels.fused.rows import covered
from towers.kinds import enter
from towers.layers.features import pooled_phrases
from towers.layers.kept import can_keep
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.ragged import Ragged
from towers.tokens import is_plain


def serves(conv: PhraseConv, pool: FeaturePool, sentences: Tensor | Ragged) -> bool:
    """Whether this does what the two layers do for these sentences, and nobody listens to the layers themselves."""
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
    if vectors.device != weight.device:
        return False
    if vectors.is_cpu:
        alike = vectors.dtype == weight.dtype and not autocast(vectors.device) and not proving()
        return alike and is_plain(values, vectors, weight, conv.bias)
    return fused.serves_phrases(vectors, weight, pool.size)


def pooled(
    conv: PhraseConv, pool: FeaturePool, sentences: Tensor | Ragged, lengths: Tensor | None
) -> tuple[Batch, int]:
    """The pooled features of all phrases, as an LSTM's kernels take them, and the number of sentences."""
    if isinstance(sentences, Tensor) and not sentences.is_nested and not sentences.is_cpu:
        count, words = sentences.shape[:2]
        ragged = Ragged.unchecked(sentences.flatten(0, 1), torch.arange(count + 1, device=sentences.device) * words)
        given = ragged.lengths if lengths is None else lengths.to(sentences.device, torch.int64).clamp(0, words)
        real = None if lengths is None else covered(ragged.offsets[:-1], given, ragged.values.shape[0])
        longest = words
    else:
        ragged = enter(sentences, lengths, owner=conv, keep_ids=True)
        count, given, real, longest = len(ragged), ragged.lengths, None, ragged.uniform
    fewer = conv.kernel_words - 1
    features, steps = _features(conv, pool.size, ragged, real), (given - fewer).clamp(min=0)
    longest = None if longest is None else max(longest - fewer, 0)
    if longest is not None and features.is_cpu and lengths is None:
        return Batch(features, ragged.offsets[:-1], None, longest), count
    return Batch(features, ragged.offsets[:-1], steps, longest), count


def _features(conv: PhraseConv, pool: int, ragged: Ragged, real: Tensor | None) -> Tensor:
    """A row for each token, "tokens features"; of float32 on a device."""
    if ragged.values.is_cpu:
        shares, ids = conv.shares(ragged)
        return pooled_phrases(shares, conv.bias, ids, pool)
    from towers.kernels.fused.phrase_ops import phrase_features, phrase_lookup  # registers the operators

    values, ids, table = ragged.values, None, ragged.table
    keep = torch.is_grad_enabled()
    if table is not None and (can_keep(table, conv.weight) or table.requires_grad):
        multiplied = conv.multiplied_table(ragged)
        if multiplied is not None:
            return phrase_lookup(*multiplied, conv.bias, real, pool, keep)[0]
    if table is not None:
        values, ids = (F.embedding(values, table), None) if table.requires_grad else (table, values)
    half = autocast(values.device) or conv.product_dtype in (torch.bfloat16, torch.float16)
    return phrase_features(values, ids, conv.weight, conv.bias, real, pool, "tf32" if half else "", keep)[0]
