"""One layer of an LSTM in one direction or both, without gradients: one call of `lstm_layer.c`.

The door has checked weights and sentences before; lengths and offsets are left for the C code to check. The rows "one
sentence" of `python benchmarks/run.py tower` are what it gains.
"""

import struct

import torch
from torch import Tensor

from towers.kernels.batch import State
from towers.kernels.cpu.door import LayerWeights, dense, places
from towers.kernels.cpu.threads import parallel_at, warn_of_one_thread

_JOB = struct.Struct("=14q").pack  # the struct `LayerJob` of `lstm_layer.c`; C copies nothing of it, and keeps nothing
_DONE, _WRONG_LENGTHS, _, _NO_MEMORY, _ALONE = range(5)


def run(
    weights: LayerWeights, rows: Tensor, offsets: Tensor | None, lengths: Tensor | None, state: State | None, *,
    outputs: bool,
) -> tuple[Tensor | None, State] | None:  # fmt: skip
    """Output (None unless wanted) and states of sentences "batch steps inputs", or end to end beside offsets.

    None: something is not dense, sizes or dtypes do not fit, or lengths or offsets are wrong.
    """
    x, hidden, directions = dense("input", rows, weights.dtype), weights.hidden, weights.directions
    if x is None or x.shape[-1] != weights.inputs or x.dim() != (3 if offsets is None else 2):
        return None
    if offsets is None:
        count, span = x.shape[:2]
        of_rows = count * span
    else:
        of_rows, span, count = x.shape[0], 0, offsets.shape[0] - 1
        if offsets.dim() != 1 or count < 0:
            return None
        offsets = places("offsets", offsets, count + 1)
    if lengths is not None:
        lengths = places("lengths", lengths, count)
    h_0 = c_0 = None
    if state is not None:
        h_0, c_0 = [dense(name, one, weights.dtype) for name, one in zip(("h_0", "c_0"), state, strict=True)]
        if h_0 is None or c_0 is None or h_0.shape != (directions, count, hidden) or c_0.shape != h_0.shape:
            return None
    y = x.new_empty((*x.shape[:-1], directions * hidden)) if outputs else None
    h_n, c_n = x.new_empty((directions, count, hidden)), x.new_empty((directions, count, hidden))
    threads = torch.get_num_threads()
    at = [0 if one is None else one.data_ptr() for one in (x, offsets, lengths, h_0, c_0, y, h_n, c_n)]
    answer = weights.forward(_JOB(weights.at, *at[:3], of_rows, span, count, *at[3:], threads,
                                  parallel_at() if threads > 1 else 0))  # fmt: skip
    if answer >= _ALONE:
        warn_of_one_thread("torch's threads could not be started")
        answer -= _ALONE
    if answer == _NO_MEMORY:
        raise MemoryError("no memory is left for an LSTM's weights")
    return (y, (h_n, c_n)) if answer == _DONE else None
