"""`trace`: the walk of the shapes, in symbols and in numbers, as text and as data."""

import json

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towers import PhraseConv, TwoTowers
from towers.contracts import ShapeTrace, contract, trace


def test_each_boundary_has_a_row_with_what_it_demands_and_what_came():
    row = trace(PhraseConv()).rows[0]
    assert (row.kind, row.came, row.went) == ("PhraseConv", "(batch, words, 300)", "(batch, words-1, 32)")
    assert row.demand == "batch words {self.vector_width}, batch -> batch words-{self.kernel_words}+1 {self.filters}"


def test_the_towers_from_end_to_end():
    found = trace(TwoTowers())
    assert isinstance(found, ShapeTrace)
    paths = [row.path for row in found.rows]
    assert [path for path in ("left", "left.conv", "left.pool", "left.lstm", "dense", "logit") if path in paths]
    assert next(row for row in found.rows if row.path == "logit").went == "(batch, 1)"
    assert "left_words-1" in str(found) or "left_words" in str(found)
    json.dumps(found.to_json())


def test_real_inputs_give_numbers_too():
    found = trace(TwoTowers(), torch.zeros(3, 9, 300), torch.zeros(3, 5, 300))
    first = found.rows[0]
    assert first.came == "(batch, left_words, 300), (batch, 5, 300)"
    assert first.numbers == "(3, 9, 300), (3, 5, 300) -> (3)"
    assert first.numbers in str(found)


def test_a_failure_ends_the_walk_and_is_marked():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 32), nn.Linear(8, 6)

        @contract
        def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 6"]:
            return self.second(self.first(x))

    found = trace(Wide())
    assert [(row.path, row.failed) for row in found.rows] == [("", True), ("first", False), ("second", True)]
    assert found.rows[1].went == "(batch, time, 32)"
    assert "mat1 and mat2" in found.error or "reduction dim" in found.error or "must" in found.error
    assert max(map(len, found.lines())) <= 98
