"""The one door to the C code of towers and LSTMs: nothing gets through that ATen itself would not read.

C reads whatever lies at an address. So all of this is checked at each call, whatever contracts are set to:

- how the call came (`plain`): tracing, compiling, modes of dispatch, transforms of functions and derivatives in forward
  mode see tensors that have no numbers of their own. They go to torch's own operations;
- the sentences, in full (`dense`): type, dtype, device, layout, sizes, and that the storage is large enough. Lengths
  and offsets are looked at in C, where they are read anyway;
- the weights (`facts`): type, dtype, device, sizes, strides and address are compared with those last accepted, and
  checked in full (`are_dense`) when one of them has changed. Nothing else of a weight is remembered.

What does not fit gets None: the layers run, and their contracts say what is wrong. A tensor whose storage is too small
is refused here, since torch's own operations would read beyond its end. `tower_call` makes a call of what came through.
"""

import ctypes
from collections.abc import Callable
from ctypes import c_int64, c_void_p
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from towers.kernels.batch import Batch, State, Weights, is_functorch_wrapped_tensor
from towers.kernels.batch import plain as plain
from towers.kernels.cpu.library import REALS, code

_PLAIN = (Tensor, nn.Parameter)
_INTS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_address: Callable[[Tensor], int] = Tensor.data_ptr
_TensorGuards: Any = getattr(getattr(getattr(torch._C, "_dynamo", None), "guards", None), "TensorGuards", None)
_OF_LSTM = ("lay_out", "pack", "pack_back", "forward", "backward", "give_weights")


# Tensors.


def are_dense(tensors: tuple[Tensor, ...]) -> bool:
    """Whether these are plain tensors on the CPU, dense and in one piece: what weights must be."""
    return all(
        type(tensor) in _PLAIN
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_neg()
        and not is_functorch_wrapped_tensor(tensor)
        and tensor.is_contiguous()
        and tensor.untyped_storage().nbytes() >= (tensor.storage_offset() + tensor.numel()) * tensor.itemsize
        for tensor in tensors
    )


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
    if tensor.untyped_storage().nbytes() < (tensor.storage_offset() + tensor.numel()) * tensor.itemsize:
        _check_storage(name, tensor)
    return tensor


def _check_storage(name: str, tensor: Tensor) -> None:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (tensor.storage_offset() + last + 1) * tensor.itemsize if tensor.numel() else 0
    held = tensor.untyped_storage().nbytes()
    if held < needed:
        raise RuntimeError(f"{name} is {tuple(tensor.shape)}, which takes {needed} bytes; its storage holds {held}")


def places(name: str, tensor: Tensor, count: int) -> Tensor:
    """Lengths or offsets, as int64.

    Raises:
        ValueError: they are not `count` whole numbers on the CPU. Contracts, where they are on, have said it before.
    """
    whole = tensor if tensor.dtype is torch.int64 else tensor.to(torch.int64) if tensor.dtype in _INTS else None
    found = None if whole is None else dense(name, whole, torch.int64)
    if found is None or found.shape != (count,):
        came = f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
        raise ValueError(f"{name} is {came}; expected ({count},) torch.int64 on cpu")
    return found


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


# Weights: those of a tower, of two towers with their head, and of a layer of an LSTM.


class _Latest(NamedTuple):
    how: object
    facts: list[tuple[object, ...]]
    addresses: list[int]
    guards: dict[bool, Any]
    """torch's own comparison of types, dtypes, devices, layouts, sizes and strides; it depends on the gradient mode."""
    given: Any


class Accepted:
    """Which weights of a module the door accepted last. Copies and pickles are empty."""

    __slots__ = ("latest",)

    def __init__(self) -> None:
        self.latest: _Latest | None = None

    def __reduce__(self) -> tuple[type["Accepted"], tuple[()]]:
        return Accepted, ()

    def recall(self, make: Callable[..., Any], tensors: tuple[Tensor, ...], *how: int) -> Any:
        """What `make` gave for these tensors, from the last call if they have not changed; None: they have no address.

        The comparison in C++ takes a third of the time of reading all facts: 2 of the 60 µs of a pair.
        (`python benchmarks/run.py tower`, row "towers, padded vectors" of "no padding" at batch 1.)
        """
        latest, key = self.latest, (*how, len(tensors))
        if latest is not None and latest.how == key:
            guards = latest.guards.get(torch.is_grad_enabled())
            if guards is not None and guards.check(*tensors) and list(map(_address, tensors)) == latest.addresses:
                return latest.given
        try:
            now = facts(tensors)
            addresses = list(map(_address, tensors))
        except (RuntimeError, AttributeError, TypeError):  # sparse or wrapped, or no tensor at all
            return None
        if latest is None or latest.how != key or latest.facts != now:
            self.latest = latest = _Latest(key, now, addresses, {}, make(tensors, *how))
        latest.guards[torch.is_grad_enabled()] = _guards(tensors)
        return latest.given


def _guards(tensors: tuple[Tensor, ...]) -> Any:
    """torch's comparison of what may change, or None: this torch has none, or a tensor is there twice."""
    if _TensorGuards is None or len(set(map(id, tensors))) != len(tensors):
        return None
    return _TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)


def facts(tensors: tuple[Tensor, ...]) -> list[tuple[object, ...]]:
    """What must not have changed of tensors that were accepted before; the strides of dense ones follow from the sizes.

    Raises:
        RuntimeError: a tensor has no address.
    """
    return [(type(t), t.dtype, t.is_cpu, t.is_neg(), t.is_contiguous(), t.shape, t.data_ptr()) for t in tensors]


class _LstmCode(ctypes.Structure):
    _fields_ = (*((name, c_void_p) for name in _OF_LSTM), ("lanes", c_int64))


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


@lru_cache(None)
def _lstm_code(dtype: torch.dtype, hidden: int) -> _LstmCode | None:
    own = code(dtype, hidden)
    if own is None:
        return None
    return _LstmCode(*(address(getattr(own, f"lstm_{name}")) for name in _OF_LSTM), own.lanes)


def address(function: Any) -> int | None:
    """Where a C function is."""
    return ctypes.cast(function, c_void_p).value


class TowerWeights(NamedTuple):
    """The weights of a tower: (kernel_positions filters width), (filters,) of the convolution, W_ih, W_hh and bias."""

    dtype: torch.dtype
    shape: tuple[int, int, int]  # of the convolution's weight: kernel_positions, filters, width
    hidden: int
    features: int  # of a phrase, after the pool
    pool: int
    lanes: int  # numbers that a word's cell takes
    at: int  # the struct
    of_shares: int  # the same without the convolution's weight
    forward: Any
    backward: Any
    structs: Any  # so that they stay


def tower_weights(accepted: Accepted, tensors: tuple[Tensor, ...], pool: int) -> TowerWeights | None:
    """Weights in the order of TowerWeights; None: they are not dense, or their sizes or dtypes do not fit."""
    return accepted.recall(_tower_weights, tensors, pool)


def _tower_weights(tensors: tuple[Tensor, ...], pool: int) -> TowerWeights | None:
    weight, _, _, w_hh, _ = tensors
    if not (are_dense(tensors) and weight.dim() == 3 and w_hh.dim() == 2):
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
    at_own, at_shares = [ctypes.addressof(struct) for struct in structs]
    calls = own.tower_forward, own.tower_backward, [*structs, lstm]  # their addresses are in the structs
    return TowerWeights(dtype, shape, hidden, features, pool, lanes, at_own, at_shares, *calls)


class PairWeights(NamedTuple):
    """The weights of two towers, then (units hidden), (units,), (1 units) and (1,) of the dense layers behind them."""

    left: TowerWeights
    right: TowerWeights
    units: int
    at: int  # the head's struct
    backward: Any
    struct: Any


def pair_weights(
    accepted: Accepted, tensors: tuple[Tensor, ...], left_pool: int, right_pool: int
) -> PairWeights | None:
    """Weights in the order of PairWeights; None: they are not dense, or their sizes or dtypes do not fit."""
    return accepted.recall(_pair_weights, tensors, left_pool, right_pool)


def _pair_weights(tensors: tuple[Tensor, ...], left_pool: int, right_pool: int) -> PairWeights | None:
    left, right, head = _tower_weights(tensors[:5], left_pool), _tower_weights(tensors[5:10], right_pool), tensors[10:]
    if left is None or right is None or (left.dtype, left.hidden) != (right.dtype, right.hidden):
        return None
    if not are_dense(head) or head[0].dim() != 2 or any(tensor.dtype != left.dtype for tensor in head):
        return None
    units = head[0].shape[0]
    if units == 0 or [tensor.shape for tensor in head] != [(units, left.hidden), (units,), (1, units), (1,)]:
        return None
    struct, own = _Head(*(tensor.data_ptr() for tensor in head), units, left.hidden), code(left.dtype)
    return None if own is None else PairWeights(left, right, units, ctypes.addressof(struct), own.pair_backward, struct)


class _Layer(ctypes.Structure):
    _fields_ = (
        ("directions_weights", c_void_p * 8),  # of each: W_ih, W_hh and two biases
        *((name, c_int64) for name in ("inputs", "hidden", "directions")),
    )


class LayerWeights(NamedTuple):
    """The weights of one layer of an LSTM: of each direction W_ih, W_hh and up to two biases."""

    dtype: torch.dtype
    inputs: int
    hidden: int
    directions: int
    at: int  # the struct
    forward: Any  # None: there is no C code here
    sums: Any
    sums_of_word: int  # how many numbers `sums` gives for a word
    struct: Any


def layer_weights(accepted: Accepted, tensors: tuple[Tensor, ...], directions: int) -> LayerWeights | None:
    """Weights in the order of LayerWeights; None: they are not dense, or their sizes or dtypes do not fit."""
    return accepted.recall(_layer_weights, tensors, directions)


def _layer_weights(tensors: tuple[Tensor, ...], directions: int) -> LayerWeights | None:
    each = len(tensors) // directions
    w_ih, w_hh, *biases = tensors[:each]
    if not are_dense(tensors) or w_ih.dim() != 2 or w_hh.dim() != 2 or w_ih.dtype not in REALS:
        return None
    (inputs, hidden), dtype = (w_ih.shape[1], w_hh.shape[1]), w_ih.dtype
    sizes = [(4 * hidden, inputs), (4 * hidden, hidden), *[(4 * hidden,)] * len(biases)]
    if (
        [one.shape for one in tensors] != sizes * directions
        or 0 in sizes[0]
        or any(one.dtype != dtype for one in tensors)
    ):
        return None
    own = code(dtype, hidden)
    if own is None:
        return LayerWeights(dtype, inputs, hidden, directions, 0, None, None, 0, None)
    at = [one.data_ptr() for one in tensors]
    absent = [None] * (4 - each)
    struct = _Layer((c_void_p * 8)(*at[:each], *absent, *at[each:], *absent), inputs, hidden, directions)
    sums = own.lstm_sums, directions * -(-hidden // own.lanes) * 4 * own.lanes
    return LayerWeights(dtype, inputs, hidden, directions, ctypes.addressof(struct), own.lstm_layer, *sums, struct)


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
    shares: bool


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
    return Words(found, None, None, lengths, count, span, count * span, count * span, False)


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
        fits = count * uniform == tokens
        return Words(found, ids, None, None, count, uniform, tokens, words, shares) if fits else None
    if count < 0:
        return None
    return Words(found, ids, places("offsets", offsets, count + 1), None, count, 0, tokens, words, shares)
