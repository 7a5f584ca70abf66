"""What the phrases' launchers do, in plain torch: tests put these in their place."""

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels.triton.phrase_features import shares_of, unpooled


def forward(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None,
    pool: int, precision: str, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rows = _rows(values, ids, real).to(weight.dtype)
    shares = F.linear(rows, weight.flatten(0, 1)).unflatten(1, weight.shape[:2])
    return _pooled(shares.float(), bias, pool, keep)


def lookup(
    projected: Tensor, ids: Tensor, bias: Tensor, real: Tensor | None, pool: int, keep: bool
) -> tuple[Tensor, Tensor]:
    return _pooled(_rows(projected, ids, real).float(), bias, pool, keep)


def _rows(values: Tensor, ids: Tensor | None, real: Tensor | None) -> Tensor:
    if real is None:
        return values if ids is None else values[ids]
    rows = values if ids is None else values[ids.where(real, 0)]
    return rows.masked_fill(~real.reshape(-1, *[1] * (rows.dim() - 1)), 0.0)


def _pooled(shares: Tensor, bias: Tensor, pool: int, keep: bool) -> tuple[Tensor, Tensor]:
    """Shares "tokens places filters" added up to phrases, share p of the token p rows on; the largest of each group."""
    tokens, places, _ = shares.shape
    ended = F.pad(shares, (0, 0, 0, 0, 0, places - 1))
    total = bias.float() + sum(ended[place : place + tokens, place] for place in range(places))
    largest, winners = total.unflatten(1, (-1, pool)).max(2)
    return largest, winners[: tokens if keep else 0].to(torch.uint8)


def backward(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None, winners: Tensor,
    d_features: Tensor, precision: str, vectors: bool,
) -> list[Tensor]:  # fmt: skip
    places, filters, _ = weight.shape
    d_total = unpooled(d_features, winners, filters // winners.shape[1])
    d_shares = shares_of(d_total, places)
    d_weight = torch.einsum("tpf,tk->pfk", d_shares, _rows(values, ids, real).float()).to(weight.dtype)
    d_values = values[:0].clone()
    if vectors:
        d_values = torch.einsum("tpf,pfk->tk", d_shares, weight.float()).to(values.dtype)
    return [d_values, d_weight, d_total.sum(0).to(bias.dtype)]
