"""One layer of a RaggedLSTM, in plain eager code: one call of C, without gradients; or of torch.lstm.

It is the case of a sentence at a time, where the general way's Python takes longer than the numbers: see the rows "one
sentence" of `python benchmarks/run.py tower`, and the rows "batch 1," of its suite `lstm` with TOWERS_NATIVE=off.
"""

from typing import Any

import torch
from torch import Tensor, nn

from towers.contracts.modes import proving
from towers.kernels import torch_lstm
from towers.kernels.batch import Batch, State, Weights, is_strided
from towers.kernels.cpu import door, layer_call
from towers.layers.phrases import FEW_TOKENS
from towers.layers.word_table import WordTable
from towers.ragged import Ragged
from towers.ragged_checks import distinct

_CPU = torch.device("cpu")


def one_layer(lstm: nn.Module) -> tuple[tuple[Tensor, ...], door.Accepted] | None:
    """The parameters of an LSTM of one layer, whose gates are sigmoids, and its memory; None: another LSTM."""
    own: dict[str, Any] = lstm.__dict__
    if own["num_layers"] != 1 or own["proj_size"] or own["recurrent_activation"] != "sigmoid":
        return None
    try:
        return tuple([own["_parameters"][name] for name in own["_in_order"]]), own["accepted"]
    except KeyError:  # pruned, reparametrized, or unpickled from a release without this memory
        return None


def run_plain(
    lstm: nn.Module, input: Tensor | Ragged, state: State | None, lengths: Tensor | None, *, outputs: bool
) -> tuple[Tensor | None, State] | None:
    """Output and states, as `RaggedLSTM.run_batch` gives them, of padded input or of Ragged; None: it is another case.

    The LSTM has `accepted`, the door's memory.
    """
    found = _layer_of(lstm)
    if found is None:
        return None
    tensors, weights = found
    rows, offsets = (input, None) if isinstance(input, Tensor) else (input.values, input.offsets)
    if weights.forward is None:
        return None if offsets is not None else _by_torch(weights, tensors, rows, state, lengths, outputs)
    if torch.is_grad_enabled() and any(one.requires_grad for one in (rows, *tensors, *(state or ()))):
        return None
    return layer_call.run(weights, rows, offsets, lengths, state, outputs=outputs)


def _layer_of(lstm: nn.Module) -> tuple[tuple[Tensor, ...], door.LayerWeights] | None:
    """The parameters of an LSTM of one layer, as they are and as the C code takes them; None: it is another case."""
    if not door.plain() or proving() or torch.is_autocast_enabled("cpu"):
        return None
    found = one_layer(lstm)
    if found is None:
        return None
    tensors, accepted = found
    weights = door.layer_weights(accepted, tensors, 1 + lstm.__dict__["bidirectional"])
    return None if weights is None else (tensors, weights)


def run_word_ids(
    lstm: nn.Module, sentences: Ragged, state: State | None, *, outputs: bool
) -> tuple[Tensor | None, State] | None:
    """As `run_plain`, of word ids, each word multiplied once; None: it is another case.

    The products are those that a `WordTable` keeps. For a plain table they are made at each call, where there are at
    least twice as many tokens as words: row "words of a batch" of `python benchmarks/run.py quick-paths`.
    """
    table = sentences.table
    found = None if table is None else _layer_of(lstm)
    if table is None or found is None or found[1].forward is None:
        return None
    tensors, weights = found
    if not is_strided(table, weights.dtype, _CPU) or table.dim() != 2 or table.shape[1] != weights.inputs:
        return None
    if not is_strided(sentences.values, torch.int64, _CPU):
        return None
    if torch.is_grad_enabled() and any(one.requires_grad for one in (table, *tensors, *(state or ()))):
        return None
    words, ids = WordTable.of(table), sentences.values
    if words is None:
        if len(ids) <= FEW_TOKENS:
            return None
        own, ids = distinct(ids, len(table))
        if 2 * len(own) > len(ids):
            return None
        sums = layer_call.sums_of_words(weights, table.index_select(0, own))
        return layer_call.run(weights, ids, sentences.offsets, None, state, outputs=outputs, sums=sums)
    of_words = [one for place, one in enumerate(tensors) if place % (len(tensors) // weights.directions) != 1]
    sums = words.product(lstm, lambda rows: layer_call.sums_of_words(weights, rows), of_words, weights.sums_of_word)
    if sums is None:
        return None
    return layer_call.run(weights, ids, sentences.offsets, None, state, outputs=outputs, sums=sums)


def _by_torch(
    weights: door.LayerWeights, tensors: tuple[Tensor, ...], x: Tensor, state: State | None, lengths: Tensor | None,
    outputs: bool,
) -> tuple[Tensor | None, State] | None:  # fmt: skip
    """torch.lstm over padded input, where there is no C code; with gradients too."""
    if not is_strided(x, weights.dtype, _CPU) or x.dim() != 3 or x.shape[2] != weights.inputs:
        return None
    (count, steps, _), directions = x.shape, weights.directions
    if lengths is not None and not (is_strided(lengths, torch.int64, _CPU) and lengths.shape == (count,)):
        return None
    if state is None:
        zeros = x.new_zeros(directions, count, weights.hidden)
        state = (zeros, zeros)
    elif any(not is_strided(one, x.dtype, _CPU) or one.shape != (directions, count, weights.hidden) for one in state):
        return None
    own = Weights(tensors, len(tensors) // directions - 2, False, 1, directions == 2, 0.0)
    return torch_lstm.run(Batch(x, None, lengths, steps), state, own, outputs=outputs)
