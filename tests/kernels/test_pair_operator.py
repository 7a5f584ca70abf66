"""`towers::pair`: a compiled pair is one operation, with the results of eager code, and refuses what eager code does."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import EagerAndRecordGraphs

from towers import Ragged, Tower, TwoTowers
from towers.kernels import cpu
from towers.kernels.cpu import pair_operator

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")
LENGTHS, OFFSETS = torch.tensor([6, 2, 4]), torch.tensor([0, 6, 8, 12])


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()


def pair_of(dtype: torch.dtype = torch.float32, **options) -> TwoTowers:
    towers = [Tower(vector_width=8, filters=size, pool=2, hidden=3, dtype=dtype) for size in (8, 4)]
    return TwoTowers(*towers, dense=5, **options)


def weights_of(model: TwoTowers) -> list[Tensor]:
    return [
        *[getattr(layer, name) for tower in (model.left, model.right) for layer, names in (
            (tower.conv, ("weight", "bias")), (tower.lstm, ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"))
        ) for name in names],
        model.dense.weight, model.dense.bias, model.logit.weight, model.logit.bias,
    ]  # fmt: skip


def operations(graphs: EagerAndRecordGraphs) -> list[str]:
    return [str(node.target) for graph in graphs.graphs for node in graph.graph.nodes if node.op == "call_function"]


def test_a_compiled_pair_of_any_size_is_one_operation_with_the_same_bits():
    model, graphs = pair_of(), EagerAndRecordGraphs()
    compiled = torch.compile(model, backend=graphs, fullgraph=True, dynamic=True)
    ids = Ragged(torch.randint(0, 7, (12,)), OFFSETS, table=torch.randn(7, 8))
    for given in (
        (torch.randn(3, 6, 8), torch.randn(3, 7, 8)), (torch.randn(5, 9, 8), torch.randn(5, 4, 8)),
        (torch.randn(3, 6, 8), torch.randn(3, 7, 8), None, LENGTHS),
        (Ragged(torch.randn(12, 8), OFFSETS), ids),
    ):  # fmt: skip
        found, wanted = compiled(*given), model(*given)
        if (
            given[1] is ids
        ):  # where gradients are wanted, eager code multiplies the rows of the table before it reads them
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
            with torch.no_grad():
                assert torch.equal(compiled(*given), model(*given))
        else:
            assert torch.equal(found, wanted)
        upstream = torch.randn_like(wanted)
        for one, other in zip(
            torch.autograd.grad(found, list(model.parameters()), upstream),
            torch.autograd.grad(wanted, list(model.parameters()), upstream),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert {one for one in operations(graphs) if "towers" in one} == {"towers.pair.default"}


def test_a_probability_is_two_operations():
    model, graphs = pair_of(), EagerAndRecordGraphs()
    given = torch.randn(1, 6, 8), torch.randn(1, 7, 8)
    compiled = torch.compile(model.probability, backend=graphs, fullgraph=True)
    assert torch.equal(compiled(*given), model.probability(*given))
    assert [one.split("method ")[-1].split(" ")[0] for one in operations(graphs)] == ["towers.pair.default", "sigmoid"]


def test_where_a_layer_must_be_called_it_is_compiled_itself():
    given, graphs = (torch.randn(3, 6, 8), torch.randn(3, 7, 8)), EagerAndRecordGraphs()
    watched, dropped = pair_of(), pair_of(dropout=0.5)
    watched.dense.register_forward_hook(lambda *_: None)
    for model in (watched, dropped):
        torch.manual_seed(0)
        wanted = model(*given)
        torch.manual_seed(0)
        torch.testing.assert_close(torch.compile(model, backend=graphs)(*given), wanted, rtol=0, atol=1e-6)
    assert "towers.pair.default" not in operations(graphs)
    program = torch.export.export(pair_of(), given)
    assert "towers.pair.default" not in [str(node.target) for node in program.graph.nodes]


def test_transforms_inside_of_a_compiled_function():
    model, x, y = pair_of(), torch.randn(2, 3, 8), torch.randn(2, 4, 8)

    def grads(x, y):
        return torch.func.vmap(torch.func.grad(lambda one, other: model(one[None], other[None]).sum()))(x, y)

    torch.testing.assert_close(torch.compile(grads, backend="eager")(x, y), grads(x, y), rtol=1e-5, atol=1e-6)


def test_torch_s_own_checks_of_the_operation():
    model = pair_of(torch.float64)
    x = torch.randn(3, 6, 8, dtype=torch.float64, requires_grad=True)
    y = torch.randn(12, 8, dtype=torch.float64)
    torch.library.opcheck(pair_operator.pair, (x, None, LENGTHS, y, OFFSETS, None, weights_of(model), 2, 2))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"left_lengths": torch.tensor([6, 1, 4])}, ValueError, "shorter than a phrase"),
        ({"right_lengths": LENGTHS[:2]}, ValueError, r"lengths is \(2,\)"),
        ({"left": torch.randn(2, 6, 8)}, RuntimeError, "do not fit"),
        ({"right": torch.randn(3, 6, 7)}, RuntimeError, "do not fit"),
        (
            {"right": torch.randn(12, 8), "right_offsets": torch.tensor([0, 6, 8, 13])},
            ValueError,
            "end with the number",
        ),
        ({"left_offsets": OFFSETS, "left_lengths": LENGTHS}, RuntimeError, "do not fit"),
        ({"weights": weights_of(pair_of())[:13]}, RuntimeError, "do not fit"),
        ({"weights": [*weights_of(pair_of())[:13], torch.randn(2)]}, RuntimeError, "do not fit"),
        ({"weights": weights_of(pair_of(torch.float64))}, RuntimeError, "do not fit"),
        ({"left_pool": 3}, RuntimeError, "do not fit"),
        ({"right_pool": -2}, RuntimeError, "do not fit"),
    ],
)
def test_who_calls_the_operation_is_refused_what_does_not_fit(change, error, words):
    usual = {"left": torch.randn(3, 6, 8), "left_offsets": None, "left_lengths": None, "right": torch.randn(3, 6, 8),
             "right_offsets": None, "right_lengths": None, "weights": weights_of(pair_of()),
             "left_pool": 2, "right_pool": 2}  # fmt: skip
    with torch.no_grad(), pytest.raises(error, match=words):
        torch.ops.towers.pair(**usual | change)
