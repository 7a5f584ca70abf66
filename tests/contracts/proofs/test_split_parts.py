"""Tuples of an unknown number of tensors, as torch.split and torch.unbind give them: they are tuples in every way."""

# ruff: noqa: RUF005 - sums of tuples are what is tested

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import Float
from tests.contracts.proofs.test_rules import by_rule, outermost_first, real, shapes
from torch import Tensor, nn

from towers.contracts import contract, verify
from towers.contracts.proofs.fast_meta import lying

COUNT = 40

EXAMPLES = {"batch": 11, "time": 17}
"""What the symbols of `by_rule` are taken for: what it asks about sizes is true of these."""

JOINS: dict[str, Callable[[Any, int], Tensor]] = {
    "cat": lambda parts, dim: torch.cat(parts, dim),
    "concat": lambda parts, dim: torch.concat(tensors=parts, dim=dim),
    "stack": lambda parts, dim: torch.stack(parts, dim=dim),
    "hstack": lambda parts, dim: torch.hstack(parts),
    "vstack": lambda parts, dim: torch.vstack(parts),
    "dstack": lambda parts, dim: torch.dstack(parts),
}

TAKES: dict[str, Callable[[Any], Any]] = {
    "all": lambda parts: parts,
    "but the first": lambda parts: parts[1:],
    "but the last": lambda parts: parts[:-1],
    "but some": lambda parts: parts[2:-1],
    "three": lambda parts: parts[1:4],
    "the last two": lambda parts: parts[-2:],
    "backwards": lambda parts: parts[::-1],
    "twice": lambda parts: parts * 2,
    "and themselves": lambda parts: parts + parts,
    "and one": lambda parts: parts + (parts[0],),
    "after one": lambda parts: (parts[1], *parts[1:3]) + parts,
    "sorted": lambda parts: tuple(sorted(parts, key=lambda part: part.numel())),
    "one": lambda parts: parts[2:3] or parts[:1],
}

DIVIDES: dict[str, Callable[[Tensor, int], Any]] = {
    "split by 4": lambda x, dim: x.split(4, dim),
    "split by 1": lambda x, dim: torch.split(x, 1, dim=dim),
    "split by all": lambda x, dim: x.split(x.shape[dim], dim),
    "split by half": lambda x, dim: x.split(x.shape[dim] // 2, dim),
    "unbind": lambda x, dim: x.unbind(dim),
}


def test_what_is_joined_has_the_shape_and_the_layout_of_the_real_one():
    done = known = 0
    for seed in range(COUNT):
        choose = random.Random(seed)
        axes = ["batch", "time", *choose.choices([2, 3], k=choose.randint(0, 2))]
        order = choose.sample(range(len(axes)), len(axes))
        dim = order.index(choose.randint(0, 1))
        divide, take = choose.choice(list(DIVIDES)), choose.choice(list(TAKES))
        join, at = choose.choice(list(JOINS)), choose.randint(-2, 2)

        def call(make: Callable[..., Tensor], known: Any) -> Any:
            x = make(*axes).permute(order)  # noqa: B023
            result = JOINS[join](TAKES[take](DIVIDES[divide](x, dim)), at)  # noqa: B023
            lies.append(lying(result) if known is not None else outermost_first(result.stride()))  # noqa: B023
            return result

        lies: list[Any] = []
        try:
            expected: Any = shapes(call(lambda *shape: real(*shape, sizes=EXAMPLES), None))
        except (RuntimeError, IndexError, ValueError) as error:
            expected = type(error)
        told = (seed, axes, order, dim, divide, take, join, at)
        if isinstance(expected, type):
            with pytest.raises((RuntimeError, IndexError, AssertionError, ValueError)):
                by_rule(call, EXAMPLES, {})
        else:
            assert by_rule(call, EXAMPLES, {}) == expected, told
            done += 1
            if lies[1] is not None and all(size > 1 for size in expected):
                assert lies[1] == lies[0], told
                known += 1
    assert done > COUNT // 4
    assert known > COUNT // 8


def test_they_are_tuples():
    def call(make: Callable[..., Tensor], known: Any) -> Any:
        parts = make("batch", "time", 3).split(4, 1)
        assert isinstance(parts, tuple)
        assert (len(parts), bool(parts), len(list(parts)), len([*parts])) == (5, True, 5, 5)
        first, *rest = parts
        assert (len(rest), len(tuple(reversed(parts))), len(parts[1:])) == (4, 5, 4)
        assert parts == parts
        assert hash(parts) == hash(parts)
        assert (parts.index(first) if known is None else 0, first is rest[0]) == (0, False)
        assert len(tuple(zip(parts, parts, strict=True))) == 5
        assert [at for at, _ in enumerate(parts)] == [0, 1, 2, 3, 4]
        with pytest.raises(IndexError, match="out of range"):
            parts[5]
        with pytest.raises(IndexError, match="out of range"):
            parts[-6]
        with pytest.raises(TypeError):
            parts + [first]
        with pytest.raises(ValueError, match="too many values to unpack"):
            _, _ = parts
        return [parts[0], parts[-1], parts[-5], parts[4], *(() + parts)]

    expected = shapes(call(lambda *shape: real(*shape, sizes=EXAMPLES), None))
    assert by_rule(call, EXAMPLES, {}) == expected


X = Float[Tensor, "batch time 3"]


def stacked(self, x: X) -> Float[Tensor, "time//4 batch 4 3"]:
    return torch.stack(x.split(4, 1))


def joined(self, x: X, y: X) -> Float[Tensor, "batch 2*time 3"]:
    return torch.cat(x.split(4, 1) + (y,), 1)


def in_the_batch(self, x: X) -> Float[Tensor, "batch*(time//4) 4 3"]:
    return torch.vstack(x.split(4, 1))


def two(self, x: X) -> Float[Tensor, "batch 4 3"]:
    a, b = x.split(4, 1)
    return a + b


def one_by_one(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "3"]:
    a, b = x
    return a + b


def last(self, x: X) -> Float[Tensor, "batch 4 3"]:
    return x.split(4, 1)[-1]


def ends(self, x: X) -> Float[Tensor, "batch 3"]:
    a, *_, b = x.unbind(1)
    return a + b


def full_piece(self, x: X) -> Float[Tensor, "batch 4 3"]:
    first, *_others = x.split(4, 1)
    return first


def rest(self, x: X) -> Float[Tensor, "batch time-4 3"]:
    return torch.cat(x.split(4, 1)[1:], 1)


def steps(self, x: X) -> Float[Tensor, "time batch 3"]:
    return torch.stack(x.unbind(1))


def halves(self, x: X) -> Float[Tensor, "batch time//2 3"]:
    a, b = x.split(x.shape[1] // 2, 1)
    return a * b


def counted(self, x: X) -> X:
    parts = x.split(4, 1)
    return x if isinstance(parts, tuple) and len(parts[1:3]) == 2 else x[1:]


HOLD = {
    stacked: "time % 4 == 0",
    joined: "True",
    in_the_batch: "time % 4 == 0",
    two: "time in (5, 8)",
    one_by_one: "n == 2",
    last: "time % 4 == 0",
    ends: "time >= 2",
    full_piece: "time >= 4",
    rest: "time >= 5",
    steps: "True",
    halves: "time % 2 == 0",
    counted: "time >= 9",
}


@pytest.mark.parametrize("forward", HOLD, ids=lambda each: each.__name__)
def test_what_holds_of_them_is_found(forward: Any):
    proof = verify(type("Made", (nn.Module,), {"forward": contract(forward)})(), seconds=600)
    assert proof.verdict in ("proven", "holds if", "specialised"), str(proof)
    for sizes in itertools.product(range(1, 40), repeat=1):
        named = {"batch": 2, "time": sizes[0], "n": sizes[0]}
        held = all(eval(text, {}, named) for text in proof.conditions)
        assert held == eval(HOLD[forward], {}, named), (sizes, proof.conditions)


def test_a_loop_over_them_is_not_called_proven():
    def forward(self, x: X) -> X:
        return torch.cat([part * 2 for part in x.split(4, 1)], 1)

    proof = verify(type("Made", (nn.Module,), {"forward": contract(forward)})(), seconds=1.5)
    assert proof.verdict == "not provable"
    assert "pieces of a tensor are taken one by one" in proof.message
    assert verify(type("Made", (nn.Module,), {"forward": contract(forward)})(), where="time <= 12", seconds=600)
