"""One layer and direction over a laid-out batch, and its gradient; on the CPU.

A way has three functions. `prepare(weights, segment)` brings the weights into its own form.
`forward(x, segment, h, c, prepared, save=…, outputs=…) -> (y, h_n, c_n, saved)` runs a segment: x (`Rows`) and y
("rows state") in the order of the walk, h and c the state of its sentences, h_n and c_n theirs afterwards, each one's
at its own end. `backward(x, saved, segment, prepared, g_y, g_h, g_c, wants_x=…) -> (g_x, g_weights)` takes g_h and g_c
as the gradients of h_n and c_n and leaves in them those of h and c; g_y (`Rows`) may be absent.
"""

from collections.abc import Sequence
from functools import partial, reduce
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from towers.kernels import buckets, steps
from towers.kernels.batch import Run
from towers.kernels.cells import Parameters
from towers.kernels.cpu.threads import side_by_side
from towers.kernels.layout import Layout, Segment

WAYS: dict[str, ModuleType] = {"buckets": buckets, "steps": steps}


def forward(
    layout: Layout,
    values: Tensor,
    state: tuple[Tensor, Tensor],
    weights: Parameters,
    *,
    reverse: bool,
    outputs: bool,
    save: bool,
) -> Run:
    """Walk over the batch."""
    x = layout.take(values, reverse=reverse)
    h_0, c_0 = state if layout.order is None else (part.index_select(0, layout.order) for part in state)
    prepared = {
        (segment.cut.way, segment.marked): WAYS[segment.cut.way].prepare(weights, segment)
        for segment in {(segment.cut.way, segment.marked): segment for segment in layout.segments}.values()
    }

    def block(segments: list[Segment]) -> tuple[list[Tensor], list[Any], list[tuple[int, Tensor, Tensor]]]:
        parts, kept, ends = list[Tensor](), list[Any](), list[tuple[int, Tensor, Tensor]]()
        h, c = h_0[segments[0].sentences], c_0[segments[0].sentences]
        for segment in segments:
            cut, own = segment.cut, prepared[segment.cut.way, segment.marked]
            y, h, c, saved = WAYS[cut.way].forward(x.of(segment), segment, h, c, own, save=save, outputs=outputs)
            parts += [] if y is None else [y]
            kept.append((saved, own))
            ends.append((cut.first + cut.stay, h[cut.stay :], c[cut.stay :]))
            h, c = h[: cut.stay], c[: cut.stay]
        return parts, kept, ends

    found = side_by_side([partial(block, segments) for segments in layout.blocks()], one=layout.one_thread)
    parts = [part for block in found for part in block[0]]
    kept = [one for block in found for one in block[1]]
    ends = [end for block in found for end in block[2]]
    h_n, c_n = _in_order(ends, h_0, c_0)
    if layout.order_back is not None:
        h_n, c_n = h_n.index_select(0, layout.order_back), c_n.index_select(0, layout.order_back)
    return Run(layout.give(parts, reverse=reverse) if outputs else None, h_n, c_n, tuple(kept) if save else ())


def backward(
    layout: Layout,
    values: Tensor,
    kept: Sequence[Any],
    g_output: Tensor | None,
    g_h: Tensor,
    g_c: Tensor,
    *,
    reverse: bool,
    wants_values: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Parameters]:
    """The gradients of values, h_0, c_0 and the weights. g_h and g_c are used up."""
    x = layout.take(values, reverse=reverse)
    g_y = None if g_output is None else layout.take(g_output, reverse=reverse)
    if layout.order is not None:
        g_h, g_c = g_h.index_select(0, layout.order), g_c.index_select(0, layout.order)
    saved_of = {id(segment): one for segment, one in zip(layout.segments, kept, strict=True)}

    def block(segments: list[Segment]) -> tuple[list[Tensor], Parameters]:
        parts, total = list[Tensor](), None
        for segment in reversed(segments):
            saved, prepared = saved_of[id(segment)]
            part, found = WAYS[segment.cut.way].backward(
                x.of(segment),
                saved,
                segment,
                prepared,
                None if g_y is None else g_y.of(segment),
                g_h[segment.sentences],
                g_c[segment.sentences],
                wants_x=wants_values,
            )
            parts.append(part)
            total = found if total is None else Parameters(*map(_sum, total, found))
        assert total is not None
        return parts[::-1], total

    done = side_by_side([partial(block, segments) for segments in layout.blocks()], one=layout.one_thread)
    total = reduce(lambda one, other: Parameters(*map(_sum, one, other)), (found for _, found in done))
    parts = [part for own, _ in done for part in own]
    if layout.order_back is not None:
        g_h, g_c = g_h.index_select(0, layout.order_back), g_c.index_select(0, layout.order_back)
    return layout.give(parts, reverse=reverse) if wants_values else None, g_h, g_c, total


def _in_order(ends: list[tuple[int, Tensor, Tensor]], h_0: Tensor, c_0: Tensor) -> tuple[Tensor, Tensor]:
    """The last states, longest sentence first, of pieces and of those that have no word."""
    ends.sort(key=lambda end: end[0])
    hs, cs = [h for _, h, _ in ends], [c for _, _, c in ends]
    running = ends[-1][0] + len(hs[-1])
    if running < len(h_0):
        hs.append(h_0[running:])
        cs.append(c_0[running:])
    return (hs[0], cs[0]) if len(hs) == 1 else (torch.cat(hs), torch.cat(cs))


def _sum(one: Any, other: Any) -> Any:
    return None if one is None else one + other
