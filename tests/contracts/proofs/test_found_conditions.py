"""Conditions that are found and proven on two axes, on divisors, and of drawn places: each is the truth of real runs."""

import math
import random
import warnings

import pytest
import sympy
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._sympy.functions import Max as TorchMax

from towers.contracts import contract, verify
from towers.contracts.proofs import guesses
from towers.contracts.proofs.implied import always, never
from towers.contracts.proofs.ranges import Span
from towers.contracts.proofs.reality import holds_at
from towers.contracts.proofs.relations import implied, one_number, plainer
from towers.contracts.proofs.trials import Trial


class Pairs(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "b t"]) -> Float[Tensor, "b*t//2 2"]:
        return x.reshape(-1, 2)


class Groups(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "b 12"], like: Float[Tensor, " n"]) -> Float[Tensor, "b n 12//n"]:
        return x.view(x.shape[0], like.shape[0], -1)


class Covariance(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
        return torch.cov(x.T)


class Crop(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "b t 8"]) -> Float[Tensor, "b 5 8"]:
        at = torch.randint(0, x.shape[1] - 5 + 1, (1,)).item()
        return x[:, at : at + 5]


class CropByPython(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "b t 8"]) -> Float[Tensor, "b 5 8"]:
        at = random.randint(0, x.shape[1] - 5)
        return x[:, at : at + 5]


class CropTooFar(nn.Module):
    """Of 5 places one is beyond the end."""

    @contract
    def forward(self, x: Float[Tensor, "b t 8"]) -> Float[Tensor, "b 5 8"]:
        at = random.randint(0, x.shape[1] - 4)
        return x[:, at : at + 5]


class IntoExpanded(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("base", torch.zeros(1, 8))

    @contract
    def forward(self, x: Float[Tensor, "b 8"]) -> Float[Tensor, "b 8"]:
        out = self.base.expand(x.shape[0], -1)
        out += x
        return out


class Sines(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "t d"]) -> Float[Tensor, "t d"]:
        time, width = x.shape
        angles = torch.arange(time)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(time, width)
        table[:, 0::2] = torch.sin(angles)
        table[:, 1::2] = torch.cos(angles)
        return x + table


class Shuffled(nn.Module):
    """The masking of MAE, along time."""

    @contract
    def forward(self, x: Float[Tensor, "b t 8"]) -> Float[Tensor, "b t//4 8"]:
        count, length, width = x.shape
        keep = int(length * 0.25)
        ids = torch.argsort(torch.rand(count, length), dim=1)[:, :keep]
        return torch.gather(x, 1, ids.unsqueeze(-1).repeat(1, 1, width))


class Largest(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "b t 8"]) -> Float[Tensor, "b 8"]:
        return x.topk(max(1, int(x.shape[1] * 0.3)), dim=1).values.mean(1)


class LargestOfMore(nn.Module):
    """int(t * 1.1) is more than t from 10 on."""

    @contract
    def forward(self, x: Float[Tensor, "b t"]) -> Float[Tensor, "b _"]:
        return x.topk(max(1, int(x.shape[1] * 1.1)), dim=1).values


class Cut(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "b t"]) -> Float[Tensor, "b t-3"]:
        return nn.functional.pad(x, (2, -5))


CASES = [
    (Cut, "t >= 5"),
    (Pairs, "b*t % 2 == 0"),
    (Groups, "12 % n == 0"),
    (Covariance, "d >= 2"),
    (Crop, "t >= 5"),
    (CropByPython, "t >= 5"),
    (IntoExpanded, "b == 1"),
    (Sines, "d % 2 == 0 or d == 1"),
    (Shuffled, ""),
    (Largest, ""),
]


@pytest.mark.parametrize(("kind", "text"), CASES, ids=[kind.__name__ for kind, _ in CASES])
def test_the_condition_is_what_real_runs_show(kind: type[nn.Module], text: str):
    module = kind()
    proof = verify(module, seconds=600)
    assert proof.verdict == ("proven" if not text else "specialised" if text == "b == 1" else "holds if"), str(proof)
    assert " and ".join(proof.conditions) == text
    names = list(proof.axes)
    for sizes in [(one, other)[: len(names)] for one in range(1, 14) for other in (1, 2, 3, 6, 8)]:
        at = dict(zip(names, sizes, strict=True))
        assert passes(module, at) == holds_at(proof.conditions, at), at


def passes(module: nn.Module, at: dict[str, int]) -> bool:
    hints = [hint for name, hint in type(module).forward.__wrapped__.__annotations__.items() if name != "return"]
    shapes = [[at.get(dim) or int(dim) for dim in hint.dim_str.split()] for hint in hints]
    try:
        with warnings.catch_warnings(action="ignore"):
            module(*(torch.zeros(shape) for shape in shapes))
    except Exception:
        return False
    return True


def test_a_drawn_place_is_every_place_of_its_range():
    assert verify(CropTooFar(), seconds=60).verdict in ("failed", "not provable")
    assert verify(LargestOfMore(), seconds=60).verdict == "failed"
    with pytest.raises(ValueError, match="empty range"):
        CropByPython()(torch.zeros(1, 4, 8))


@pytest.mark.parametrize(
    "write",
    [
        lambda out, x: out.add_(x),
        lambda out, x: out.mul_(x),
        lambda out, x: out.copy_(x),
        lambda out, x: out.clamp_(0),
        lambda out, x: out.__setitem__((slice(None), slice(0, 4)), x[:, :4]),
        lambda out, x: out.fill_(1),
        lambda out, x: out[0].add_(x[0]),
    ],
    ids=["add", "mul", "copy", "clamp", "set", "fill", "row"],
)
def test_what_torch_refuses_to_write_is_refused_in_a_proof(write):
    class Writes(nn.Module):
        @contract
        def forward(self, x: Float[Tensor, "b 8"]) -> Float[Tensor, "b 8"]:
            out = torch.zeros(1, 8).expand(x.shape[0], -1)
            write(out, x)
            return x

    try:
        Writes()(torch.zeros(3, 8))
        refused = False
    except RuntimeError:
        refused = True
    assert verify(Writes(), seconds=60).headline() == ("specialised b == 1" if refused else "proven")


def test_what_a_remainder_or_a_product_says():
    one = sympy.Symbol("t", integer=True, positive=True)
    assert always(sympy.Ne(one, TorchMax(1, one - 3)), {"t": Span(4)})
    assert always(sympy.Ne(one, TorchMax(1, one - 3)), {"t": Span(2)})
    assert not always(sympy.Ne(one, TorchMax(1, one - 3)), {"t": Span(1)})
    assert always(sympy.Eq(one - 3, TorchMax(1, one - 3)), {"t": Span(4)})
    assert not always(sympy.Eq(one - 3, TorchMax(1, one - 3)), {"t": Span(3)})
    from torch.utils._sympy.functions import FloorDiv, PythonMod

    b, h, w = (sympy.Symbol(name, integer=True, positive=True) for name in "bhw")
    odd, any_size = Span(1, None, 2), Span(1)
    even = sympy.Eq(PythonMod(h * w, sympy.Integer(2)), 0)
    assert never(even, {"h": odd, "w": odd})
    assert always(even, {"h": Span(2, None, 2), "w": any_size})
    assert not always(even, {"h": odd, "w": any_size})
    assert not never(even, {"h": odd, "w": any_size})
    four = sympy.Eq(FloorDiv(h + 3, 4) * FloorDiv(w + 3, 4), 4)
    assert never(four, {"h": Span(2, 4), "w": Span(2, 12)})
    assert not never(four, {"h": Span(2, 4), "w": Span(2, 13)})
    after = sympy.Eq((FloorDiv(h, 2) - 1) * (FloorDiv(w, 2) - 1), 9)
    assert [size for size in range(1, 6) if never(after, {"h": Span(size, size), "w": any_size})] == [1, 2, 3]
    nine = sympy.Eq(FloorDiv(h, 4) * FloorDiv(w, 4), 9)
    whole = plainer(sympy.Eq(16 * b * FloorDiv(h, 4) * FloorDiv(w, 4), 144 * b))
    assert whole == nine
    assert one_number(nine)
    assert not one_number(sympy.Eq(16 * FloorDiv(h, 4) * FloorDiv(w, 4), h * w))
    assert implied(sympy.Eq(5 * b * FloorDiv(h, 4) * FloorDiv(w, 4), 45 * b), [nine])
    assert implied(sympy.Ne(5 * b * (h - w), 0), [sympy.Ne(h, w)])
    assert not implied(sympy.Ne((h - 3) * (h - w), 0), [sympy.Ne(h, w)])  # h may be 3
    assert not implied(sympy.Eq(h, w), [sympy.Eq((h - 3) * (h - w), 0)])


def test_a_few_sizes_that_pass_are_no_condition_before_those_beside_them_were_run():
    """As after two poolings by 2: 20, 21, 22 and 23 give the same features, and 22 was not run."""
    table = [Trial({"b": 2, "t": size}, None if 20 <= size < 24 else ValueError()) for size in (1, 19, 20, 21, 23, 24)]
    whole = {"b": Span(1), "t": Span(1)}
    assert not list(guesses._few(table, whole))
    assert {"b": 2, "t": 22} in guesses._beside_few(table, whole)
    assert not list(guesses._few([*table, Trial({"b": 2, "t": 22}, None)], whole))
    [guess] = guesses._few([*table, Trial({"b": 2, "t": 22}, ValueError())], whole)
    assert guess.texts == ("t == 20 or t == 21 or t == 23",)


def test_two_sizes_far_apart_are_a_condition_when_those_next_to_each_fail():
    table = [Trial({"t": size}, None if size in (1, 512) else ValueError()) for size in (1, 2, 9, 511, 512)]
    assert not list(guesses._few(table, {"t": Span(1)}))
    [guess] = guesses._few([*table, Trial({"t": 513}, ValueError())], {"t": Span(1)})
    assert guess.texts == ("t == 1 or t == 512",)


class GridTable(nn.Module):
    """Places of a grid in a table: what fails depends on numbers that symbols do not tell."""

    def __init__(self, rows: int, wide: int | None):
        super().__init__()
        self.table, self.wide = nn.Embedding(rows, 2), wide

    @contract
    def forward(self, x: Float[Tensor, "b h w 2"]) -> Float[Tensor, "b h w 2"]:
        high, wide = x.shape[1:3]
        return x + self.table(torch.arange(high)[:, None] * (self.wide or wide) + torch.arange(wide))


@pytest.mark.parametrize(("wide", "exact"), [(8, ("8*h + w <= 72",)), (None, ("h*w <= 64",))])
def test_bounds_that_runs_at_their_own_ends_refute_are_no_condition(wide: int | None, exact: tuple[str, ...]):
    """Both got a box of the sizes that happened to be run; 1 by 41 passes with the first, 13 by 1 with the second."""
    proof = verify(GridTable(64, wide))
    assert (proof.verdict, proof.conditions) in (("failed", ()), ("holds if", exact))


def test_conditions_are_run_at_their_own_ends():
    assert guesses.at_ends(("256 % n == 0",), {"n": Span(1)}) == [{"n": 512}, {"n": 1024}]  # powers of two pass there
    assert guesses.at_ends(("n <= 7",), {"n": Span(1), "m": Span(1)}) == []
    assert guesses.at_ends(("h <= w",), {"h": Span(1, 10**9), "w": Span(1, 10**9)})[-1]["w"] < 1000
    ends = guesses.at_ends(("h <= 4", "h*w <= 8"), {"h": Span(1), "w": Span(1)})
    assert {(each["h"], each["w"]) for each in ends} >= {(4, 1), (5, 1), (1, 8), (1, 9), (4, 2), (4, 3), (2, 4), (2, 5)}
