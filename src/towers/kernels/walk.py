# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One layer and direction over a laid-out batch, and its gradient; on the CPU.

A way has `prepare(weights, segment)`, `forward(x, segment, h, c, prepared, y, save=…) -> (c_n, saved)` and
`backward(saved, segment, prepared, g_y, g_h, g_c, g_x) -> gradients of the weights`:
x ("rows input_size") and y ("rows state") in the order of the walk, h and c the state of the segment's sentences; y is
written, c_n is each sentence's own last; g_h and g_c come as the gradients of the last states, and are replaced by
those of the first; g_y may be absent, g_x may not be wanted.
"""

from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from towers.kernels import buckets, steps
from towers.kernels.cells import Parameters
from towers.kernels.layout import Layout
from towers.kernels.plan import Plan

WAYS: dict[str, ModuleType] = {"buckets": buckets, "steps": steps}


class Direction:
    """What one run of a layer in one direction knows besides its tensors."""

    def __init__(self, plan: Plan, layout: Layout, reverse: bool, outputs: bool) -> None:
        self.plan, self.layout, self.reverse, self.outputs = plan, layout, reverse, outputs


def run(
    way: Direction, values: Tensor, h_0: Tensor, c_0: Tensor, parameters: Parameters, *, save: bool
) -> tuple[Tensor | None, Tensor, Tensor, list[Any]]:
    """Forward; with `save`, also a list of (saved, prepared) for each segment."""
    layout = way.layout
    forth, backwards = layout.index(way.reverse)
    x = values.index_select(0, forth)
    order, running = layout.order, layout.running
    h_all, c_all = (h_0, c_0) if order is None else (h_0.index_select(0, order), c_0.index_select(0, order))
    y = x.new_empty(layout.rows + 1, h_0.shape[1])
    y[-1] = 0
    c_n, kept, prepared = c_all.clone(), list[Any](), dict[Any, Any]()
    state = (h_all, c_all)
    with threads(way.plan):
        for segment in layout.segments:
            module = WAYS[segment.way]
            key = (segment.way, segment.pads is None)
            if key not in prepared:
                prepared[key] = module.prepare(parameters, segment)
            if segment.start == 0:
                h, c = h_all[segment.sentences], c_all[segment.sentences]
            else:
                h, c = state[0][: segment.sizes[0]], state[1][: segment.sizes[0]]
            here = y[segment.rows]
            c_end, saved = module.forward(x[segment.rows], segment, h, c, prepared[key], here, save=save)
            c_n[segment.sentences] = c_end
            state = (here[len(here) - segment.whole if segment.way == "steps" else len(here) - len(h) :], c_end)
            if save:
                kept.append((saved, prepared[key]))
        output = y.index_select(0, backwards) if way.outputs else None
        h_n = y.index_select(0, layout.ends)
        if running < len(h_0):
            h_n = torch.cat((h_n, h_all[running:]))
        if layout.back_order is not None:
            h_n, c_n = h_n.index_select(0, layout.back_order), c_n.index_select(0, layout.back_order)
    return output, h_n, c_n, kept


def back(way: Direction, sizes: Any, kept: Any, g_output: Any, g_h: Any, g_c: Any, *, wants_values: bool) -> Any:
    """The gradients of values, h_0, c_0 and the weights."""
    layout = way.layout
    forth, backwards = layout.index(way.reverse)
    order = layout.order
    some = kept[0][0].x

    def sorted_gradient(gradient: Any, shape: Any) -> Tensor:
        if gradient is None:
            return some.new_zeros(shape)
        return gradient.clone() if order is None else gradient.index_select(0, order)

    g_h, g_c = sorted_gradient(g_h, sizes[1]), sorted_gradient(g_c, sizes[2])
    total: list[Any] = []
    with threads(way.plan):
        g_y = None if g_output is None else g_output.index_select(0, forth)
        inputs = (
            kept[0][1].input.shape[0]
            if layout.segments[0].way == "steps"
            else some.shape[-1] - (layout.segments[0].pads is not None)
        )
        g_x = some.new_empty(layout.rows + 1, inputs) if wants_values else None
        if g_x is not None:
            g_x[-1] = 0
        for segment, (saved, prepared) in zip(reversed(layout.segments), reversed(kept), strict=True):
            found = WAYS[segment.way].backward(
                saved, segment, prepared,
                None if g_y is None else g_y[segment.rows],
                g_h[segment.sentences], g_c[segment.sentences],
                None if g_x is None else g_x[segment.rows],
            )  # fmt: skip
            total = [*found] if not total else [None if a is None else a + b for a, b in zip(total, found, strict=True)]
        g_values = None if g_x is None else g_x.index_select(0, backwards)
    if layout.back_order is not None:
        g_h, g_c = g_h.index_select(0, layout.back_order), g_c.index_select(0, layout.back_order)
    w_ih, w_hh, bias, w_hr = total
    return g_values, g_h, g_c, (w_ih, w_hh, bias, w_hr)


@contextmanager
def threads(plan: Plan) -> Generator[None]:
    """One thread where more would only wait for each other; in this thread of Python alone."""
    before = torch.get_num_threads()
    if not plan.one_thread or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
