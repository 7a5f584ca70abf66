"""Axes of boxes, along which items have places: a row of an item is its place times the axes, "dense axes"."""

import torch
from torch import Tensor

from towers.search.head import Head

SAMPLE = 1 << 14
"""Rows of which principal axes are made."""


def state_axes(head: Head) -> Tensor:
    """The numbers of the states, each scaled by how much a score changes at most with it."""
    weight = head.weight.double()
    moves = head.weights.double().abs() @ weight.abs()
    return _scaled(torch.where(moves > 0, weight / moves, 0.0), head)


def principal_axes(rows: Tensor, head: Head) -> Tensor:
    """The axes along which rows "count dense" vary the most, the next most and so on, as far as scores notice.

    Each unit is scaled by the root of its weight, and then these are principal components, in the space of all states.
    So a step of one size moves scores about as much along each of them.
    """
    root = _roots(head)
    space: Tensor = torch.svd(root.unsqueeze(1) * head.weight.double())[0]
    some = torch.mm(rows[:: len(rows) // SAMPLE + 1].double() * root, space)
    some = some - some.mean(0)
    some = some / some.abs().amax().clamp(min=torch.finfo(some.dtype).tiny)  # huge ones have no squares
    directions: Tensor = torch.svd(torch.mm(some.T, some))[0]
    return _scaled(torch.mm(space, directions) / root.unsqueeze(1), head)


def read_of(axes: Tensor, head: Head) -> Tensor:
    """ "dense axes", by which a row is multiplied to be the place that gives it back best, as far as scores notice."""
    root = _roots(head).unsqueeze(1)
    inverse = torch.pinverse(root * axes.double(), rcond=torch.finfo(head.dtype).eps)
    return (inverse.T * root).to(head.dtype)


def _roots(head: Head) -> Tensor:
    """The root of each unit's weight; those of next to no weight are as if they had a little."""
    root = head.weights.double().abs().sqrt()
    info = torch.finfo(head.dtype)
    return root.clamp(min=max(float(root.amax()) * info.eps, info.tiny))


def _scaled(axes: Tensor, head: Head) -> Tensor:
    """Numbers that the dtype holds: their scale means nothing."""
    largest = axes.abs().amax().clamp(min=torch.finfo(axes.dtype).tiny)
    return (axes / largest).to(head.dtype).contiguous()
