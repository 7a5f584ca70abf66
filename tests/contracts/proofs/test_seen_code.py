"""Sizes that Python makes numbers of: `len`, `math`, keys; and conditions on two axes that divide or equal each other."""

import functools
import math
from itertools import product

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from towers.contracts import contract, verify
from towers.contracts.proofs.reality import holds_at

KEPT: dict[int, Tensor] = {}
CALLS = 0


@functools.cache
def places(count: int) -> Tensor:
    return torch.arange(count)


def halved(x: Tensor) -> Tensor:
    return x / math.sqrt(len(x))


def twice(x: Tensor) -> Tensor:
    return x + x


class Length(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows"]:
        return self.made(x) + halved(x).sum(1) / len(x)

    @staticmethod
    def made(x: Tensor) -> Tensor:
        return torch.zeros(len(x))


class Bare(nn.Module):
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows"]:
        return torch.ones(len(x)) * x.sum(1)


class OneHot(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows kinds"], y: Int[Tensor, "rows"]) -> Float[Tensor, "rows kinds"]:
        return x - F.one_hot(y, x.shape[1])


class Scattered(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows time"], to: Int[Tensor, "rows"]) -> Float[Tensor, "rows"]:
        return torch.zeros(len(x)).scatter_add(0, to, x.sum(1))


class Cached(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows time"]:
        return x + places(x.shape[1])


class Keyed(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows time"]:
        if x.shape[1] not in KEPT:
            KEPT[x.shape[1]] = torch.ones(x.shape[1])
        return x * KEPT[x.shape[1]]


class Filled(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows time"]:
        rows, time = x.shape
        return (
            torch.full_like(x, -math.log(time)) + torch.full((rows, time), math.log2(time)) + torch.tensor([1 / time])
        )


class Diagonal(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "high wide"]) -> Float[Tensor, "min(high,wide)"]:
        return x.diagonal()


class Counted(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows time"]:
        global CALLS
        CALLS = x.shape[1]
        return x[:, :CALLS]


class Wrapped(nn.Module):
    """Keeps a function under the name of a method, as torchmetrics does."""

    def __init__(self) -> None:
        super().__init__()
        self.doubled = lambda x: 2 * x

    def doubled(self, x: Tensor) -> Tensor:
        return x

    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows time"]:
        return self.doubled(x)


class Compared(nn.Module):
    """A function that is kept is the same one under its global name."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = twice

    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows time"]:
        return self.kept(x) + twice(x) if self.kept is twice else x[:, :1]


PROVEN = [Length, Bare, OneHot, Scattered, Cached, Keyed, Filled, Diagonal, Counted, Wrapped, Compared]


@pytest.mark.parametrize("kind", PROVEN)
def test_a_size_that_is_counted_or_is_a_key_stays_a_symbol(kind: type[nn.Module]):
    proof = verify(kind())
    assert proof.verdict == "proven", proof.message
    assert proof.tried > 8


def test_what_is_kept_in_the_program_is_as_it_was():
    places.cache_clear()
    for kind in (Cached, Keyed, Counted):
        verify(kind())
    assert not any(isinstance(key, torch.SymInt) for key in KEPT)
    assert isinstance(CALLS, int)
    assert "no size is a key that was there before (asked in Keyed.forward)" in verify(Keyed()).assumptions


class WrongLength(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "time"]:
        return torch.zeros(len(x))


class Listed(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows time"]:
        return x[:, :3] if x.shape[1] in {7, 12} else x


class Logarithm(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows time"]) -> Float[Tensor, "rows time"]:
        return x[:, :3] if math.log(x.shape[1]) > 3 else x


class Grouped(nn.Module):
    @contract
    def forward(self, q: Float[Tensor, "heads 3 4"], k: Float[Tensor, "groups 3 4"]) -> Float[Tensor, "heads 3 3"]:
        return q @ k.repeat_interleave(q.shape[0] // k.shape[0], 0).mT


class Summed(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "time 4"], y: Float[Tensor, "other 4"]) -> Float[Tensor, "4"]:
        return torch.einsum("td,td->d", x, y)


class Shorter(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "high 4"], y: Float[Tensor, "deep 4"]) -> Float[Tensor, "high"]:
        return (x @ y.T).diagonal()


class Halves(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "1 2 time"]) -> Float[Tensor, "1 2 time"]:
        return x + F.interpolate(F.interpolate(x, scale_factor=0.5), scale_factor=2)


SHAPES: dict[type[nn.Module], list[str]] = {
    WrongLength: ["rows time"],
    Listed: ["rows time"],
    Logarithm: ["rows time"],
    Grouped: ["heads 3 4", "groups 3 4"],
    Summed: ["time 4", "other 4"],
    Shorter: ["high 4", "deep 4"],
    Halves: ["1 2 time"],
}


def runs(module: nn.Module, sizes: dict[str, int]) -> bool:
    """Whether real tensors of some sizes pass."""
    shapes = [[int(sizes.get(name, name)) for name in shape.split()] for shape in SHAPES[type(module)]]
    try:
        module(*map(torch.ones, shapes))
    except (RuntimeError, TypeError):
        return False
    return True


@pytest.mark.parametrize("kind", SHAPES)
def test_where_it_fails_is_what_real_tensors_say(kind: type[nn.Module]):
    proof = verify(kind(), seconds=60)
    names = dict.fromkeys(name for shape in SHAPES[kind] for name in shape.split() if name.isidentifier())
    assert proof.verdict == "holds if", proof.message
    found: set[bool] = set()
    for sizes in product((1, 2, 3, 4, 6, 7, 12, 21), repeat=len(names)):
        at = dict(zip(names, sizes, strict=True))
        found.add(runs(kind(), at))
        assert holds_at(proof.conditions, at) == runs(kind(), at), (at, proof.conditions)
    assert found == {True, False}


class Numbers(nn.Module):
    """Numbers that only values tell, beside a table of 16 positions."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(16, 8))

    def added(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]]


class Divided(Numbers):
    @contract
    def forward(self, x: Float[Tensor, "rows time 8"]) -> Float[Tensor, "rows time 8"]:
        return self.added(x) / max(int((x.sum(2) > 0).sum()), 1) * min(float(x.norm()), 1.0)


class Counted(Numbers):
    @contract
    def forward(self, x: Float[Tensor, "rows time 8"]) -> Float[Tensor, "rows time 8"]:
        real = max(int((x.sum(2) > 0).sum(1).max()), 1)
        return self.added(x) * real + x.new_zeros(real, 8).sum()


class Kept(Numbers):
    """At most `real` steps: how many rows it has, nobody knows."""

    @contract
    def forward(self, x: Float[Tensor, "rows time 8"]) -> Float[Tensor, "rows time 8"]:
        return x[:, : int((x.sum(2) > 0).sum())]


class AtLeast(Numbers):
    @contract
    def forward(self, x: Float[Tensor, "rows time 8"]) -> Float[Tensor, "rows time 8"]:
        return x[:, : max(int((x.sum(2) > 0).sum()), x.shape[1])]


def test_numbers_of_tensors():
    for module in (Divided(), Counted()):
        proof = verify(module, seconds=20)
        assert (proof.verdict, proof.conditions) == ("holds if", ("time <= 16",)), proof.message
    assert verify(AtLeast(), seconds=20)
    assert verify(Kept(), seconds=20).verdict == "failed"
