"""The C code of the search on each level of x86-64 gives the bits of the others, and those of torch."""

import math

import pytest
import torch
from tests.helpers.native import at_level
from tests.helpers.searching import plain_model

from towers import Tower, TwoTowers
from towers.kernels.cpu import topk_call
from towers.search import Index
from towers.search import items as laid_out
from towers.search.head import Head


def found(level: str, dtype: torch.dtype, dense: int) -> tuple[torch.Tensor, torch.Tensor]:
    with at_level(level):
        torch.manual_seed(0)
        model = plain_model(6, dense, dtype)
        items, queries = torch.rand(3001, 6, dtype=dtype) * 2 - 1, torch.rand(19, 6, dtype=dtype) * 2 - 1
        items[2000:2900] = items[:900]
        index = Index(model)
        index.add(items)
        return index.search(queries, 40)


@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("dense", [16, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("one", "other"), [("v2", "off"), ("v3", "v4")])
def test_levels_have_the_same_bits(
    one: str, other: str, dtype: torch.dtype, dense: int, boxes: bool, monkeypatch: pytest.MonkeyPatch
):
    if boxes:
        monkeypatch.setattr(laid_out, "FEWEST", topk_call.BOX)
        monkeypatch.setattr(topk_call, "pace", lambda *_: math.inf)  # no walk is given up
    scores, ids = found(one, dtype, dense)
    again, ids_again = found(other, dtype, dense)
    assert torch.equal(scores, again)
    assert torch.equal(ids, ids_again)


@pytest.mark.parametrize("level", ["off", "v2", "v3", "v4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(6, 16), (1, 5), (20, 33)])
def test_rows_are_sums_in_the_order_of_the_numbers(level: str, dtype: torch.dtype, sizes: tuple[int, int]):
    torch.manual_seed(0)
    model, states = plain_model(*sizes, dtype), torch.randn(70, sizes[0], dtype=dtype)
    states[3, 0], states[5, -1] = math.nan, math.inf
    with at_level(level):
        rows = Head(model, "right").item_rows(states.T.contiguous().T)
    expected = torch.zeros_like(rows)
    for number, weight in zip(states.unbind(1), model.dense.weight.detach().unbind(1), strict=True):
        expected += number.unsqueeze(1) * weight
    assert torch.equal(rows.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert rows[3].isnan().all()


@pytest.mark.parametrize("level", ["v2", "v3", "v4"])
def test_heads_of_presets_have_the_same_bits_on_every_level(level: str):
    def found(level: str) -> tuple[torch.Tensor, torch.Tensor]:
        with at_level(level):
            torch.manual_seed(0)
            tower = Tower(vector_width=4, filters=None, hidden=None, word_maximum=70)
            model = TwoTowers(tower, tower, features=("absolute difference", "product"), outputs=3, dense=20)
            index = Index(model, output=1)
            index.add(torch.randn(300, 70))
            return index.search(torch.randn(9, 70), 40)

    for one, other in zip(found(level), found("off"), strict=True):
        assert torch.equal(one, other)


def test_fused_multiply_add_changes_scores_by_rounding_alone():
    scores, _ = found("v3", torch.float32, 16)
    plain, _ = found("off", torch.float32, 16)
    assert (scores - plain).abs().max() < 2e-6
