"""The fused LSTM as one operator that compile, export and autograd know: `fused_lstm`, one layer, all sentences.

On CUDA it starts the kernels; elsewhere `lstm_plain` does the same, slowly. Sentence i is the `lengths[i]` rows from
row `starts[i]`: of values end to end, or of padded ones, in any order. Sentences share no row.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from towers.kernels.triton import lstm_plain
from towers.kernels.triton.real_rows import contiguous


def _way(values: Tensor) -> ModuleType:
    if values.is_cuda:
        from towers.kernels.triton import lstm_launch  # needs Triton

        return lstm_launch
    return lstm_plain


@torch.library.custom_op("towers::fused_lstm", mutates_args=())
def fused_lstm(
    values: Tensor, weight_ih: Tensor | None, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, precision: str, keep: bool, outputs: bool, gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer, in float32 whatever its inputs are.

    Args:
        values: inputs "rows input", with weight_ih; or without it what they contribute to the gates,
            "rows directions*4*hidden". Contiguous, as all that follows.
        weight_ih, weight_hh, bias: "directions 4*hidden input", "directions 4*hidden hidden", "directions 4*hidden".
        starts, lengths: "batch", of int64.
        h_0, c_0: "directions batch hidden"; None: zero.
        precision: of products on the matrix units, "tf32", "tf32x3" or "ieee"; "": as torch's own are set.
        keep: whether the states before each step are kept, for the gradients.
        outputs: whether the outputs of all steps are wanted.
        gaps: whether there are rows of no sentence; their outputs and gradients are 0.

    Returns:
        Outputs "rows directions*hidden"; h and c before each step "rows directions hidden", which only the
        backward pass reads; h_n and c_n. What is not wanted has no rows.
    """
    tensors = contiguous(values, weight_ih, weight_hh, bias, starts, lengths, h_0, c_0)
    return _way(values).forward(*tensors, precision, keep, outputs, gaps)


@fused_lstm.register_fake
def _(
    values: Tensor, weight_ih: Tensor | None, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, precision: str, keep: bool, outputs: bool, gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    directions, _, hidden = weight_hh.shape
    rows = values.shape[0]

    def new(*shape: Any) -> Tensor:
        return values.new_empty(shape, dtype=torch.float32)

    kept = rows if keep else 0
    return (
        new(rows if outputs else 0, directions * hidden),
        new(kept, directions, hidden),
        new(kept, directions, hidden),
        new(directions, lengths.shape[0], hidden),
        new(directions, lengths.shape[0], hidden),
    )


@torch.library.custom_op("towers::fused_lstm_backward", mutates_args=())
def fused_lstm_backward(
    values: Tensor, weight_ih: Tensor | None, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, before_h: Tensor, before_c: Tensor,
    d_output: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None, precision: str, gaps: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of values, weight_ih, weight_hh, bias, h_0 and c_0; empty for a weight that is None."""
    tensors = contiguous(values, weight_ih, weight_hh, bias, starts, lengths, h_0, c_0, before_h, before_c)
    return _way(values).backward(*tensors, *contiguous(d_output, d_h_n, d_c_n), precision, gaps)


@fused_lstm_backward.register_fake
def _(
    values: Tensor, weight_ih: Tensor | None, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, before_h: Tensor, before_c: Tensor,
    d_output: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None, precision: str, gaps: bool,
) -> list[Tensor]:  # fmt: skip
    state = (weight_hh.shape[0], lengths.shape[0], weight_hh.shape[2])
    parts = [values, weight_ih, weight_hh, bias]
    found = [values.new_empty(0, dtype=torch.float32) if part is None else part.new_empty(part.shape) for part in parts]
    return [*found, *(values.new_empty(state, dtype=torch.float32) for _ in range(2))]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    *tensors, ctx.precision, ctx.kept, _, ctx.gaps = inputs
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(*tensors, output[1], output[2])


def _backward(ctx: Any, d_output: Tensor | None, _h: None, _c: None, d_h_n: Tensor | None, d_c_n: Tensor | None) -> Any:
    if not ctx.kept:
        raise RuntimeError("towers::fused_lstm: there are no gradients after keep=False")
    if d_output is None and d_h_n is None and d_c_n is None:
        return (None,) * 12
    tensors = ctx.saved_tensors
    found = fused_lstm_backward(*tensors, d_output, d_h_n, d_c_n, ctx.precision, ctx.gaps)
    d_values, d_weight_ih, d_weight_hh, d_bias, d_h_0, d_c_0 = (
        None if tensor is None else part for tensor, part in zip((*tensors[:4], *tensors[6:8]), found, strict=True)
    )
    return d_values, d_weight_ih, d_weight_hh, d_bias, None, None, d_h_0, d_c_0, None, None, None, None


fused_lstm.register_autograd(_backward, setup_context=_setup_context)
