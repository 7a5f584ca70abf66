"""Rules on values: read in eager code, torch's own asserts in a graph, left out under vmap."""

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import towers.contracts
from towers import Ragged
from towers.contracts import checks, contract


class Lookup(nn.Module):
    @contract(where=("0 <= ids < rows", "ids % step == 0"))
    def forward(self, table: Float[Tensor, "rows width"], ids: Int[Tensor, "n"], step: int = 1) -> Float[Tensor, "n"]:
        return table.sum(1)[ids.clamp(0, 3)]


@contract(where=("words >= 2", "lengths <= words"))
def rows(x: Float[Ragged, "batch words 2"], lengths: Int[Tensor, "batch"] | None = None) -> None: ...


TABLE, FINE, WRONG = torch.zeros(4, 3), torch.tensor([0, 3]), torch.tensor([0, 4])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Lookup()(TABLE, WRONG), r"^Lookup.forward: ids\[1\] is 4; this lookup needs less than 4 rows$"),
        (
            lambda: Lookup()(TABLE, torch.tensor([0, 2, 3]), 2),
            r"ids\[2\] is 3; this lookup needs a multiple of 2 \(step\)$",
        ),
        (lambda: rows(ragged(3, 1)), r"rows: x.lengths\[1\] is 1; rows needs at least 2 words"),
        (lambda: rows(ragged(3, 2), torch.tensor([3, 3])), r"lengths\[1\] is 3; rows needs at most 2 words"),
    ],
)
def test_a_value_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.parametrize("count", [1, 64, 65, 1000])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8])
def test_both_bounds_of_few_values_and_of_many(count, dtype):
    x, fine = torch.zeros(count, 3), torch.zeros(count, dtype=dtype)
    fine[-1] = 3
    both_bounds(x, fine)
    both_bounds(x[:0], fine[:0])
    for wrong, text in ((-1, "at least 0"), (4, "at most 3")):
        values = fine.clone()
        values[count // 2] = wrong
        with pytest.raises(ValueError, match=rf"lengths\[{count // 2}\] is {wrong}; both_bounds needs {text}"):
            both_bounds(x, values)


@contract(where=("0 <= lengths <= words",))
def both_bounds(x: Float[Tensor, "batch words"], lengths: Int[Tensor, "batch"]) -> None: ...


def ragged(*lengths: int) -> Ragged:
    return Ragged(torch.zeros(sum(lengths), 2), torch.tensor([0, *lengths]).cumsum(0))


@pytest.mark.parametrize("dynamic", [False, True])
def test_in_a_compiled_program_torch_asserts(dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(Lookup(), backend="eager", fullgraph=True, dynamic=dynamic)
    compiled(TABLE, FINE)
    with pytest.raises(RuntimeError, match=r"Lookup\.forward: 0 <= ids < rows does not hold"):
        compiled(TABLE, WRONG)
    with checks("off"):
        compiled(TABLE, WRONG)


@pytest.mark.parametrize("strict", [False, True])
def test_in_an_exported_program_torch_asserts(strict):
    program = torch.export.export(Lookup(), (TABLE, FINE), strict=strict).module()
    program(TABLE, FINE)
    with pytest.raises(RuntimeError, match=r"Lookup\.forward: 0 <= ids < rows does not hold"):
        program(TABLE, WRONG)


@pytest.mark.parametrize("compiled", [False, True])
def test_under_vmap_they_are_left_out(compiled):
    torch._dynamo.reset()
    mapped = torch.vmap(Lookup(), in_dims=(None, 0))
    mapped = torch.compile(mapped, backend="eager", fullgraph=True) if compiled else mapped
    assert mapped(TABLE, torch.stack([FINE, WRONG])).shape == (2, 2)


def test_the_help_says_how_to_switch_from_jaxtyping():
    text = towers.contracts.__doc__
    assert [text.index(word) for word in ("\n    same ", "\n    stricter ", "\n    not supported ")] == sorted(
        text.index(word) for word in ("\n    same ", "\n    stricter ", "\n    not supported ")
    )
    assert max(len(line) for line in text.splitlines()) <= 120
