"""The narrow LSTM's layer and a tower's phrases in plain eager code: their kernels, without what an operator costs.

What that gains is in the rows named host of `python benchmarks/run.py cuda --quick`. The operators beside the kernels,
which autograd, compile and export know, compute the same.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from towers.kernels.triton import lstm_narrow, phrase_features
from towers.kernels.triton.launch import aligned, contiguous, torch_precision
from towers.kernels.triton.lstm_narrow import Places


def layer(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, bias_2: Tensor | None, places: Places,
    *, outputs: bool, gaps: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:  # fmt: skip
    """Output, h_n and c_n of one layer and direction in eager code, from a state of zeros, everything in float32.

    Values are "rows input" or "batch padded input", and so is the output; weights "4*hidden input", "4*hidden hidden".
    """
    tensors = (values, weight_ih, weight_hh, bias, bias_2)
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors):
        found: Any = _Layer.apply(*tensors, places, outputs, gaps)
        return found
    output, _, _, h_n, c_n = _layer_forward(*tensors, places, outputs, gaps, keep=False)
    return output, h_n, c_n


def _layer_forward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, bias_2: Tensor | None, places: Places,
    outputs: bool, gaps: bool, *, keep: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor]:  # fmt: skip
    hidden, device, dtype = weight_hh.shape[1], values.device, torch.float32
    each_step, ends = (*values.shape[:-1], hidden), (1, places.batch, hidden)
    output = before_h = before_c = None
    if outputs:
        output = (torch.zeros if gaps else torch.empty)(each_step, device=device, dtype=dtype)
    if keep:  # rows of no sentence are not read
        before_h = torch.empty(each_step, device=device, dtype=dtype)
        before_c = torch.empty(each_step, device=device, dtype=dtype)
    h_n, c_n = torch.empty(ends, device=device, dtype=dtype), torch.empty(ends, device=device, dtype=dtype)
    results = (output, before_h, before_c, h_n, c_n)
    lstm_narrow.start_forward(values, weight_ih, weight_hh, bias, bias_2, places, None, None, *results, directions=1)
    return results


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor | None, Tensor, Tensor]:
        *tensors, ctx.places, _, ctx.gaps = given
        output, before_h, before_c, h_n, c_n = _layer_forward(*given, keep=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, before_h, before_c)
        return output, h_n, c_n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, weight_ih, weight_hh, bias, bias_2, *before = ctx.saved_tensors
        d_output, d_h_n, d_c_n = upstream
        if d_output is None and d_h_n is None and d_c_n is None:
            return (None,) * 8
        kept = (bias, bias_2, ctx.places, *before, aligned(d_output), *contiguous(d_h_n, d_c_n))
        how = {"gaps": ctx.gaps, "directions": 1, "states": False}
        d_values, sums, *_ = lstm_narrow.start_backward(values, weight_ih, weight_hh, *kept, **how)
        (gates, hidden), width = weight_hh.shape, weight_ih.shape[1]
        d_weight_ih, d_weight_hh, d_bias = lstm_narrow.divided(sums, gates, width, hidden)
        places = (None, None, None)
        d_bias_2 = None if bias_2 is None else d_bias
        d_bias = None if bias is None else d_bias
        return d_values, d_weight_ih.view(gates, width), d_weight_hh.view(gates, hidden), d_bias, d_bias_2, *places


def features(values: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor | None, words: int, pool: int) -> Tensor:
    """`phrase_features` of vectors in eager code.

    Args:
        values, weight, bias, pool: as there.
        lengths: "batch"; of the `words` tokens of each sentence, those from its length on are not read; None: all are.
        words: tokens of a sentence, where there are lengths.
    """
    if torch.is_grad_enabled() and (values.requires_grad or weight.requires_grad or bias.requires_grad):
        found: Any = _Features.apply(values, weight, bias, lengths, words, pool)
        return found
    return phrase_features.launch_forward(
        values, None, weight, bias, None, pool, "", False, lengths=lengths, words=words
    )[0]


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor | None, words: int, pool: int
    ) -> Tensor:
        ctx.precision, ctx.words = torch_precision() if values.dtype == torch.float32 else "", words
        given = (values, None, weight, bias, None, pool, ctx.precision, True)
        found, winners = phrase_features.launch_forward(*given, lengths=lengths, words=words)
        ctx.save_for_backward(values, weight, bias, lengths, winners)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_features: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, weight, bias, lengths, winners = ctx.saved_tensors
        given = (values, None, weight, bias, None, winners, d_features.contiguous(), ctx.precision)
        vectors = ctx.needs_input_grad[0]
        d_values, d_weight, d_bias = phrase_features.launch_backward(*given, vectors, lengths=lengths, words=ctx.words)
        return d_values if vectors else None, d_weight, d_bias, None, None, None
