"""The C code of heads beside the sums as they are written, in float64."""

import pytest
import torch
from torch import Tensor

from towers.kernels.cpu import heads_call, why_not
from towers.kernels.cpu.heads_call import Folded

pytestmark = pytest.mark.skipif(why_not() is not None, reason="the C code cannot run")


def drawn(hidden: int, units: int, outputs: int) -> Folded:
    sums = (torch.randn(hidden, units).double() for _ in range(3))
    return Folded(
        *sums, torch.randn(units).double(), torch.randn(outputs, units).double(), torch.randn(outputs).double()
    )


def reference(query: Tensor, items: Tensor, head: Folded) -> Tensor:
    """Logits "outputs items" of one query."""
    apart = query - items
    units = apart.abs() @ head.absolute + apart @ head.linear + (query * items) @ head.product + head.bias
    return (units.relu() @ head.weights.T + head.offsets).T


def sums_of_absolute_values(query: Tensor, items: Tensor, head: Folded) -> Tensor:
    absolute = Folded(*(part.abs() for part in head))
    query, items = query.abs(), items.abs()
    units = (query + items) @ (absolute.absolute + absolute.linear) + (query * items) @ absolute.product
    return ((units + absolute.bias) @ absolute.weights.T + absolute.offsets).T


@pytest.mark.parametrize(
    ("hidden", "units", "outputs"), [(1, 4, 1), (64, 12, 2), (65, 28, 1), (130, 20, 3), (7, 24, 5)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("blocks", [0, 1, 3, 70])
def test_logits_are_the_sums(hidden: int, units: int, outputs: int, dtype: torch.dtype, blocks: int):
    head = drawn(hidden, units, outputs)
    queries, rows = torch.randn(5, hidden, dtype=dtype), torch.randn(blocks, hidden, 16, dtype=dtype)
    found = heads_call.logits(queries, rows, head.to(dtype))
    items = rows.transpose(1, 2).flatten(0, 1).double()
    expected, largest = (
        torch.stack([formula(query, items, head) for query in queries.double()], 1)
        for formula in (reference, sums_of_absolute_values)
    )
    rounding = heads_call.roundings(hidden, units) * torch.finfo(dtype).eps / 2
    assert ((found.double() - expected).abs() <= rounding * largest).all()
    own = torch.tensor([0, 0, *torch.randint(blocks + 1, (3,)).sort().values, blocks])
    some = heads_call.logits(queries, rows, head.to(dtype), own)
    for query in range(5):
        here = slice(16 * int(own[query]), 16 * int(own[query + 1]))
        assert torch.equal(some[:, here], found[:, query, here])


def test_threads_change_no_bit():
    head, before = drawn(70, 16, 2).to(torch.float32), torch.get_num_threads()
    queries, rows = torch.randn(9, 70), torch.randn(40, 70, 16)
    one = heads_call.logits(queries, rows, head)
    try:
        torch.set_num_threads(3)
        assert torch.equal(heads_call.logits(queries, rows, head), one)
        assert torch.equal(heads_call.logits(queries[:1], rows, head), one[:, :1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("queries", "hidden", "blocks"), [(0, 3, 2), (1, 1, 1), (8, 70, 9), (13, 6, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lines_are_the_sums(queries: int, hidden: int, blocks: int, dtype: torch.dtype):
    states, bend, slope = (torch.randn(queries, hidden, dtype=dtype) for _ in range(3))
    rows = torch.randn(blocks, hidden, 16, dtype=dtype)
    items = rows.transpose(1, 2).flatten(0, 1)
    found = heads_call.lines(states, rows, bend, slope)
    states, items, bend, slope = map(Tensor.double, (states, items, bend, slope))
    parts = [(states[:, None] - items).abs() * bend[:, None], slope[:, None] * items]
    bounds = sum(part.abs().sum(2) for part in parts) * 2 * (hidden + 1) * torch.finfo(dtype).eps
    assert bool(((found - sum(part.sum(2) for part in parts)).abs() <= bounds).all())
