"""The one door from tensors to the C code of a whole tower: nothing gets through that ATen itself would not read.

C reads whatever lies at an address. So all of this is checked here at each call, whatever contracts are set to:

- how the call came (`plain`): tracing, compiling, modes of dispatch, transforms of functions and derivatives in forward
  mode see tensors that have no numbers of their own. They go to torch's own operations;
- the sentences, in full: type, dtype, device, layout, sizes, and that the storage is large enough. Lengths and offsets
  are looked at in C, where they are read anyway;
- the weights (`Accepted`): type, dtype, device, sizes, strides and address are compared with those last accepted, and
  checked in full when one of them has changed. Nothing else of a weight is remembered.

What does not fit gets None: the layers run, and their contracts say what is wrong. A tensor whose storage is too small
is refused here, since torch's own operations would read beyond its end.
"""

import ctypes
import struct
from ctypes import c_int64, c_void_p
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from towers.kernels.batch import Batch, State, Weights, is_functorch_wrapped_tensor
from towers.kernels.batch import plain as plain
from towers.kernels.cpu.library import REALS, code
from towers.kernels.cpu.threads import parallel_for, warn_of_one_thread

_PLAIN = (Tensor, nn.Parameter)
_INTS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


# The structs of `tower.h`.


class _LstmCode(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("lay_out", "pack", "pack_back", "forward", "backward", "give_weights")),
        ("lanes", c_int64),
    )


class _Tower(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("weight", "bias", "w_ih", "w_hh", "lstm_bias", "lstm")),
        *((name, c_int64) for name in ("width", "kernel_positions", "filters", "pool", "hidden")),
    )


class _Head(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("dense", "dense_bias", "logit", "logit_bias")),
        *((name, c_int64) for name in ("units", "hidden")),
    )


_SENTENCES = 15  # numbers of a struct `Sentences`
_NONE = (0,) * _SENTENCES
_JOB = struct.Struct(f"={2 * _SENTENCES + 5}q").pack
_BACKWARD = struct.Struct(f"={_SENTENCES + 10}q").pack
_DONE, _, _WRONG_IDS, _NO_MEMORY, _ALONE = range(5)


class _Job(ctypes.Structure):
    _fields_ = (("numbers", c_int64 * (2 * _SENTENCES + 5)),)


class _BackwardJob(ctypes.Structure):
    _fields_ = (("numbers", c_int64 * (_SENTENCES + 10)),)


@lru_cache(None)
def _lstm_code(dtype: torch.dtype, hidden: int) -> _LstmCode | None:
    own = code(dtype, hidden)
    if own is None:
        return None
    names = ("lay_out", "pack", "pack_back", "forward", "backward", "give_weights")
    return _LstmCode(*(_address(getattr(own, f"lstm_{name}")) for name in names), own.lanes)


@lru_cache(1)
def _parallel() -> int:
    found = parallel_for()
    return 0 if found is None else _address(found) or 0


def _address(function: Any) -> int | None:
    return ctypes.cast(function, c_void_p).value


# Weights.


class Accepted:
    """Which weights of a module the door accepted last. Copies and pickles are empty."""

    __slots__ = ("latest",)

    def __init__(self) -> None:
        self.latest: tuple[object, Any, Any] = (None, None, None)

    def __reduce__(self) -> tuple[type["Accepted"], tuple[()]]:
        return Accepted, ()


class TowerWeights(NamedTuple):
    """The weights of a tower as the C code takes them."""

    dtype: torch.dtype
    shape: tuple[int, int, int]  # of the convolution's weight: kernel_positions, filters, width
    hidden: int
    features: int  # of a phrase, after the pool
    lanes: int  # numbers that a word's cell takes
    own: _Tower
    of_shares: _Tower  # the same without the convolution's weight
    forward: Any
    backward: Any


class HeadWeights(NamedTuple):
    """Those of the two dense layers."""

    hidden: int
    own: _Head


def facts(tensors: tuple[Tensor, ...]) -> list[tuple[object, ...]]:
    """What must not have changed of tensors that were accepted before.

    Raises:
        RuntimeError: a tensor has no address.
    """
    return [(type(t), t.dtype, t.is_cpu, t.is_neg(), t.shape, t.stride(), t.data_ptr()) for t in tensors]


def tower_weights(accepted: Accepted, tensors: tuple[Tensor, ...], pool: int) -> TowerWeights | None:
    """The weights (kernel_positions filters width), (filters,) of the convolution, then W_ih, W_hh and bias."""
    try:
        now = (pool, facts(tensors))
    except (RuntimeError, AttributeError):  # sparse or wrapped, or no tensor at all
        return None
    latest = accepted.latest
    if latest[0] == now:
        return latest[1]
    found = _tower_weights(tensors, pool)
    accepted.latest = (now, found, None)
    return found


def _tower_weights(tensors: tuple[Tensor, ...], pool: int) -> TowerWeights | None:
    weight, _, _, w_hh, _ = tensors
    if not (_are_dense(tensors) and weight.dim() == 3 and w_hh.dim() == 2):
        return None
    (kernel_positions, filters, width), hidden, dtype = weight.shape, w_hh.shape[1], weight.dtype
    features = filters // pool
    sizes = [(kernel_positions, filters, width), (filters,), (4 * hidden, features), (4 * hidden, hidden)]
    fit = [tensor.shape for tensor in tensors] == [*sizes, (4 * hidden,)] and features * pool == filters
    if not fit or 0 in (kernel_positions, filters, width, hidden) or any(tensor.dtype != dtype for tensor in tensors):
        return None
    own, lstm = code(dtype), _lstm_code(dtype, hidden) if dtype in REALS else None
    if own is None or lstm is None:
        return None
    at = [int(tensor.data_ptr()) for tensor in tensors]
    numbers = (width, kernel_positions, filters, pool, hidden)
    structs = [_Tower(first, *at[1:], ctypes.addressof(lstm), *numbers) for first in (at[0], None)]
    lanes, shape = -(-hidden // lstm.lanes) * lstm.lanes, (kernel_positions, filters, width)
    return TowerWeights(
        dtype, shape, hidden, features, lanes, structs[0], structs[1], own.tower_forward, own.tower_backward
    )


def head_weights(accepted: Accepted, tensors: tuple[Tensor, ...], dtype: torch.dtype) -> HeadWeights | None:
    """The weights and biases of two dense layers, the second with one unit."""
    try:
        now = (dtype, facts(tensors))
    except (RuntimeError, AttributeError):
        return None
    latest = accepted.latest
    if latest[0] == now:
        return latest[1]
    found = _head_weights(tensors, dtype)
    accepted.latest = (now, found, None)
    return found


def _head_weights(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> HeadWeights | None:
    dense = tensors[0]
    if not _are_dense(tensors) or dense.dim() != 2 or any(tensor.dtype != dtype for tensor in tensors):
        return None
    units, hidden = dense.shape
    if [tensor.shape for tensor in tensors] != [(units, hidden), (units,), (1, units), (1,)]:
        return None
    return HeadWeights(hidden, _Head(*(tensor.data_ptr() for tensor in tensors), units, hidden))


def _are_dense(tensors: tuple[Tensor, ...]) -> bool:
    """Whether these are plain tensors on the CPU, dense and in one piece."""
    return all(
        type(tensor) in _PLAIN
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_neg()
        and not is_functorch_wrapped_tensor(tensor)
        and tensor.is_contiguous()
        and is_whole(tensor)
        for tensor in tensors
    )


def is_whole(tensor: Tensor) -> bool:
    """Whether the storage holds all of a contiguous tensor."""
    needed = (tensor.storage_offset() + tensor.numel()) * tensor.itemsize
    return tensor.untyped_storage().nbytes() >= needed


# Sentences.


class Words(NamedTuple):
    """Sentences, as the C code takes them. All but `rows` are int64."""

    rows: Tensor  # vectors "words width" or "batch words width", or shares "words kernel_positions filters"
    ids: Tensor | None  # "tokens": the row of each token
    offsets: Tensor | None  # "batch+1"
    lengths: Tensor | None  # "batch"
    batch: int  # sentences
    span: int  # the tokens of each, where there are no offsets; with padding
    tokens: int
    words: int  # rows


def dense(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor | None:
    """A tensor that the C code may read; None: it is none of a plain kind.

    Raises:
        RuntimeError: its storage is too small for its sizes.
    """
    if type(tensor) not in _PLAIN or tensor.dtype is not dtype or not tensor.is_cpu or tensor.is_nested:
        return None
    if tensor.layout is not torch.strided or is_functorch_wrapped_tensor(tensor):
        return None
    if tensor.is_neg() or not tensor.is_contiguous():
        _check_storage(name, tensor)
        tensor = tensor.resolve_neg().contiguous()
    if not is_whole(tensor):
        _check_storage(name, tensor)
    return tensor


def _check_storage(name: str, tensor: Tensor) -> None:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (tensor.storage_offset() + last + 1) * tensor.itemsize if tensor.numel() else 0
    held = tensor.untyped_storage().nbytes()
    if held < needed:
        raise RuntimeError(f"{name} is {tuple(tensor.shape)}, which takes {needed} bytes; its storage holds {held}")


def padded(rows: Tensor, lengths: Tensor | None, weights: TowerWeights) -> Words | None:
    """Sentences "batch words width", and how many words of each are real."""
    found = dense("sentences", rows, weights.dtype)
    if found is None or found.dim() != 3:
        return None
    count, span, width = found.shape
    if width != weights.shape[2]:
        return None
    if lengths is not None:
        lengths = places("lengths", lengths, count)
    return Words(found, None, None, lengths, count, span, count * span, count * span)


def ragged(
    rows: Tensor, ids: Tensor | None, offsets: Tensor, uniform: int | None, weights: TowerWeights, shares: bool
) -> Words | None:
    """Sentences end to end: vectors "tokens width"; or `shares`, those of each token, or of each word beside ids."""
    found = dense("values", rows, weights.dtype)
    wanted = weights.shape[:2] if shares else weights.shape[2:]
    if found is None or found.shape[1:] != wanted or found.dim() == 0:
        return None
    words = tokens = found.shape[0]
    if ids is not None:
        ids = dense("values", ids, torch.int64)
        if ids is None or ids.dim() != 1:
            return None
        tokens = ids.shape[0]
    count = offsets.shape[0] - 1 if offsets.dim() == 1 else -1
    if uniform is not None:
        return Words(found, ids, None, None, count, uniform, tokens, words) if count * uniform == tokens else None
    return (
        None if count < 0 else Words(found, ids, places("offsets", offsets, count + 1), None, count, 0, tokens, words)
    )


def is_eager(*gradients: Tensor | None) -> bool:
    """Whether these gradients have numbers, and no gradient of them is wanted."""
    if torch.is_grad_enabled() or not plain():
        return False
    try:
        return all(one is None or (type(one) is Tensor and one.untyped_storage().nbytes() >= 0) for one in gradients)
    except (NotImplementedError, RuntimeError):  # a batch of them (`is_grads_batched`) has no storage
        return False


def as_before(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """What was saved for the backward pass; hooks of torch's graph may have changed it.

    Raises:
        RuntimeError: its type, dtype or sizes are others.
    """
    found = dense(name, tensor, dtype)
    if found is None or found.shape != shape:
        came = f"{type(tensor).__name__} {tuple(tensor.shape)} {tensor.dtype}"
        raise RuntimeError(f"{name} came back from torch's graph as {came}; it was {tuple(shape)} {dtype}")
    return found


def check_lstm(batch: Batch, count: int, state: State, weights: Weights) -> None:
    """Refuse what the C code of an LSTM would read beyond its end; `batch.check_sizes` has compared the other sizes.

    Raises:
        RuntimeError: a tensor is not dense, or its storage is too small for its sizes.
        ValueError: there is not one start and one length, as int64, for each sentence.
    """
    names = ("input", "h_0", "c_0", *["a weight"] * len(weights.flat))
    for name, tensor in zip(names, (batch.values, *state, *weights.flat), strict=True):
        if dense(name, tensor, tensor.dtype) is None:
            raise RuntimeError(f"RaggedLSTM: {name} is no dense tensor on the CPU")
    for name, tensor in (("starts", batch.starts), ("lengths", batch.lengths)):
        if tensor is not None and (tensor.shape != (count,) or dense(name, tensor, torch.int64) is None):
            came = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ValueError(f"RaggedLSTM: {name} is {came}; expected ({count},) torch.int64, one for each sentence")


def places(name: str, tensor: Tensor, count: int) -> Tensor:
    """Lengths or offsets, as int64.

    Raises:
        ValueError: they are not `count` whole numbers on the CPU. Contracts, where they are on, have said it before.
    """
    found = dense(name, tensor.to(torch.int64), torch.int64) if tensor.dtype in _INTS else None
    if found is None or found.shape != (count,):
        came = f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
        raise ValueError(f"{name} is {came}; expected ({count},) torch.int64 on cpu")
    return found


def _numbers(words: Words, weights: TowerWeights, shares: bool, states: int) -> tuple[int, ...]:
    rows, ids, offsets, lengths, _, span, tokens, _words = words
    return (
        ctypes.addressof(weights.of_shares if shares else weights.own),
        rows.data_ptr(),
        0 if ids is None else ids.data_ptr(),
        0 if offsets is None else offsets.data_ptr(),
        0 if lengths is None else lengths.data_ptr(),
        _words,
        tokens,
        span,
        states,
    )


# The calls.


def states(words: Words, weights: TowerWeights, shares: bool) -> Tensor | None:
    """The last states "batch hidden"; None: lengths or offsets are wrong.

    Raises:
        IndexError: an id is not one of a word.
    """
    result = words.rows.new_empty((words.batch, weights.hidden))
    return result if _forward(words, weights, shares, result, _NOTHING) else None


def states_and_kept(words: Words, weights: TowerWeights, shares: bool) -> tuple[Tensor, "Kept"] | None:
    """Also what the backward pass needs."""
    count, tokens, hidden = words.batch, words.tokens, weights.hidden
    result = words.rows.new_empty((count, hidden))
    chosen = torch.empty(tokens * weights.features, dtype=torch.int32, device="cpu")
    alike = words.offsets is None and words.lengths is None
    places = None if alike else torch.empty(4 * count + 2 + tokens, dtype=torch.int64, device="cpu")
    numbers = words.rows.new_empty(tokens * (weights.features + 6 * weights.lanes))
    kept = Kept(places, chosen, numbers)
    return (result, kept) if _forward(words, weights, shares, result, kept.at(weights)) else None


class Kept(NamedTuple):
    """What forward leaves for the backward pass: the first two are indices, which C code trusts."""

    places: Tensor | None
    chosen: Tensor
    numbers: Tensor

    def at(self, weights: TowerWeights) -> tuple[int, ...]:
        """The addresses, in the order of `Sentences` of `tower.h`."""
        size, first = self.numbers.itemsize, self.numbers.data_ptr()
        tokens = self.numbers.numel() // (weights.features + 6 * weights.lanes)
        gates = first + size * tokens * weights.features
        cells = gates + size * tokens * 4 * weights.lanes
        places = 0 if self.places is None else self.places.data_ptr()
        return places, self.chosen.data_ptr(), first, gates, cells, cells + size * tokens * weights.lanes


_NOTHING = (0,) * 6


def _forward(words: Words, weights: TowerWeights, shares: bool, result: Tensor, kept: tuple[int, ...]) -> bool:
    numbers = _numbers(words, weights, shares, result.data_ptr())
    threads = torch.get_num_threads()
    job = _JOB(*numbers, *kept, *_NONE, 0, 0, words.batch, threads, _parallel() if threads > 1 else 0)
    return _done(weights.forward(ctypes.byref(_Job.from_buffer_copy(job))), words)


def backward(
    words: Words, weights: TowerWeights, shares: bool, kept: Kept, gradient: Tensor, *, wants_rows: bool
) -> tuple[Tensor | None, ...]:
    """The gradients of the rows (None unless wanted), of the convolution's weight (None for shares), of the others."""
    rows, (kernel_positions, filters, width) = words.rows, weights.shape
    hidden, features = weights.hidden, weights.features
    g_rows = g_weight = None
    if shares or wants_rows:
        some = words.ids is not None or words.lengths is not None
        g_rows = torch.zeros_like(rows) if some else torch.empty_like(rows)
    if not shares:
        g_weight = rows.new_empty((kernel_positions, filters, width))
    others = [
        rows.new_empty(size) for size in ((filters,), (4 * hidden, features), (4 * hidden, hidden), (4 * hidden,))
    ]
    threads = torch.get_num_threads()
    job = _BACKWARD(
        *_numbers(words, weights, shares, 0), *kept.at(weights),
        words.batch, threads, _parallel() if threads > 1 else 0,
        gradient.data_ptr(), *(0 if one is None else one.data_ptr() for one in (g_rows, g_weight, *others)),
    )  # fmt: skip
    _done(weights.backward(ctypes.byref(_BackwardJob.from_buffer_copy(job))), words)
    return g_rows, g_weight, *others


def logits(
    left: Words, of_left: TowerWeights, left_shares: bool,
    right: Words, of_right: TowerWeights, right_shares: bool, head: HeadWeights,
) -> Tensor | None:  # fmt: skip
    """The logits "batch" of pairs; None: they do not fit each other, or lengths or offsets are wrong.

    Raises:
        IndexError: an id is not one of a word.
    """
    count, hidden = left.batch, head.hidden
    if right.batch != count or of_left.hidden != hidden or of_right.hidden != hidden or of_right.dtype != of_left.dtype:
        return None
    result, threads = left.rows.new_empty((count,)), torch.get_num_threads()
    job = _JOB(
        *_numbers(left, of_left, left_shares, 0), *_NOTHING, *_numbers(right, of_right, right_shares, 0), *_NOTHING,
        ctypes.addressof(head.own), result.data_ptr(), count, threads, _parallel() if threads > 1 else 0,
    )  # fmt: skip
    return result if _done(of_left.forward(ctypes.byref(_Job.from_buffer_copy(job))), left, right) else None


def _done(answer: int, *of: Words) -> bool:
    """Whether there is a result; not where lengths or offsets are wrong."""
    if answer >= _ALONE:
        warn_of_one_thread("torch's threads could not be started")
        answer -= _ALONE
    if answer == _NO_MEMORY:
        raise MemoryError("no memory is left for a tower's states")
    if answer == _WRONG_IDS:
        tables = " or ".join(str(words.words) for words in of if words.ids is not None)
        raise IndexError(f"PhraseConv: an id of a word is not one of the {tables} words of its table")
    return answer == _DONE
