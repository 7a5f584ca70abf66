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

_JOB = struct.Struct("=17q").pack  # the struct `LayerJob` of `lstm_layer.c`; C copies nothing of it, and keeps nothing
_SUMS = struct.Struct("=6q").pack  # and `SumsJob`
_DONE, _WRONG_LENGTHS, _WRONG_IDS, _NO_MEMORY, _ALONE = range(5)


def run(
    weights: LayerWeights, rows: Tensor, offsets: Tensor | None, lengths: Tensor | None, state: State | None, *,
    outputs: bool, sums: Tensor | None = None,
) -> tuple[Tensor | None, State] | None:  # fmt: skip
    """Output (None unless wanted) and states of sentences "batch steps inputs", or end to end beside offsets.

    With `sums_of_words` the rows are word ids, "rows", whose sums are not made again.

    None: something is not dense, sizes or dtypes do not fit, or lengths, offsets or ids are wrong.
    """
    hidden, directions = weights.hidden, weights.directions
    x = dense("input", rows, weights.dtype if sums is None else torch.int64)
    if sums is not None:
        sums = dense("sums", sums, weights.dtype)
        if sums is None or sums.dim() != 2 or sums.shape[1] != weights.sums_of_word or offsets is None:
            return None
        fits = x is not None and x.dim() == 1
    else:
        fits = x is not None and x.shape[-1] == weights.inputs and x.dim() == (3 if offsets is None else 2)
    if x is None or not fits:
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
    numbers = x if sums is None else sums
    y = numbers.new_empty((*(x.shape[:-1] if sums is None else x.shape), directions * hidden)) if outputs else None
    h_n, c_n = numbers.new_empty((directions, count, hidden)), numbers.new_empty((directions, count, hidden))
    threads = torch.get_num_threads()
    read = (x, None, None) if sums is None else (None, sums, x)
    at = [0 if one is None else one.data_ptr() for one in (*read, offsets, lengths, h_0, c_0, y, h_n, c_n)]
    answer = weights.forward(_JOB(weights.at, *at[:3], 0 if sums is None else len(sums), *at[3:5], of_rows, span, count,
                                  *at[5:], threads, parallel_at() if threads > 1 else 0))  # fmt: skip
    if answer >= _ALONE:
        warn_of_one_thread("torch's threads could not be started")
        answer -= _ALONE
    if answer == _NO_MEMORY:
        raise MemoryError("no memory is left for an LSTM's weights")
    return (y, (h_n, c_n)) if answer == _DONE else None


def sums_of_words(weights: LayerWeights, vectors: Tensor) -> Tensor:
    """What the sums of each word begin with, in each direction, "words sums_of_word": bias and product with its vector.

    Raises:
        RuntimeError: the vectors are not dense, "words inputs", of the weights' dtype.
    """
    x = dense("vectors", vectors, weights.dtype)
    if x is None or x.dim() != 2 or x.shape[1] != weights.inputs:
        raise RuntimeError(f"vectors are {tuple(vectors.shape)} {vectors.dtype}; {weights.inputs} inputs are wanted")
    threads, found = torch.get_num_threads(), x.new_empty((x.shape[0], weights.sums_of_word))
    answer = weights.sums(_SUMS(weights.at, x.data_ptr(), found.data_ptr(), x.shape[0], threads,
                                parallel_at() if threads > 1 else 0))  # fmt: skip
    if answer >= _ALONE:
        warn_of_one_thread("torch's threads could not be started")
        answer -= _ALONE
    if answer == _NO_MEMORY:
        raise MemoryError("no memory is left for an LSTM's weights")
    return found
