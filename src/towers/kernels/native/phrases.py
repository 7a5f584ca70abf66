# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""How `phrases.c` is called: pooled features of all phrases, and the way back."""

import ctypes
from ctypes import c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from towers.kernels.native.library import code
from towers.kernels.threads import openmp

REALS = {torch.float32: "float", torch.float64: "double"}
A_THREAD = 500  # rows, about 10 µs, below which a second thread is not worth to be woken
A_PART = 256  # rows that one thread takes at a time


class Job(ctypes.Structure):
    """What `phrases.c` calls so."""

    _fields_ = (
        *((name, c_void_p) for name in ("shares", "ids", "bias", "features", "chosen", "g_shares", "g_bias")),
        *((name, c_int64) for name in ("words", "rows", "places", "filters", "pool", "parts", "next", "wrong")),
    )


def serves(dtype: torch.dtype) -> bool:
    """Whether it can run such numbers on this machine."""
    return dtype in REALS and code("phrases", REALS[dtype]) is not None


def forward(shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    """The pooled features of the phrase that starts with each token, "rows features"; to `keep`, which they were.

    Args:
        shares: of each token, or of words: "words places filters".
        bias: "filters".
        ids: the word that each token is.
        pool: features of a group.

    Raises:
        IndexError: an id is none of a word.
    """
    shares, bias = shares.contiguous(), bias.contiguous()
    ids = None if ids is None else ids.contiguous()
    words, places, filters = shares.shape
    rows = max((words if ids is None else len(ids)) - places + 1, 0)
    features = shares.new_empty(rows, filters // pool)
    chosen = torch.empty(features.shape, dtype=torch.int32) if keep else None
    job = _job(shares=shares, ids=ids, bias=bias, features=features, chosen=chosen, words=words, rows=rows,
               places=places, filters=filters, pool=pool)  # fmt: skip
    _run("forward", job, shares, -(-rows // A_PART))
    if job.wrong:
        raise IndexError(f"PhraseConv: an id of a word is not one of the {words} words of its table")
    return features, chosen


def backward(
    gradient: Tensor, chosen: Tensor, ids: Tensor | None, shape: tuple[int, int, int], pool: int
) -> tuple[Tensor, Tensor]:
    """The gradients of the shares, of this shape, and of the bias; the same whatever the threads."""
    gradient, ids = gradient.contiguous(), None if ids is None else ids.contiguous()
    words, places, filters = shape
    g_shares = gradient.new_empty(shape) if ids is None else gradient.new_zeros(shape)
    parts = -(-max(len(gradient), 1) // A_PART)
    g_bias = torch.empty(parts, filters, dtype=torch.float64)
    job = _job(ids=ids, features=gradient, chosen=chosen, g_shares=g_shares, g_bias=g_bias, words=words,
               rows=len(gradient), places=places, filters=filters, pool=pool)  # fmt: skip
    _run("backward", job, gradient, parts)
    if ids is not None:
        _run("backward_words", job, gradient, places)
    return g_shares, g_bias.sum(0).to(gradient.dtype)


def _job(**fields: Any) -> Job:
    return Job(**{name: part.data_ptr() if isinstance(part, Tensor) else part for name, part in fields.items()})


def _run(name: str, job: Job, like: Tensor, parts: int) -> None:
    function = getattr(code("phrases", REALS[like.dtype]), name)
    job.parts, job.next = parts, 0
    parallel, threads = openmp(), min(torch.get_num_threads(), parts, job.rows // A_THREAD)
    if threads < 2 or parallel is None:
        function(ctypes.byref(job))
    else:
        parallel(ctypes.cast(function, c_void_p), ctypes.byref(job), threads, 0)
