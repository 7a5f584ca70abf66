"""One narrow layer of a RaggedLSTM, and a tower with one, straight to their Triton kernels in plain eager code.

A small LSTM on a GPU is over before the host has called three operators: the host's time is the time of a call. So here
nothing is computed beside the kernels, which find sentences by lengths or offsets themselves. What it gains is in the
rows "host" of `python benchmarks/run.py cuda --quick`. All else takes the operators, as compile and export do.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from towers.contracts.modes import autocast, proving
from towers.kernels.batch import State, is_strided, plain
from towers.kernels.triton import support
from towers.layers.plain_lstm import one_layer
from towers.ragged import Ragged

_PLAIN = (Tensor, nn.Parameter)
_LAYER, _TOWER = 11, 12  # what `Accepted` keeps the tensors for


class _Sizes(NamedTuple):
    device: torch.device
    inputs: int
    hidden: int


def run_on_gpu(
    lstm: nn.Module, input: Tensor | Ragged, state: State | None, lengths: Tensor | None, *, outputs: bool
) -> tuple[Tensor | None, State] | None:
    """As `plain_lstm.run_plain`: output and states of padded input or of Ragged; None: it is another case."""
    if state is not None or lstm.__dict__["bidirectional"] or not plain() or proving():
        return None
    found = one_layer(lstm)
    if found is None:
        return None
    tensors, accepted = found
    sizes: _Sizes | None = accepted.recall(_layer_sizes, tensors, _LAYER)
    rows, offsets = (input, None) if isinstance(input, Tensor) else (input.values, input.offsets)
    if sizes is None or not _are_rows(rows, sizes.device, sizes.inputs) or autocast(sizes.device):
        return None
    from towers.kernels.triton.eager_calls import layer
    from towers.kernels.triton.launch import aligned
    from towers.kernels.triton.lstm_narrow import Places

    if offsets is None:
        if rows.dim() != 3 or not _lie_beside(lengths, sizes.device, rows.shape[0]):
            return None
        places = Places(None, lengths, rows.shape[0], rows.shape[1])
    else:
        if rows.dim() != 2 or not _lie_beside(offsets, sizes.device, offsets.shape[0]):
            return None
        places = Places(offsets, None, offsets.shape[0] - 1)
    w_ih, w_hh, *biases = tensors
    bias, bias_2 = (*biases, None, None)[:2]
    output, h_n, c_n = layer(aligned(rows), w_ih, w_hh, bias, bias_2, places, outputs=outputs, gaps=lengths is not None)
    return output, (h_n, c_n)


def tower_states(layers: tuple[nn.Module, ...], sentences: Tensor | Ragged, lengths: Tensor | None) -> Tensor | None:
    """The last states of a tower's sentences, "batch hidden"; None: it is another case.

    The layers are a PhraseConv, a FeaturePool and a RaggedLSTM, without hooks.
    """
    conv, pool, lstm = (layer.__dict__ for layer in layers)
    if not plain() or proving() or conv["product_dtype"] is not None:
        return None
    try:
        of_conv, of_lstm = conv["_parameters"], lstm["_parameters"]
        weight, bias = of_conv["weight"], of_conv["bias"]
        tensors = (weight, bias, of_lstm["weight_ih_l0"], of_lstm["weight_hh_l0"], of_lstm["bias_ih_l0"])
        accepted = lstm["accepted"]
    except KeyError:
        return None
    sizes: _Sizes | None = None
    if len(of_lstm) == 3:  # one layer and direction, one bias, no projection
        sizes = accepted.recall(_tower_sizes, tensors, _TOWER, pool["size"])
    if sizes is None:
        return None
    if isinstance(sentences, Tensor):
        rows, offsets = sentences, None
    elif sentences.table is None and lengths is None:
        rows, offsets = sentences.values, sentences.offsets
    else:
        return None
    if not _are_rows(rows, sizes.device, sizes.inputs) or autocast(sizes.device):
        return None
    from towers.kernels.triton.eager_calls import features, layer
    from towers.kernels.triton.lstm_narrow import Places

    fewer, words = weight.shape[0] - 1, 1
    if offsets is None:
        if rows.dim() != 3 or not _lie_beside(lengths, sizes.device, rows.shape[0]):
            return None
        words = rows.shape[1]
        places = Places(None, lengths, rows.shape[0], words, fewer)
        rows = rows.flatten(0, 1)
    else:
        if rows.dim() != 2 or not _lie_beside(offsets, sizes.device, offsets.shape[0]):
            return None
        places = Places(offsets, None, offsets.shape[0] - 1, 0, fewer)
    found = features(rows.contiguous(), weight, bias, lengths, max(words, 1), pool["size"])
    return layer(found, *tensors[2:], None, places, outputs=False, gaps=True)[1][0]


def _are_rows(values: Tensor, device: torch.device, width: int) -> bool:
    return is_strided(values, torch.float32, device) and values.shape[-1] == width


def _lie_beside(places: Tensor | None, device: torch.device, count: int) -> bool:
    if places is None:
        return True
    fits = type(places) in _PLAIN and places.shape == (count,)  # else the kernels would read beyond their end
    return fits and places.device == device and places.is_contiguous()


def _layer_sizes(tensors: tuple[Tensor, ...], _: int) -> _Sizes | None:
    """Of weights that the narrow kernels read as they are."""
    w_ih, w_hh, *biases = tensors
    if not _are_weights(tensors) or w_ih.dim() != 2 or w_hh.dim() != 2:
        return None
    inputs, hidden = w_ih.shape[1], w_hh.shape[1]
    shapes = [(4 * hidden, inputs), (4 * hidden, hidden), *[(4 * hidden,)] * len(biases)]
    fits = [tuple(one.shape) for one in tensors] == shapes and 0 < max(inputs, hidden) <= support.NARROW
    return _Sizes(w_ih.device, inputs, hidden) if fits and support.runs_on(w_ih.device) else None


def _tower_sizes(tensors: tuple[Tensor, ...], _: int, pool: int) -> _Sizes | None:
    """Of weights that the kernels of phrases and the narrow ones read as they are."""
    weight, bias, *of_lstm = tensors
    if not _are_weights(tensors) or weight.dim() != 3:
        return None
    lstm, filters = _layer_sizes(tuple(of_lstm), _LAYER), weight.shape[1]
    if lstm is None or tuple(bias.shape) != (filters,) or filters != pool * lstm.inputs:
        return None
    fits = weight.device == lstm.device and support.serves_phrases(weight, weight, pool)
    return _Sizes(lstm.device, weight.shape[2], lstm.hidden) if fits else None


def _are_weights(tensors: tuple[Tensor, ...]) -> bool:
    device = tensors[0].device
    return all(is_strided(one, torch.float32, device) and one.is_contiguous() and not one.is_neg() for one in tensors)
