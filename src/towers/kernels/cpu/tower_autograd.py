"""A whole tower in C as one node of torch's graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from towers.kernels.cpu import door

Again = Callable[..., Tensor]
"""The same states from (rows, weight, bias, W_ih, W_hh, bias of the LSTM), in torch's own operations."""


def states(
    words: door.Words, weights: door.TowerWeights, shares: bool, accepted: door.Accepted, tensors: tuple[Tensor, ...],
    again: Again,
) -> Tensor | None:  # fmt: skip
    """The last states "batch hidden", differentiable; None: lengths, offsets or ids are wrong."""
    found = door.states_and_kept(words, weights, shares)
    if found is None:
        return None
    how = (words, weights, shares, accepted, again, *found)
    return _Tower.apply(how, words.rows, *tensors)


class _Tower(torch.autograd.Function):
    """What forward found before becomes a node; its backward pass is one call too."""

    @staticmethod
    def forward(ctx: Any, how: Any, *tensors: Tensor) -> Tensor:
        words, *others, found, kept = how
        # Indices stay outside of what hooks of the graph may change; what they can change is checked again.
        ctx.how = (words._replace(rows=words.rows.shape), *others, kept._replace(numbers=kept.numbers.shape))
        ctx.save_for_backward(*tensors, kept.numbers)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (rows, *tensors, numbers) = gradients, ctx.saved_tensors
        words, weights, shares, accepted, again, kept = ctx.how
        if not door.is_eager(gradient):
            return None, *_by_torch(again, [rows, *tensors], gradient, ctx.needs_input_grad[1:])
        now = door.tower_weights(accepted, tuple(tensors), weights.own.pool)
        if now is None or now[:3] != weights[:3]:
            raise RuntimeError("a tower's weights came back from torch's graph with another type, dtype or size")
        words = words._replace(
            rows=door.as_before("a tower's sentences", rows, words.rows, weights.dtype),
            ids=None if words.ids is None else door.as_before("a tower's ids", words.ids, (words.tokens,), torch.int64),
        )
        kept = kept._replace(numbers=door.as_before("a tower's kept numbers", numbers, kept.numbers, weights.dtype))
        gradient = door.as_before("a tower's gradient", gradient, (words.batch, weights.hidden), weights.dtype)
        return None, *door.backward(words, now, shares, kept, gradient, wants_rows=ctx.needs_input_grad[1])


def _by_torch(again: Again, tensors: list[Tensor], gradient: Tensor, wanted: tuple[bool, ...]) -> list[Tensor | None]:
    """The same gradients by torch's own operations: they have gradients themselves, and can be batched."""
    twice = torch.is_grad_enabled()
    with torch.enable_grad():
        if not twice:
            tensors = [one.detach().requires_grad_(want) for one, want in zip(tensors, wanted, strict=True)]
        inputs = [one for one, want in zip(tensors, wanted, strict=True) if want]
        options = {"create_graph": twice, "allow_unused": True, "materialize_grads": True}
        found = iter(torch.autograd.grad(again(*tensors), inputs, gradient, **options))
    return [next(found) if want else None for want in wanted]
