"""Phrase features from vectors, from ids and a table, and from a multiplied table, against one token at a time."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from towers.kernels.triton import phrase_features

from ...helpers import reference
from .cases import close, upstream

VOCABULARY = 7


@dataclass(frozen=True)
class Case:
    tokens: int
    positions: int = 2
    filters: int = 32
    width: int = 40
    pool: int = 4
    padding: bool = False  # some tokens are NaN, or ids that no table has, and are not looked at
    precision: str = "ieee"

    def numbers(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """A table, ids, weight, bias, and which tokens are real."""
        generator = torch.Generator().manual_seed(1)
        shapes = [(VOCABULARY, self.width), (self.positions, self.filters, self.width), (self.filters,)]
        table, weight, bias = (torch.randn(shape, generator=generator).double() for shape in shapes)
        ids = torch.randint(0, VOCABULARY, (self.tokens,), generator=generator)
        real = torch.rand(self.tokens, generator=generator) < 0.7 if self.padding else None
        return table, ids, weight, bias, real

    def whole(self, real: Tensor | None) -> list[int]:
        """Where a phrase of real tokens starts."""
        starts = range(self.tokens - self.positions + 1)
        return [start for start in starts if real is None or real[start : start + self.positions].all()]


def expect(case: Case) -> tuple[Tensor, list[Tensor]]:
    """The features of whole phrases; gradients of vectors, weight, bias."""
    table, ids, weight, bias, real = case.numbers()
    leaves = [part.requires_grad_() for part in (table[ids], weight, bias)]
    found = [reference.conv(leaves[0][start : start + case.positions], *leaves[1:]) for start in case.whole(real)]
    features = reference.pool(torch.cat([leaves[2].expand(0, -1), *found]), case.pool)
    (features * upstream([features])[0]).sum().backward()
    return features, [torch.zeros_like(part) if part.grad is None else part.grad for part in leaves]


def pull(features: Tensor, whole: list[int]) -> Tensor:
    """Backward from whole phrases only, as an LSTM does that reads no other; their features."""
    found = features[whole]
    (found * upstream([found])[0].to(found.device)).sum().backward()
    return found


CASES = {
    "the towers' own": Case(50, width=300),
    "more than a tile": Case(300),
    "three words": Case(140, positions=3, filters=16, pool=2),
    "one word": Case(70, positions=1, filters=16, pool=16),
    "no pool": Case(70, filters=16, pool=1),
    "padding": Case(300, padding=True),
    "fewer than a phrase": Case(1),
    "none": Case(0),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def of_vectors(case: Case, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    table, ids, weight, bias, real = case.numbers()
    vectors = table[ids]
    if real is not None:
        vectors[~real] = float("nan")
        real = real.to(device)
    leaves = [part.float().to(device).requires_grad_() for part in (vectors, weight, bias)]
    features, _ = phrase_features.phrase_features(leaves[0], None, *leaves[1:], real, case.pool, case.precision, True)
    return features, leaves


@cases
def test_from_vectors(case, device):
    features, leaves = of_vectors(case, device)
    wanted, gradients = expect(case)
    assert features.shape == (case.tokens, case.filters // case.pool)
    close(pull(features, case.whole(case.numbers()[4])), wanted, 2e-6, "features")
    for leaf, gradient, name in zip(leaves, gradients, ("vectors", "weight", "bias"), strict=True):
        close(leaf.grad, gradient, 1e-5, f"gradient of {name}")


@pytest.mark.parametrize("precision", ["tf32x3", "tf32", ""])
def test_other_precisions(precision, device):
    case = Case(200, precision=precision)
    features, leaves = of_vectors(case, device)
    wanted, gradients = expect(case)
    tolerance = 5e-3 if precision == "tf32" else 1e-5
    found = features[case.whole(None)]
    close(found, wanted, tolerance, "features")
    if precision != "tf32":  # there another winner of a group may get the gradient
        pull(features, case.whole(None))
        close(leaves[1].grad, gradients[1], 10 * tolerance, "gradient of weight")


@cases
def test_from_ids_and_a_table(case, device):
    table, ids, weight, bias, real = case.numbers()
    if real is not None:
        ids[~real] = 10**12
        real = real.to(device)
    weight, bias = (part.float().to(device).requires_grad_() for part in (weight, bias))
    features, _ = phrase_features.phrase_features(
        table.float().to(device), ids.to(device), weight, bias, real, case.pool, "ieee", True
    )
    wanted, (_, d_weight, d_bias) = expect(case)
    close(pull(features, case.whole(case.numbers()[4])), wanted, 2e-6, "features")
    close(weight.grad, d_weight, 1e-5, "gradient of weight")
    close(bias.grad, d_bias, 1e-5, "gradient of bias")


@cases
def test_from_a_table_that_was_multiplied(case, device):
    table, ids, weight, bias, real = case.numbers()
    if real is not None:
        ids[~real] = 10**12
        real = real.to(device)
    table, weight, bias = (part.float().to(device).requires_grad_() for part in (table, weight, bias))
    projected = torch.einsum("vk,pfk->vpf", table, weight)
    features, _ = phrase_features.phrase_lookup(projected, ids.to(device), bias, real, case.pool, True)
    wanted, (d_vectors, d_weight, d_bias) = expect(case)
    close(pull(features, case.whole(case.numbers()[4])), wanted, 2e-6, "features")
    d_table = torch.zeros(VOCABULARY, case.width).double().index_add(0, case.numbers()[1], d_vectors)
    close(table.grad, d_table, 1e-5, "gradient of table")
    close(weight.grad, d_weight, 1e-5, "gradient of weight")
    close(bias.grad, d_bias, 1e-5, "gradient of bias")


def test_vectors_of_bfloat16(device):
    case = Case(90)
    table, ids, weight, bias, _ = case.numbers()
    vectors, weight, bias = (part.bfloat16().to(device) for part in (table[ids], weight, bias))
    features, _ = phrase_features.phrase_features(vectors, None, weight, bias, None, 4, "", False)
    exact = torch.cat([vectors[:-1], vectors[1:]], 1).double() @ weight.double().transpose(1, 2).flatten(0, 1)
    exact = (exact + bias.double()).cpu().unflatten(1, (8, 4)).max(2).values
    close(features[:-1], exact, 4e-3, "features")


def test_the_first_of_equal_features_wins(device):
    vectors, weight = torch.ones(3, 4, device=device), torch.ones(1, 16, 4, device=device)
    bias = torch.zeros(16, device=device)
    _, winners = phrase_features.phrase_features(vectors, None, weight, bias, None, 4, "ieee", True)
    assert not winners.any()


def test_what_has_no_gradient(device):
    table, ids, weight, bias, _ = Case(20).numbers()
    table, weight, bias = (part.float().to(device).requires_grad_() for part in (table, weight, bias))
    features, winners = phrase_features.phrase_features(table, ids.to(device), weight, bias, None, 4, "ieee", True)
    with pytest.raises(RuntimeError, match=r"a table gets no gradient; look its rows up with F\.embedding"):
        features.sum().backward()
    features, winners = phrase_features.phrase_features(table, None, weight, bias, None, 4, "ieee", False)
    assert len(winners) == 0
    with pytest.raises(RuntimeError, match="no gradients after keep=False"):
        features.sum().backward()
