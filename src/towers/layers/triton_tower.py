"""Phrases and pooled features by Triton on a GPU, as its LSTM kernels take them: nothing waits for the GPU."""

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.contracts.modes import autocast
from towers.convert import to_ragged
from towers.kernels import Batch
from towers.kernels.triton.launch import covered
from towers.layers.cache import can_keep
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.ragged import Ragged


def pooled_features(
    conv: PhraseConv, pool: FeaturePool, sentences: Tensor | Ragged, lengths: Tensor | None
) -> tuple[Batch, int]:
    """The pooled features of all phrases, as the LSTM's kernels take them, and the number of sentences.

    No row is moved, so that the number of phrases need not be known on the CPU.
    """
    if isinstance(sentences, Tensor) and not sentences.is_nested:
        count, words = sentences.shape[:2]
        ragged = Ragged.unchecked(sentences.flatten(0, 1), torch.arange(count + 1, device=sentences.device) * words)
        given = ragged.lengths if lengths is None else lengths.to(sentences.device, torch.int64).clamp(0, words)
        real = None if lengths is None else covered(ragged.offsets[:-1], given, ragged.values.shape[0])
        longest = words
    else:
        ragged = to_ragged(sentences, keep_ids=True)
        count, given, real, longest = len(ragged), ragged.lengths, None, ragged.uniform
    fewer = conv.kernel_words - 1
    features, steps = _features(conv, pool.size, ragged, real), (given - fewer).clamp(min=0)
    longest = None if longest is None else max(longest - fewer, 0)
    return Batch(features, ragged.offsets[:-1], steps, longest), count


def _features(conv: PhraseConv, pool: int, ragged: Ragged, real: Tensor | None) -> Tensor:
    """A row for each token, "tokens features", of float32."""
    from towers.kernels.triton.phrase_features import phrase_features, phrase_lookup  # registers the operators

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
