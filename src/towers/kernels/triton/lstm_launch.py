# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Starts the LSTM's kernels: which one, on tiles of which size, with which memory."""

from typing import Any

import torch
import triton
from torch import Tensor

from towers.kernels.triton import lstm_narrow, lstm_wide
from towers.kernels.triton.real_rows import covered
from towers.kernels.triton.start import start, torch_precision

ONE_WARP = {"num_warps": 1, "num_stages": 1}


def tile(hidden: int, precision: str, shared_memory: int) -> dict[str, Any]:
    """How a tile of sentences is laid out: by units, and by what the multiprocessor has of shared memory (bytes).

    By the compiler's own count for compute capability 9.0, none of these spills a register.
    """
    if hidden <= 8:
        return {"H": 8, "B": 4, "PRECISION": "registers", "STREAM": 0, **ONE_WARP}
    if hidden <= 16:
        return {"H": 16, "B": 2, "PRECISION": "registers", "STREAM": 0, **ONE_WARP}
    width = max(32, triton.next_power_of_2(hidden))
    resident = 4 * width * width * 4 * (2 if precision == "tf32x3" else 1)  # bytes; tf32x3 holds two parts of each
    if width <= 64 and resident + 8 * 1024 <= shared_memory:
        options = {"STREAM": 0, "num_warps": width // 8, "num_stages": 1}
    else:
        options = {"STREAM": 16, "num_warps": 8, "num_stages": 3}
    return {"H": width, "B": 16, "PRECISION": precision, **options}


def _tile(weight_hh: Tensor, precision: str) -> dict[str, Any]:
    shared = 1 << 20
    if weight_hh.is_cuda:
        shared = torch.cuda.get_device_properties(weight_hh.device).shared_memory_per_block_optin
    if not precision:
        precision = "tf32" if weight_hh.dtype == torch.bfloat16 else torch_precision()
    return tile(weight_hh.shape[2], precision, shared)


def forward(
    values: Tensor, weight_ih: Tensor | None, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, precision: str, keep: bool, outputs: bool, gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `towers.kernels.triton.lstm_ops`."""
    directions, _, hidden = weight_hh.shape
    batch, shape, options = len(lengths), (len(values), directions, hidden), _tile(weight_hh, precision)

    def rows(wanted: bool, *, zero: bool) -> Tensor:
        return (torch.zeros if zero else torch.empty)(shape if wanted else (0, *shape[1:]), device=values.device)

    output, before_c = rows(outputs, zero=gaps), rows(keep, zero=False)
    before_h = rows(keep, zero=gaps and weight_ih is None)  # a product of all its rows is to come
    h_n = torch.empty(directions, batch, hidden, device=values.device)
    c_n = torch.empty_like(h_n)
    kept = (before_h, before_c) if keep else (None, None)
    sentences = (starts, lengths, h_0, c_0, output if outputs else None, *kept, h_n, c_n, batch)
    grid = (triton.cdiv(batch, options["B"]), directions)
    if weight_ih is None:
        start(lstm_wide.forward, grid, values, weight_hh, *sentences, HIDDEN=hidden, **options)
    else:
        sizes = {"INPUT": weight_ih.shape[2], "K": 8, "HIDDEN": hidden, "H": 8, "B": options["B"]}
        start(lstm_narrow.forward, grid, values, weight_ih, weight_hh, bias, *sentences, **sizes, **ONE_WARP)
    return output.flatten(1), before_h, before_c, h_n, c_n


def backward(
    values: Tensor, weight_ih: Tensor | None, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, before_h: Tensor, before_c: Tensor,
    d_output: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None, precision: str, gaps: bool,
) -> list[Tensor]:  # fmt: skip
    """See `towers.kernels.triton.lstm_ops`."""
    directions, _, hidden = weight_hh.shape
    state = (directions, len(lengths), hidden)
    d_h_n, d_c_n = (
        torch.zeros(state, device=values.device) if part is None else part.contiguous() for part in (d_h_n, d_c_n)
    )
    d_output = None if d_output is None else d_output.contiguous()
    d_state = (torch.empty_like(d_h_n), torch.empty_like(d_c_n))
    after = (starts, lengths, before_h, before_c, d_output, d_h_n, d_c_n)
    if weight_ih is not None:
        found = _backward_narrow(values, weight_ih, weight_hh, bias, after, d_state, gaps)
    else:
        with torch.autocast(values.device.type, enabled=False):
            found = _backward_wide(values, weight_hh, after, d_state, _tile(weight_hh, precision), gaps)
    return [*found, *d_state]


def _backward_narrow(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None,
    after: tuple[Tensor | None, ...], d_state: tuple[Tensor, Tensor], gaps: bool,
) -> list[Tensor]:  # fmt: skip
    (directions, batch, hidden), width = d_state[0].shape, weight_ih.shape[2]
    tiles = triton.cdiv(batch, 4)
    make = torch.zeros if gaps else torch.empty
    d_values = make(len(values), directions, width, device=values.device)
    sums = [torch.empty(tiles, directions, 4 * hidden, n, device=values.device) for n in (width, hidden, 1)]
    sizes = {"INPUT": width, "K": 8, "HIDDEN": hidden, "H": 8, "B": 4}
    results = (d_values, *sums, *d_state)
    start(
        lstm_narrow.backward, (tiles, directions), values, weight_ih, weight_hh, bias, *after, *results, batch,
        **sizes, **ONE_WARP,
    )  # fmt: skip
    d_weight_ih, d_weight_hh, d_bias = (part.sum(0) for part in sums)
    return [
        (d_values.squeeze(1) if directions == 1 else d_values.sum(1)).to(values.dtype),
        d_weight_ih.to(weight_ih.dtype),
        d_weight_hh.to(weight_hh.dtype),
        d_bias.new_empty(0) if bias is None else d_bias.squeeze(2).to(bias.dtype),
    ]


def _backward_wide(
    gates: Tensor, weight: Tensor, after: tuple[Tensor | None, ...], d_state: tuple[Tensor, Tensor],
    options: dict[str, Any], gaps: bool,
) -> list[Tensor]:  # fmt: skip
    """What the states contribute to the gates is off the chain of steps: one product for all rows, as are weights'."""
    starts, lengths, before_h, before_c, d_output, d_h_n, d_c_n = after
    assert starts is not None
    assert lengths is not None
    assert before_h is not None
    directions, batch, hidden = d_state[0].shape
    complete = torch.empty(len(gates), directions, 4 * hidden, device=gates.device)
    exact, gates_by_direction = weight.float(), gates.view_as(complete).float()
    for d in range(directions):
        torch.addmm(gates_by_direction[:, d], before_h[:, d], exact[d].t(), out=complete[:, d])
    grid = (triton.cdiv(batch, options["B"]), directions)
    arguments = (weight, starts, lengths, before_c, d_output, d_h_n, d_c_n, *d_state, batch)
    start(lstm_wide.backward, grid, complete, *arguments, HIDDEN=hidden, **options)
    if gaps:
        complete.masked_fill_(~covered(starts, lengths, len(gates))[:, None, None], 0.0)
    d_weight = torch.stack([complete[:, d].t() @ before_h[:, d] for d in range(directions)])
    nothing = d_weight.new_empty(0)
    return [complete.flatten(1).to(gates.dtype), nothing, d_weight.to(weight.dtype), nothing.clone()]
