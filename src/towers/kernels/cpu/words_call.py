"""Words multiplied by the weights of a convolution, one call of `phrases.c`: the sums that a tower in C makes itself.

So a tower gives the same bits from words that it multiplies at each call and from a product that was kept.
"""

import struct

import torch
from torch import Tensor

from towers.kernels.cpu.door import are_dense, dense, plain
from towers.kernels.cpu.library import code
from towers.kernels.cpu.threads import parallel_at, warn_of_one_thread

_JOB = struct.Struct("=9q").pack  # the struct `WordsJob` of `phrases.h`
_DONE, _NO_MEMORY, _ALONE = 0, 3, 4


def shares(vectors: Tensor, weight: Tensor) -> Tensor | None:
    """Of vectors "words width" and a weight "kernel_positions filters width": "words kernel_positions filters".

    None: gradients are wanted, the call is traced or transformed, or the tensors are not dense, of one dtype that the C
    code has, and of such sizes.
    """
    if not plain() or (torch.is_grad_enabled() and (vectors.requires_grad or weight.requires_grad)):
        return None
    if not are_dense((weight,)) or weight.dim() != 3 or 0 in weight.shape:
        return None
    rows, own = dense("vectors", vectors, weight.dtype), code(weight.dtype)
    if rows is None or own is None or rows.dim() != 2 or rows.shape[1] != weight.shape[2]:
        return None
    threads, found = torch.get_num_threads(), rows.new_empty((rows.shape[0], *weight.shape[:2]))
    answer = own.shares_of_words(_JOB(rows.data_ptr(), weight.data_ptr(), found.data_ptr(), rows.shape[0],
                                      *weight.shape, threads, parallel_at() if threads > 1 else 0))  # fmt: skip
    if answer >= _ALONE:
        warn_of_one_thread("torch's threads could not be started")
        answer -= _ALONE
    if answer == _NO_MEMORY:
        raise MemoryError("no memory is left for the weights of a convolution")
    return found
