"""Shapes of layers that torch cannot run on symbolic sizes: recurrent ones, packed sequences, max_pool1d and attention.

Each function stands for the operation of torch that its docstring names; its first argument is the symbols of the run.
"""

from typing import Any

import torch
from torch import Tensor, nn

from towers.contracts.proofs.elementwise_rules import alike, is_one
from towers.contracts.proofs.fast_meta import first_or_last, lying, made, made_like, plain, upright
from towers.contracts.proofs.symbols import Symbols

# Recurrent layers.


def lstm(symbols: Symbols, input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """torch.lstm: (input, (h, c), …) or (data, batch_sizes, (h, c), …)."""
    return _run(4, input, *rest) if isinstance(rest[0], Tensor) else _run(4, input, None, *rest)


def gru(symbols: Symbols, input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """torch.gru: (input, h, …) or (data, batch_sizes, h, …)."""
    return _run(3, input, *rest) if isinstance(rest[1], Tensor) else _run(3, input, None, *rest)


def rnn(symbols: Symbols, input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """torch.rnn_tanh and torch.rnn_relu: as torch.gru."""
    return _run(1, input, *rest) if isinstance(rest[1], Tensor) else _run(1, input, None, *rest)


def _run(gates: int, input: Tensor, batch_sizes: Tensor | None, given: Any, weights: Any, *how: Any) -> Any:
    """`how` is has_biases, num_layers, dropout, train, bidirectional and, if padded, batch_first."""
    layers, bidirectional, batch_first = how[1], how[4], len(how) > 5 and how[5]
    directions = 2 if bidirectional else 1
    state: tuple[Tensor, ...] = (given,) if isinstance(given, Tensor) else tuple(given)
    hidden, out = state[-1].shape[2], weights[1].shape[1]
    came, wanted = input.shape[-1], weights[0].shape[1]
    if came != wanted:
        raise RuntimeError(f"input.size(-1) must be equal to input_size. Expected {wanted}, got {came}")
    if weights[0].shape[0] != gates * hidden:
        raise RuntimeError(f"weights are for {weights[0].shape[0] // gates} units, not {hidden}")
    batch = state[0].shape[1] if batch_sizes is not None else input.shape[0 if batch_first else 1]
    for part, width in zip(state, (out, hidden), strict=False):
        shape = (layers * directions, batch, width)
        if tuple(part.shape) != shape:
            raise RuntimeError(f"Expected hidden size {shape}, got {list(part.shape)}")
    if batch_sizes is None and not input.shape[1 if batch_first else 0] > 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    if batch_first and batch_sizes is None:  # torch runs time first and gives a transpose back
        first, time = input.shape[:2]
        output = made_like(input, time, first, directions * out).transpose(0, 1)
    else:
        output = made_like(input, *input.shape[:-1], directions * out)
    return output, *(made_like(part, *part.shape) for part in state)


def expected_hidden_size(module: nn.RNNBase, input: Tensor, batch_sizes: Tensor | None) -> tuple[Any, ...]:
    """nn.RNNBase.get_expected_hidden_size, which makes the number of packed sentences an int."""
    if batch_sizes is None:
        return nn.RNNBase.get_expected_hidden_size(module, input, batch_sizes)
    rows = module.num_layers * (2 if module.bidirectional else 1)
    return rows, batch_sizes[0], module.proj_size or module.hidden_size


# Packed sequences: only the values of the lengths tell how many steps and tokens there are.


def pack(symbols: Symbols, input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """torch._pack_padded_sequence: data of a new number of tokens, batch sizes of a new number of steps."""
    batch, time = input.shape[:2] if batch_first else (input.shape[1], input.shape[0])
    if lengths.dim() != 1 or lengths.shape[0] != batch:
        problem = f"Expected `len(lengths)` to be equal to batch_size, but got {lengths.shape[0]} (batch_size={batch})"
        raise RuntimeError(problem)
    if batch == 0:
        raise RuntimeError("Cannot pack an empty batch")
    steps = symbols.fresh("longest", 1, time)
    tokens = symbols.fresh("tokens", 1, batch * time)
    batch_sizes = torch.empty(steps, dtype=torch.int64, device="cpu")
    symbols.packed[id(batch_sizes)] = (batch_sizes, batch)
    return made_like(input, tokens, *input.shape[2:]), batch_sizes


def pad(
    symbols: Symbols, data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: Any
) -> Any:
    """torch._pad_packed_sequence: as long as the longest sentence, or total_length."""
    if id(batch_sizes) not in symbols.packed:
        return NotImplemented
    batch = batch_sizes_of(symbols, batch_sizes)
    sizes = (batch, total_length) if batch_first else (total_length, batch)
    return made_like(data, *sizes, *data.shape[1:]), made_like(data, batch, dtype=torch.int64)


def first_batch_size(symbols: Symbols, tensor: Tensor, index: Any) -> Any:
    """`batch_sizes[0]` is the batch; other tensors have rows."""
    if type(index) is int and index == 0 and id(tensor) in symbols.packed:
        return batch_sizes_of(symbols, tensor)
    return first_or_last(symbols, tensor, index)


def batch_sizes_of(symbols: Symbols, batch_sizes: Tensor) -> Any:
    """The number of packed sentences."""
    return symbols.packed[id(batch_sizes)][1]


# Pooling: on symbolic sizes torch takes the example for every size.


def max_pool1d(
    symbols: Symbols,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """F.max_pool1d and torch.max_pool1d."""
    kernel, padding, dilation = _one(kernel_size), _one(padding), _one(dilation)
    stride = kernel if stride is None or stride == [] else _one(stride)
    if input.dim() not in (2, 3):
        raise RuntimeError(f"max_pool1d() Expected 2D or 3D input tensor, but got {list(input.shape)}")
    if padding > kernel // 2:
        raise RuntimeError("max_pool1d() padding should be at most half of kernel size")
    reach = dilation * (kernel - 1) + 1
    length = input.shape[-1] + 2 * padding - reach
    out = (length + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode:  # the last window must start inside of the input or its left padding
        out = torch.sym_ite((out - 1) * stride >= input.shape[-1] + padding, out - 1, out)
    if out < 1:
        raise RuntimeError(f"max_pool1d() Invalid computed output size: {out}")
    order = lying(input)  # kept where gradients are wanted; without them torch's result is contiguous
    size = (*input.shape[:-1], out)
    result = made_like(input, *size) if order is None or upright(input) else made(size, input.dtype, order)
    return (result, made_like(result, *result.shape, dtype=torch.int64)) if return_indices else result


def max_pool1d_with_indices(symbols: Symbols, input: Tensor, kernel_size: Any, *rest: Any, **options: Any) -> Any:
    """F.max_pool1d(return_indices=True)."""
    if len(rest) > 4:
        rest = rest[:4]
    return max_pool1d(symbols, input, kernel_size, *rest, **{**options, "return_indices": True})


def _one(size: Any) -> Any:
    return size if isinstance(size, (int, torch.SymInt)) else size[0]


# Attention: torch's own steps on symbolic sizes take a hundred times longer.


def attention(
    symbols: Symbols,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Any:
    """F.scaled_dot_product_attention of sizes that fit; what does not fit is left to torch, which says why.

    The CPU's kernel for four axes, of which the last is the innermost, lays the result out as the query; torch's other
    steps lay it out in order.
    """
    parts, mask = (query, key, value), attn_mask
    if not all(plain(part) and part.dtype == query.dtype and part.dim() == query.dim() > 2 for part in parts):
        return NotImplemented
    if (
        not query.is_floating_point()
        or not options.keys() <= {"scale", "enable_gqa"}
        or (is_causal and mask is not None)
    ):
        return NotImplemented
    rows, columns = query.shape[:-1], key.shape[-2]
    if options.pop("enable_gqa", False) and query.dim() == 4:
        heads = [part.shape[1] for part in parts]
        shared = all(type(each) is int and each > 0 and heads[0] % each == 0 for each in heads)
        if not shared or heads[1] != heads[2] or any(lying(part) is None for part in parts):
            return NotImplemented
        if heads[0] != heads[1]:  # torch repeats the heads: they lie in order
            turned = (key.shape[0], heads[0], *key.shape[2:]), (value.shape[0], heads[0], *value.shape[2:])
            parts = query, made(turned[0], key.dtype), made(turned[1], value.dtype)
            _, key, value = parts
    pairs = [pair for part in parts[1:] for pair in zip(part.shape[:-2], query.shape[:-2], strict=True)]
    if not all(alike(*pair) for pair in (*pairs, (key.shape[-1], query.shape[-1]), (value.shape[-2], columns))):
        return NotImplemented
    if mask is not None:
        if not plain(mask) or mask.dtype not in (torch.bool, query.dtype) or not 2 <= mask.dim() <= query.dim():
            return NotImplemented
        scores = (*rows, columns)[-mask.dim() :]
        if not all(is_one(size) or alike(size, score) for size, score in zip(mask.shape, scores, strict=True)):
            return NotImplemented
    fused = query.dim() == 4 and dropout_p == 0 and value.shape[-1] == query.shape[-1]
    fused = fused and (mask is None or (mask.dim() in (2, 4) and not mask.requires_grad))
    order, orders = lying(query), [lying(part) for part in parts]
    if fused and (order is None or None in orders):
        return NotImplemented
    if query.dim() == 3 and order != (0, 1, 2):  # from torch 2.14 on the kernel takes three axes too
        return NotImplemented
    fused = fused and all(each is not None and each[-1] == 3 for each in orders)  # else a row lies scattered
    return made((*rows, value.shape[-1]), query.dtype, order if fused else None)
