"""`towers::tower`: a compiled tower is one operation, with the results of eager code, and refuses what eager code does."""

import pytest
import torch
from tests.helpers.native import at_level
from torch import nn
from torch._dynamo.testing import EagerAndRecordGraphs

from towers import Ragged, Tower
from towers.contracts import checks
from towers.kernels import cpu
from towers.kernels.cpu import tower_operator

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")
LENGTHS = torch.tensor([6, 2, 4])
OFFSETS = torch.tensor([0, 6, 8, 12])


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()


def small(**options) -> Tower:
    return Tower(vector_width=8, filters=8, pool=2, hidden=3, **options)


def weights_of(tower: Tower) -> tuple[nn.Parameter, ...]:
    lstm = tower.lstm
    return tower.conv.weight, tower.conv.bias, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0


def operations(graphs: EagerAndRecordGraphs) -> list[str]:
    return [str(node.target) for graph in graphs.graphs for node in graph.graph.nodes if "towers" in str(node.target)]


def given(kind: str) -> tuple[object, ...]:
    return {
        "alike": (torch.randn(3, 6, 8),),
        "lengths": (torch.randn(3, 6, 8), LENGTHS),
        "ragged": (Ragged(torch.randn(12, 8), OFFSETS),),
        "ids": (Ragged(torch.randint(0, 7, (12,)), OFFSETS, table=torch.randn(7, 8)),),
    }[kind]


@pytest.mark.parametrize("kind", ["alike", "lengths", "ragged", "ids"])
def test_a_compiled_tower_is_one_operation_with_the_same_bits(kind):
    tower, graphs, sentences = small(), EagerAndRecordGraphs(), given(kind)
    compiled = torch.compile(tower, backend=graphs, fullgraph=True)
    found, wanted = compiled(*sentences), tower(*sentences)
    assert torch.equal(found, wanted)
    assert operations(graphs) == ["towers.tower.default"]
    upstream = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, list(tower.parameters()), upstream),
        torch.autograd.grad(wanted, list(tower.parameters()), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_where_a_layer_must_be_called_it_is_compiled_itself():
    tower, x = small(), torch.randn(3, 6, 8)
    tower.conv.register_forward_hook(lambda *_: None)
    graphs = EagerAndRecordGraphs()
    assert torch.equal(torch.compile(tower, backend=graphs)(x), tower(x))
    other = EagerAndRecordGraphs()
    with at_level("off"):
        plain = small()
        torch.testing.assert_close(torch.compile(plain, backend=other)(x), plain(x))
    assert "towers.tower.default" not in operations(graphs) + operations(other)


def test_an_exported_tower_has_the_operations_of_its_layers():
    program = torch.export.export(small(), (torch.randn(3, 6, 8),))
    assert "towers.tower.default" not in [str(node.target) for node in program.graph.nodes]


@pytest.mark.parametrize("transform", ["jvp", "vmap of grad"])
def test_transforms_inside_of_a_compiled_function(transform):
    tower, x = small(), torch.randn(2, 3, 8)

    def loss(x):
        return tower(x).square().sum()

    def call(x):
        if transform == "jvp":
            return torch.func.jvp(loss, (x,), (x,))[1]
        return torch.func.vmap(torch.func.grad(lambda one: loss(one.unsqueeze(0))))(x)

    torch.testing.assert_close(torch.compile(call, backend="eager")(x), call(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["lengths", "ragged"])
def test_torch_s_own_checks_of_the_operation(kind):
    tower = small(dtype=torch.float64)
    x = torch.randn(*((3, 6, 8) if kind == "lengths" else (12, 8)), dtype=torch.float64, requires_grad=True)
    places = (None, LENGTHS) if kind == "lengths" else (OFFSETS, None)
    torch.library.opcheck(tower_operator.tower, (x, *places, *weights_of(tower), 2))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"lengths": torch.tensor([6, 1, 4])}, ValueError, "shorter than a phrase"),
        ({"lengths": torch.tensor([6, 7, 4])}, ValueError, "longer than its words"),
        ({"lengths": LENGTHS[:2]}, ValueError, r"lengths is \(2,\)"),
        ({"offsets": torch.tensor([1, 12])}, RuntimeError, "do not fit"),
        ({"sentences": torch.randn(12, 8), "offsets": torch.tensor([1, 12])}, ValueError, "begin with 0"),
        ({"sentences": torch.randn(12, 8), "offsets": OFFSETS, "lengths": LENGTHS}, RuntimeError, "do not fit"),
        ({"sentences": torch.randn(3, 6, 7)}, RuntimeError, "do not fit"),
        ({"sentences": torch.randn(3, 6, 8).double()}, RuntimeError, "do not fit"),
        ({"bias": torch.randn(7)}, RuntimeError, "do not fit"),
        ({"pool": 3}, RuntimeError, "do not fit"),
        ({"pool": 0}, RuntimeError, "do not fit"),
        ({"pool": -2}, RuntimeError, "do not fit"),
    ],
)
def test_who_calls_the_operation_is_refused_what_does_not_fit(change, error, words):
    names = ("weight", "bias", "w_ih", "w_hh", "lstm_bias")
    usual = {"sentences": torch.randn(3, 6, 8), "offsets": None, "lengths": None, "pool": 2}
    usual |= dict(zip(names, weights_of(small()), strict=True))
    with torch.no_grad(), pytest.raises(error, match=words):
        torch.ops.towers.tower(**usual | change)


def test_a_compiled_tower_refuses_a_wrong_length_with_and_without_contracts():
    tower, x, wrong = small(), torch.randn(3, 6, 8), torch.tensor([6, 1, 4])
    with pytest.raises(RuntimeError, match="<= lengths <= words"):
        torch.compile(tower, backend="aot_eager")(x, wrong)
    torch._dynamo.reset()
    with checks("off"), pytest.raises(ValueError, match="shorter than a phrase"):
        torch.compile(tower, backend="aot_eager")(x, wrong)


def test_its_memory_of_weights_is_bounded_and_trusts_no_address():
    x = torch.randn(3, 6, 8)
    for _ in range(tower_operator._MOST + 3):
        tower = small()
        with torch.no_grad():
            assert torch.equal(torch.ops.towers.tower(x, None, None, *weights_of(tower), 2), tower(x))
    assert len(tower_operator._accepted) <= tower_operator._MOST
