"""Convolution and pool in one pass over the words, where the fused kernels serve them; nothing waits for the device.

Sentences stay where they are: the phrase that starts with a token takes that token's row, and rows in which a sentence
has no whole phrase are never read. Nothing is moved together, so the number of phrases need not be known.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.contracts.modes import autocast
from towers.convert import to_ragged
from towers.kernels import Batch, triton
from towers.kernels.triton.real_rows import covered
from towers.layers.cache import can_keep
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.ragged import Ragged


def serves(conv: PhraseConv, pool: FeaturePool, sentences: Tensor | Ragged) -> bool:
    """Whether the two layers have kernels for these sentences."""
    if isinstance(sentences, Ragged):
        values = sentences.values if sentences.table is None else sentences.table
    else:
        values = sentences.values() if sentences.is_nested else sentences
    return (
        type(conv) is PhraseConv
        and type(pool) is FeaturePool
        and triton.serves_phrases(values, conv.weight, pool.size)
        and values.device == conv.weight.device
    )


def pooled(
    conv: PhraseConv, pool: FeaturePool, sentences: Tensor | Ragged, lengths: Tensor | None
) -> tuple[Batch, int]:
    """The pooled features of all phrases, as an LSTM's kernels take them, and the number of sentences."""
    if isinstance(sentences, Tensor) and not sentences.is_nested:
        count, words = sentences.shape[:2]
        ragged = Ragged.unchecked(sentences.flatten(0, 1), torch.arange(count + 1, device=sentences.device) * words)
        given = ragged.lengths if lengths is None else lengths.to(sentences.device, torch.int64).clamp(0, words)
        real = None if lengths is None else covered(ragged.offsets[:-1], given, ragged.values.shape[0])
        longest = words
    else:
        ragged = to_ragged(sentences, lengths, owner=conv, keep_ids=True)
        count, given, real, longest = len(ragged), ragged.lengths, None, ragged.uniform
    fewer = conv.kernel_words - 1
    features, steps = _features(conv, pool.size, ragged, real), (given - fewer).clamp(min=0)
    longest = None if longest is None else max(longest - fewer, 0)
    return Batch(features, ragged.offsets[:-1], steps, longest), count


def _features(conv: PhraseConv, pool: int, ragged: Ragged, real: Tensor | None) -> Tensor:
    """A row for each token, "tokens features", of float32."""
    from towers.kernels.triton.phrase_ops import phrase_features, phrase_lookup  # registers the operators

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
