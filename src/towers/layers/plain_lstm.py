"""One layer of a RaggedLSTM in one direction, in plain eager code without gradients: one call of C.

It is the case of a sentence at a time, where the general way's Python takes longer than the numbers: see the rows "one
sentence" of `python benchmarks/run.py tower`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from towers.contracts.modes import proving
from towers.kernels.batch import State
from towers.kernels.cpu import door, layer_call
from towers.ragged import Ragged

_NAMES = {
    True: ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"),
    "single": ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"),
    False: ("weight_ih_l0", "weight_hh_l0"),
}


def run_plain(
    lstm: nn.Module, input: Tensor | Ragged, state: State | None, lengths: Tensor | None, *, outputs: bool
) -> tuple[Tensor | None, State] | None:
    """Output and states, as `RaggedLSTM.run_batch` gives them, of padded input or of Ragged; None: it is another case.

    The LSTM has `accepted`, the door's memory.
    """
    if not door.plain() or proving() or torch.is_autocast_enabled("cpu"):
        return None
    own: dict[str, Any] = lstm.__dict__
    if own["num_layers"] != 1 or own["bidirectional"] or own["proj_size"] or own["recurrent_activation"] != "sigmoid":
        return None
    try:
        tensors = tuple([own["_parameters"][name] for name in _NAMES[own["bias"]]])
        accepted = own["accepted"]
    except KeyError:  # pruned, reparametrized, or unpickled from a release without this memory
        return None
    weights = door.layer_weights(accepted, tensors)
    if weights is None:
        return None
    rows, offsets = (input, None) if isinstance(input, Tensor) else (input.values, input.offsets)
    if torch.is_grad_enabled() and any(one.requires_grad for one in (rows, *tensors, *(state or ()))):
        return None
    return layer_call.run(weights, rows, offsets, lengths, state, outputs=outputs)
