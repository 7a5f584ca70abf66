"""A whole tower by kernels, without calling its layers: the same states and gradients in less time.

The layers are the definition, and they run wherever no kernel does (`backend` says where). What the kernels gain is in
the rows "towers, vectors" and "towers, ids" of `python benchmarks/run.py tower`.

The kernels move no row: the features of a phrase are in the row of its first token, and the shares of its second word
are one row further down.

    position 0   a0 b0 c0 | d0 e0 f0         rows
    position 1      a1 b1 c1 | d1 e1 f1      one further
    phrases      ab bc .. | de ef            a phrase of two sentences (..) is never read
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from towers.contracts.modes import autocast, switch
from towers.convert import to_ragged
from towers.kernels import Batch, triton
from towers.kernels.batch import Parameters, is_plain, refuse_twice
from towers.kernels.cpu import lstm_call, phrases_call
from towers.kernels.cpu.library import code
from towers.kernels.triton.launch import covered
from towers.layers.cache import can_keep
from towers.layers.lstm import RaggedLSTM
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.ragged import Ragged

Backend = Literal["native", "triton", "torch"]


class Layers(NamedTuple):
    """The layers of a tower, and the number of steps that its LSTM takes at a time."""

    conv: PhraseConv
    pool: FeaturePool
    lstm: RaggedLSTM
    chunk: int | None


def has_forward_hooks(*layers: nn.Module) -> bool:
    """Whether a layer has forward hooks (a contract by `attach` is one): then the layer itself must be called.

    Backward hooks do not count: torch calls them for tensors only, and a layer gives the next one a Ragged.
    """
    for layer in layers:
        kept = vars(layer)
        if kept["_forward_hooks"] or kept["_forward_pre_hooks"]:
            return True
    return False


def last_states(layers: Layers, sentences: Tensor | Ragged, lengths: Tensor | None) -> Tensor | None:
    """The last state of each sentence, by kernels; None where the layers must be called."""
    chosen = backend(layers, sentences, lengths)
    if chosen == "native":
        return _native(layers, sentences, lengths)
    if chosen == "triton":
        batch, count = _triton_features(layers, sentences, lengths)
        return layers.lstm.run_batch(batch, count, outputs=False)[1][0][-1]
    return None


def backend(layers: Layers, sentences: Tensor | Ragged, lengths: Tensor | None = None) -> Backend:
    """Which code runs these sentences: C on the CPU, Triton on a GPU, or the layers themselves ("torch").

    What does not fit goes to the layers: their contracts say what is wrong with it.
    """
    conv, pool, lstm, _ = layers
    proving = switch.proofs > 0 and switch.interceptor is not None
    if proving or type(conv) is not PhraseConv or type(pool) is not FeaturePool:
        return "torch"
    if isinstance(sentences, Ragged):
        values, table = sentences.values, sentences.table
    elif sentences.is_nested:
        if sentences.layout is not torch.jagged:
            return "torch"
        values, table = sentences.values(), None
    else:
        values, table = sentences, None
    if has_forward_hooks(conv, pool, lstm) or (lengths is not None and values is not sentences):
        return "torch"
    vectors = values if table is None else table
    if vectors.is_cpu and _native_serves(layers, sentences, values, vectors):
        return "native"
    served = triton.serves_phrases(vectors, conv.weight, pool.size) and vectors.device == conv.weight.device
    return "triton" if served else "torch"


# In C, on the CPU.


def _native_serves(layers: Layers, sentences: Tensor | Ragged, values: Tensor, vectors: Tensor) -> bool:
    """Whether all are plain tensors on the CPU whose sizes and dtypes fit each other: C itself checks nothing.

    This is the one check of the weights in a call; the sentences are checked by the tower's contract before.
    """
    conv, pool, lstm, chunk = layers
    if chunk is not None or type(lstm) is not RaggedLSTM or torch.is_autocast_enabled("cpu"):
        return False
    if (lstm.num_layers, lstm.bias, lstm.bidirectional, lstm.proj_size) != (1, "single", False, 0):
        return False
    if lstm.recurrent_activation != "sigmoid":
        return False
    weights, (filters, hidden), dtype = _weights(layers), (conv.filters, lstm.hidden_size), vectors.dtype
    kernel, inputs = (conv.kernel_words, filters, conv.vector_width), filters // pool.size
    sizes = (kernel, (filters,), (4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,))
    count = sentences.shape[0] if isinstance(sentences, Tensor) else sentences.offsets.shape[0] - 1
    return (
        is_plain(values, vectors, *weights)
        and all(weight.is_cpu and weight.dtype == dtype for weight in weights)
        and tuple([weight.shape for weight in weights]) == sizes
        and pool.filters == filters
        and vectors.shape[-1] == conv.vector_width
        and vectors.dim() == 2 + (values is sentences)
        and (values is vectors or (values.dtype == torch.int64 and values.dim() == 1 and values.is_cpu))
        and count > 0
        and lstm_call.refusal(dtype, inputs, hidden, count) is None
        and code(dtype) is not None
    )


def _weights(layers: Layers) -> tuple[Tensor, ...]:
    conv, _, lstm, _ = layers
    return conv.weight, conv.bias, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0


class _Sizes(NamedTuple):
    offsets: Tensor  # of the sentences' tokens
    uniform: int | None  # the number of words of every sentence, where it is known
    fewer: int  # a sentence has this number of words more than phrases
    pool: int  # features of a group


def _native(layers: Layers, sentences: Tensor | Ragged, lengths: Tensor | None) -> Tensor:
    if isinstance(sentences, Tensor) and not sentences.is_nested:
        ragged = Ragged.unchecked_padded(sentences, lengths)
    else:
        ragged = to_ragged(sentences, keep_ids=True)
    conv, (weight, *others) = layers.conv, _weights(layers)
    sizes = _Sizes(ragged.offsets, ragged.uniform, conv.kernel_words - 1, layers.pool.size)
    rows, ids = ragged.values, None
    if ragged.table is not None or conv.product_dtype is not None:
        weight, (rows, ids) = None, conv.shares(ragged)
    tensors = (rows, weight, *others)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in tensors):
        return _Native.apply(sizes, ids, *tensors)
    return _forward(sizes, ids, *tensors, keep=False)[0]


class _Kept(NamedTuple):
    layout: lstm_call.Layout
    features: Tensor
    chosen: Tensor | None
    of_lstm: lstm_call.SavedForBackward | None


def _forward(
    sizes: _Sizes,
    ids: Tensor | None,
    rows: Tensor,
    weight: Tensor | None,
    bias: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    lstm_bias: Tensor,
    *,
    keep: bool,
) -> tuple[Tensor, _Kept]:
    """The last states. Rows are the vectors of tokens; where weight is None, the shares of tokens or of words (ids)."""
    offsets, uniform, fewer, pool = sizes
    if weight is None:
        features, chosen = phrases_call.forward(rows, bias, ids, pool, keep=keep)
    else:
        features, chosen = phrases_call.forward_vectors(rows, weight, bias, pool, keep=keep)
    steps = (offsets.diff() - fewer).clamp_(min=0) if uniform is None else None
    longest = None if uniform is None else max(uniform - fewer, 0)
    count = len(offsets) - 1
    layout = lstm_call.Layout(Batch(features, offsets[:-1], steps, longest), count)
    zeros = features.new_zeros(1, count, w_hh.shape[1])
    parameters = Parameters(w_ih, w_hh, (lstm_bias,), None)
    _, h_n, _, saved = lstm_call.forward(
        layout, features, (zeros, zeros), parameters, reverse=False, outputs=False, save=keep
    )
    return h_n.squeeze(0), _Kept(layout, features, chosen, saved)


class _Native(torch.autograd.Function):
    """`_forward` as one node of autograd, with its backward pass."""

    @staticmethod
    def forward(
        ctx: Any, sizes: _Sizes, ids: Tensor | None, rows: Tensor, weight: Tensor | None, *others: Tensor
    ) -> Tensor:
        states, kept = _forward(sizes, ids, rows, weight, *others, keep=True)
        ctx.layout, ctx.pool, ctx.shape = kept.layout, sizes.pool, rows.shape
        ctx.save_for_backward(
            None if weight is None else rows, weight, ids, kept.features, kept.chosen, *(kept.of_lstm or ())
        )
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_twice()
        (gradient,), (vectors, weight, ids, features, chosen, *of_lstm) = gradients, ctx.saved_tensors
        g_features, _, _, *of_weights = lstm_call.backward(
            ctx.layout,
            features,
            lstm_call.SavedForBackward(*of_lstm),
            (None, gradient.unsqueeze(0), None),
            reverse=False,
            wants_values=any(ctx.needs_input_grad[2:5]),
        )
        g_rows = g_weight = g_bias = None
        if g_features is not None and weight is None:
            g_rows, g_bias = phrases_call.backward(g_features, chosen, ids, ctx.shape, ctx.pool)
        elif g_features is not None:
            g_rows, g_weight, g_bias = phrases_call.backward_vectors(
                g_features, chosen, vectors, weight, ctx.pool, wants_vectors=ctx.needs_input_grad[2]
            )
        return None, None, g_rows, g_weight, g_bias, *of_weights


# In Triton, on a GPU: convolution and pool in one pass, then the LSTM's kernels; nothing waits for the GPU.


def _triton_features(layers: Layers, sentences: Tensor | Ragged, lengths: Tensor | None) -> tuple[Batch, int]:
    """The pooled features of all phrases, as the LSTM's kernels take them, and the number of sentences.

    No row is moved, so that the number of phrases need not be known on the CPU.
    """
    conv, pool, *_ = layers
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
