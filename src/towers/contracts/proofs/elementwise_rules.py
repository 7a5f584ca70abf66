"""Fast shape rules for what keeps shapes: activations, arithmetic, normalization, dropout; and for changes of axes.

They serve tensors of which it is known how they lie in memory, and leave the others, and what is wrong, to torch. As in
`layer_rules`, the first argument is the symbols of the run.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.nn import functional as F

from towers.contracts.proofs.fast_meta import items_of, lying, made, plain, upright
from towers.contracts.proofs.symbols import Symbols


def autocast_on() -> bool:
    """Whether operations choose dtypes by themselves now."""
    return any(map(torch.is_autocast_enabled, ("cpu", "cuda")))


def same(symbols: Symbols, input: Any, *how: Any, **options: Any) -> Any:
    """An activation: its result has the shape, the dtype and the layout of its input, or is the input itself."""
    order = lying(input)
    if order is None or not input.dtype.is_floating_point or autocast_on() or options.get("dtype") is not None:
        return NotImplemented
    return input if options.get("inplace") else made(input.shape, input.dtype, order)


def prelu(symbols: Symbols, input: Any, weight: Any) -> Any:
    """F.prelu with one weight, or one for each channel."""
    if not floating(input) or not floating(weight) or weight.dtype != input.dtype or weight.dim() != 1:
        return NotImplemented
    fits = is_one(weight.shape[0]) or (input.dim() > 1 and alike(weight.shape[0], input.shape[1]))
    return same(symbols, input) if fits else NotImplemented


def power(symbols: Symbols, input: Any, exponent: Any) -> Any:
    """torch.pow of floating tensors with a number."""
    return same(symbols, input) if type(exponent) in (int, float) and floating(input) else NotImplemented


def masked_fill(symbols: Symbols, input: Any, mask: Any, value: Any) -> Any:
    """Tensor.masked_fill with a number, of a tensor that the mask does not widen: the result is contiguous."""
    if not floating(input) or not plain(mask) or mask.dtype is not torch.bool:
        return NotImplemented
    if type(value) not in (int, float) or mask.dim() > input.dim():
        return NotImplemented
    pairs = zip(mask.shape, input.shape[input.dim() - mask.dim() :], strict=True)
    fits = all(is_one(size) or alike(size, wanted) for size, wanted in pairs)
    return made(input.shape, input.dtype) if fits else NotImplemented


def softmax(symbols: Symbols, input: Any, dim: Any = None, *how: Any, **options: Any) -> Any:
    """softmax and log_softmax along an axis that there is."""
    fine = type(dim) is int and plain(input) and -input.dim() <= dim < input.dim() and len(how) < 2
    return same(symbols, input, **options) if fine and upright(input) else NotImplemented


def dropout(symbols: Symbols, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """F.dropout, which is its input in eval."""
    if not plain(input) or not 0 <= p <= 1:
        return NotImplemented
    return input if not training else same(symbols, input, inplace=inplace)


def arithmetic(symbols: Symbols, one: Any, other: Any, **options: Any) -> Any:
    """A sum, difference, product or quotient of floating tensors of one dtype, or of one and a number."""
    if options.keys() - {"alpha"} or (not floating(one) and not floating(other)) or autocast_on():
        return NotImplemented
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        tensor, number = (one, other) if isinstance(one, Tensor) else (other, one)
        order = lying(tensor)
        fine = order is not None and isinstance(number, (int, float))
        return made(tensor.shape, tensor.dtype, order) if fine else NotImplemented
    orders = lying(one), lying(other)
    if None in orders or one.dtype != other.dtype:
        return NotImplemented
    if not hinted(one.shape) or not hinted(other.shape):
        return NotImplemented
    shape = broadcast(one.shape, other.shape)
    order = _common_order((one, other), orders, shape)
    return NotImplemented if order is None else made(shape, one.dtype, order)


def arithmetic_in_place(symbols: Symbols, one: Any, other: Any, **options: Any) -> Any:
    """As `arithmetic`; the first tensor stays what it is."""
    result = arithmetic(symbols, one, other, **options) if isinstance(one, Tensor) and floating(one) else NotImplemented
    if result is NotImplemented:
        return result
    if result.dim() != one.dim() or not all(alike(*sizes) for sizes in zip(result.shape, one.shape, strict=True)):
        return NotImplemented
    return one


def floating(value: Any) -> bool:
    """Whether a value is a fake tensor of floating numbers."""
    return plain(value) and value.dtype.is_floating_point


def alike(one: Any, other: Any) -> bool:
    """Whether sizes are the same for sure, without a question."""
    if isinstance(one, SymInt) and isinstance(other, SymInt):
        return one.node.expr == other.node.expr
    return type(one) is type(other) is int and one == other


def hinted(shape: Sequence[Any]) -> bool:
    """Whether questions about sizes have an answer: those that the values of a tensor decide have none."""
    return all(size.node.has_hint() for size in shape if isinstance(size, SymInt))


def broadcast(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    """The shape of a result of two shapes.

    Raises:
        RuntimeError: they do not fit.
    """
    rank = max(len(one), len(other))
    found: list[Any] = []
    for axis, (left, right) in enumerate(zip(_padded(one, rank), _padded(other, rank), strict=True)):
        if alike(left, right) or is_one(right):
            found.append(left)
        elif is_one(left):
            found.append(right)
        elif left == right or right == 1:
            found.append(left)
        elif left == 1:
            found.append(right)
        else:
            raise RuntimeError(
                f"The size of tensor a ({left}) must match the size of tensor b ({right}) "
                f"at non-singleton dimension {axis}"
            )
    return found


def _padded(shape: Sequence[Any], rank: int) -> list[Any]:
    return [1] * (rank - len(shape)) + list(shape)


def is_one(size: Any) -> bool:
    """Whether a size is 1 for sure, without a question."""
    return type(size) is int and size == 1


def _common_order(tensors: Sequence[Tensor], orders: Sequence[Any], shape: Sequence[Any]) -> Any:
    """The layout of a result: that of all its operands, where smaller ones that are contiguous do not count.

    Of operands that lie differently the first one decides, if it has every axis of the result in full.
    """
    whole = len(tensors[0].shape) == len(shape) and all(map(alike, tensors[0].shape, shape))
    if whole and not any(map(is_one, shape)):
        return orders[0]
    pairs = list(zip(tensors, orders, strict=True))
    full = [order for each, order in pairs if order != tuple(range(len(order))) or _full(each.shape, shape)]
    small = [tensor for tensor, order in pairs if not any(order is each for each in full)]
    if not full:
        return tuple(range(len(shape)))
    if any(order != full[0] for order in full) or len(full[0]) != len(shape):
        return None
    identity = full[0] == tuple(range(len(shape)))
    return full[0] if identity or all(_of_one_axis(tensor) for tensor in small) else None


def _full(own: Sequence[Any], shape: Sequence[Any]) -> bool:
    return len(own) == len(shape) and not any(map(is_one, own))


def _of_one_axis(tensor: Tensor) -> bool:
    return sum(not is_one(size) for size in tensor.shape) <= 1


# Normalization.


def layer_norm(
    symbols: Symbols, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """F.layer_norm and F.rms_norm over axes whose sizes are no symbols: the result is contiguous."""
    wanted = items_of(normalized_shape)
    if not floating(input) or autocast_on() or len(wanted) > input.dim() or not wanted:
        return NotImplemented
    came = list(input.shape[-len(wanted) :])
    parts = [part for part in (weight, bias) if isinstance(part, Tensor)]
    fits = all(map(alike, came, wanted)) and all(list(part.shape) == wanted for part in parts)
    if not fits or any(part.dtype != input.dtype for part in parts):
        return NotImplemented
    return made(input.shape, input.dtype)


def rms_norm(symbols: Symbols, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Any:
    """F.rms_norm."""
    return layer_norm(symbols, input, normalized_shape, weight) if upright(input) else NotImplemented


def batch_norm(
    symbols: Symbols,
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """F.batch_norm."""
    order = lying(input)
    parts = [part for part in (running_mean, running_var, weight, bias) if isinstance(part, Tensor)]
    if order is None or not floating(input) or autocast_on() or not 2 <= input.dim() <= 5:
        return NotImplemented
    if any(part.dim() != 1 or not alike(part.shape[0], input.shape[1]) for part in parts):
        return NotImplemented
    if any(part.dtype != input.dtype for part in parts):
        return NotImplemented
    if training and not hinted(input.shape):
        return NotImplemented
    if training and all(size == 1 for size in (input.shape[0], *input.shape[2:])):
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    return made(input.shape, input.dtype, order)


def instance_norm(
    symbols: Symbols,
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """F.instance_norm of contiguous tensors."""
    if not upright(input) or not floating(input) or autocast_on() or input.dim() < 3:
        return NotImplemented
    if use_input_stats and all(size == 1 for size in input.shape[2:]):
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {input.shape}")
    result = batch_norm(symbols, input, running_mean, running_var, weight, bias)
    return result


def group_norm(
    symbols: Symbols, input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """F.group_norm of contiguous tensors."""
    channels: Any = input.shape[1] if plain(input) and input.dim() > 1 else None
    if type(channels) is not int or type(num_groups) is not int or num_groups < 1 or not upright(input):
        return NotImplemented
    if channels % num_groups:
        return NotImplemented
    result = batch_norm(symbols, input, None, None, weight, bias)
    if result is NotImplemented or channels > num_groups:
        return result
    if not hinted(input.shape):
        return NotImplemented
    if all(size == 1 for size in (input.shape[0], *input.shape[2:])):
        came = [input.shape[0], channels, *input.shape[2:]]
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {came}")
    return result


def reduced_over(symbols: Symbols, input: Any, dim: Any = None, keepdim: Any = False, **options: Any) -> Any:
    """mean, sum and amax of contiguous floating tensors over axes that are named."""
    if options or not floating(input) or not upright(input) or autocast_on() or type(keepdim) is not bool:
        return NotImplemented
    axes = items_of(dim)
    rank = input.dim()
    if not axes or not all(type(axis) is int and -rank <= axis < rank for axis in axes):
        return NotImplemented
    gone = {axis % rank for axis in axes}
    if len(gone) < len(axes):
        return NotImplemented
    shape = [1 if axis in gone else size for axis, size in enumerate(input.shape) if keepdim or axis not in gone]
    return made(shape, input.dtype)


def embedding(
    symbols: Symbols, input: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, *how: Any, **options: Any
) -> Any:
    """F.embedding."""
    if not plain(input) or input.dtype not in (torch.int64, torch.int32) or max_norm is not None:
        return NotImplemented
    fine = plain(weight) and weight.dim() == 2 and type(weight.shape[1]) is int
    return made((*input.shape, weight.shape[1]), weight.dtype) if fine else NotImplemented


_ACTIVATIONS = (
    *(
        F.relu,
        torch.relu,
        F.relu6,
        F.gelu,
        F.silu,
        F.mish,
        F.elu,
        F.selu,
        F.celu,
        F.leaky_relu,
        F.hardswish,
        F.hardtanh,
    ),
    *(F.hardsigmoid, F.softplus, F.softsign, F.logsigmoid, F.sigmoid, F.tanh, torch.sigmoid, torch.tanh, torch.exp),
    *(torch.neg, torch.sqrt, torch.rsqrt, torch.sin, torch.cos, torch.erf, Tensor.sigmoid, Tensor.tanh, Tensor.relu),
    *(Tensor.exp, Tensor.neg, Tensor.__neg__, Tensor.sqrt, Tensor.rsqrt, Tensor.sin, Tensor.cos),
)


def take_along_dim(symbols: Symbols, input: Any, indices: Any, dim: Any = None) -> Any:
    """torch.take_along_dim: the other axes broadcast."""
    if type(dim) is not int or not plain(input) or not plain(indices) or indices.dtype != torch.int64:
        return NotImplemented
    rank = input.dim()
    if indices.dim() != rank or not -rank <= dim < rank:
        return NotImplemented
    one, other = ([1 if at == dim % rank else size for at, size in enumerate(each.shape)] for each in (input, indices))
    shape = broadcast(one, other)
    shape[dim] = indices.shape[dim]
    return made(shape, input.dtype)


RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_ACTIVATIONS, same),
    **dict.fromkeys((F.softmax, F.log_softmax, torch.softmax, Tensor.softmax, torch.log_softmax), softmax),
    **dict.fromkeys((F.dropout, torch.dropout), dropout),
    **dict.fromkeys((F.prelu, torch.prelu), prelu),
    **dict.fromkeys((torch.pow, Tensor.pow, Tensor.__pow__), power),
    **dict.fromkeys((torch.masked_fill, Tensor.masked_fill), masked_fill),
    **dict.fromkeys((torch.add, Tensor.add, torch.mul, Tensor.mul, torch.sub, Tensor.sub), arithmetic),
    **dict.fromkeys((torch.div, Tensor.div, Tensor.__rsub__, Tensor.__rdiv__, Tensor.__rtruediv__), arithmetic),
    **dict.fromkeys((Tensor.add_, Tensor.mul_, Tensor.sub_, Tensor.div_), arithmetic_in_place),
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.batch_norm: batch_norm,
    **dict.fromkeys((torch.take_along_dim, Tensor.take_along_dim), take_along_dim),
    F.instance_norm: instance_norm,
    F.group_norm: group_norm,
    **dict.fromkeys((torch.mean, Tensor.mean, torch.sum, Tensor.sum, torch.amax, Tensor.amax), reduced_over),
    F.embedding: embedding,
}
