"""The convolution and the pool of a tower in C (`phrases.c`): pooled features of all phrases, and the backward pass.

Sizes and dtypes must fit each other: the caller checks them (`towers.layers.fused`), for C reads whatever lies there.
"""

import ctypes
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels.cpu.library import Code, code
from towers.kernels.cpu.threads import start

A_PART = 240  # phrases that one thread takes at a time, from shares
A_PRODUCT = 96  # phrases that one thread takes at a time, from vectors
PARTS = 8  # parts of the phrases; each has a sum of its own for the weights' gradient
A_THREAD = 500  # phrases from shares (about 10 µs) for which it pays to wake another thread
OF_PRODUCTS = 25  # phrases from vectors for which it pays to wake another thread


class Job(ctypes.Structure):
    """The struct `PhrasesJob` of `phrases.h`."""

    _fields_ = (
        *((name, c_void_p) for name in ("vectors", "packed", "whole", "shares", "ids", "bias", "features", "chosen")),
        *((name, c_void_p) for name in ("g_vectors", "g_weight", "g_shares", "sums", "g_bias")),
        *((name, c_int64) for name in ("words", "tokens", "width", "rows", "kernel_positions", "filters", "pool")),
        *((name, c_int64) for name in ("part", "parts", "next", "wrong")),
    )


def forward(shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    """The pooled features of the phrase that starts with each token, "rows features".

    With `keep` also, for the backward pass, which feature of its group each of them is.

    Args:
        shares: what each token, or each word, adds to a phrase at each position: "words kernel_positions filters".
        bias: "filters".
        ids: the word that each token is; None: each token has shares of its own.
        pool: features of a group.
        keep: whether the backward pass will be asked for.

    Raises:
        IndexError: an id is not one of a word.
    """
    words, kernel_positions, filters = shares.shape
    job = _job(words if ids is None else len(ids), kernel_positions, filters, pool, A_PART, words=words)
    features, chosen = _results(job, shares, keep)
    _run("forward", job, job.parts, A_THREAD, shares=shares, bias=bias, ids=ids, features=features, chosen=chosen)
    if job.wrong:
        raise IndexError(f"PhraseConv: an id of a word is not one of the {words} words of its table")
    return features, chosen


def forward_vectors(
    vectors: Tensor, weight: Tensor, bias: Tensor, pool: int, *, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """As `forward`, from the vector of each token, "words width", and weights "kernel_positions filters width".

    The shares are made a few at a time, and never lie in memory.
    """
    kernel_positions, filters, width = weight.shape
    job = _job(len(vectors), kernel_positions, filters, pool, A_PRODUCT, words=len(vectors), width=width)
    features, chosen = _results(job, vectors, keep)
    weight, packed = (
        weight.resolve_neg().contiguous(),
        vectors.new_empty(width * _whole(kernel_positions * filters, vectors)),
    )
    at = (c_void_p(tensor.data_ptr()) for tensor in (packed, weight))
    _code(vectors).phrases_pack(*at, c_int64(kernel_positions * filters), c_int64(width))
    _run("forward", job, job.parts, OF_PRODUCTS, vectors=vectors, packed=packed, bias=bias, features=features,
         chosen=chosen)  # fmt: skip
    return features, chosen


def backward(
    gradient: Tensor, chosen: Tensor, ids: Tensor | None, shape: tuple[int, int, int], pool: int
) -> tuple[Tensor, Tensor]:
    """The gradients of the shares, of this shape, and of the bias; the number of threads changes no bit."""
    words, kernel_positions, filters = shape
    job = _job(words if ids is None else len(ids), kernel_positions, filters, pool, A_PART, words=words)
    g_shares = gradient.new_empty(shape) if ids is None else gradient.new_zeros(shape)
    g_bias = torch.empty(job.parts, filters, dtype=torch.float64, device="cpu")
    tensors = {"features": gradient, "chosen": chosen, "ids": ids, "g_shares": g_shares, "g_bias": g_bias}
    _run("backward", job, job.parts, A_THREAD, **tensors)
    if ids is not None:
        _run("backward_words", job, kernel_positions, A_THREAD, **tensors)
    return g_shares, g_bias.sum(0).to(gradient.dtype)


def backward_vectors(
    gradient: Tensor, chosen: Tensor, vectors: Tensor, weight: Tensor, pool: int, *, wants_vectors: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients of the vectors (None unless wanted), of the weights and of the bias."""
    kernel_positions, filters, width = weight.shape
    part = max(A_PART, -(-len(gradient) // PARTS))
    job = _job(len(vectors), kernel_positions, filters, pool, part, words=len(vectors), width=width)
    g_vectors = torch.empty_like(vectors, memory_format=torch.contiguous_format) if wants_vectors else None
    g_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    sums = vectors.new_empty(job.parts, kernel_positions * filters, _whole(width, vectors))
    g_bias = torch.empty(job.parts, filters, dtype=torch.float64, device="cpu")
    whole = F.pad(weight, (0, sums.shape[2] - width)) if wants_vectors else None
    tensors = {"features": gradient, "chosen": chosen, "vectors": vectors, "whole": whole, "sums": sums}
    tensors |= {"g_vectors": g_vectors, "g_weight": g_weight, "g_bias": g_bias}
    _run("backward", job, job.parts, OF_PRODUCTS, **tensors)
    _run("give_weights", job, kernel_positions * filters, A_THREAD, **tensors)
    return g_vectors, g_weight, g_bias.sum(0).to(gradient.dtype)


def _job(tokens: int, kernel_positions: int, filters: int, pool: int, part: int, **sizes: int) -> Job:
    rows = max(tokens - kernel_positions + 1, 0)
    return Job(
        rows=rows,
        tokens=tokens,
        kernel_positions=kernel_positions,
        filters=filters,
        pool=pool,
        part=part,
        parts=max(-(-rows // part), 1),
        **sizes,
    )


def _results(job: Job, like: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    features = like.new_empty(job.rows, job.filters // job.pool)
    return features, torch.empty(features.shape, dtype=torch.int32, device="cpu") if keep else None


def _run(name: str, job: Job, pieces: int, a_thread: int, **tensors: Tensor | None) -> None:
    """Run a function of `phrases.c` over `pieces` pieces of work; each thread has at least `a_thread` phrases."""
    given = {field: tensor.resolve_neg().contiguous() for field, tensor in tensors.items() if tensor is not None}
    for field, tensor in given.items():
        setattr(job, field, tensor.data_ptr())
    function = getattr(_code(given["features"]), f"phrases_{name}")
    start(function, job, min(torch.get_num_threads(), pieces, job.rows // a_thread))


def _code(like: Tensor) -> Code:
    own = code(like.dtype)
    assert own is not None
    return own


def _whole(count: int, like: Tensor) -> int:
    """A count of numbers, rounded up to whole vectors of the processor."""
    lanes = _code(like).lanes
    return -(-count // lanes) * lanes
