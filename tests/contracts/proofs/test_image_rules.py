"""Rules for layers that keep shapes and for images, beside real layers: random chains, and where each result lies."""

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from tests.contracts.proofs.test_rules import real
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from towers.contracts.proofs.copies import Emptied
from towers.contracts.proofs.fast_meta import lying
from towers.contracts.proofs.ranges import Span
from towers.contracts.proofs.shape_rules import Rules
from towers.contracts.proofs.symbols import Symbols

COUNT = 20


class Do(nn.Module):
    """A function with a name, as a layer."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def extra_repr(self) -> str:
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def layer(choose: random.Random, channels: int, count: int) -> nn.Module:
    """One layer that a batch with so many channels and axes can pass, or a change of axes."""
    kernel, stride, padding = choose.randint(1, 3), choose.randint(1, 3), choose.randint(0, 2)
    dims = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}
    conv, turned = dims[count]
    named = {name: getattr(F, f"{name}{count}d") for name in ("max_pool", "avg_pool", "adaptive_avg_pool")}
    groups, factor, joined = choose.choice([1, channels]), choose.randint(1, 3), choose.randint(0, count + 1)
    sides = choose.choice([(1, 2), (-1, 2), (-1, 0)]) * choose.randint(1, count)
    layers: list[nn.Module] = [
        conv(channels, channels, kernel, stride, padding, choose.randint(1, 2), groups, choose.random() < 0.5),
        conv(channels, channels, kernel, padding="same"),
        turned(channels, channels, kernel, stride, 0, choose.randint(0, stride - 1), groups),
        Do(
            "named['avg_pool'](x, kernel, stride, min(padding, kernel // ",
            lambda x: named["avg_pool"](x, kernel, stride, min(padding, kernel // 2)),
        ),
        Do(
            "named['max_pool'](x, kernel, stride, min(padding, kernel // ",
            lambda x: named["max_pool"](x, kernel, stride, min(padding, kernel // 2)),
        ),
        Do("named['adaptive_avg_pool'](x, kernel)", lambda x: named["adaptive_avg_pool"](x, kernel)),
        getattr(nn, f"BatchNorm{count}d")(channels).eval(),
        getattr(nn, f"InstanceNorm{count}d")(channels),
        nn.GroupNorm(1, channels),
        choose.choice(
            [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.Sigmoid(), nn.LeakyReLU(), nn.Dropout(), nn.ELU()]
        ),
        choose.choice([nn.ReLU(inplace=True), nn.Hardtanh(inplace=True), nn.Dropout(0.5).eval()]),
        Do("F.pad(x, sides)", lambda x: F.pad(x, sides)),
        Do(
            "F.fold(F.unfold(x, kernel, stride=stride), x.shape[2:], kernel, stride=stride)",
            lambda x: (
                F.fold(F.unfold(x, kernel, stride=stride), x.shape[2:], kernel, stride=stride) if count == 2 else x
            ),
        ),
        Do("F.interpolate(x, scale_factor=factor)", lambda x: F.interpolate(x, scale_factor=factor)),
        Do("x + x", lambda x: x + x * 2 - 1),
        Do("x / torch.ones(channels, *[1] * count)", lambda x: x / torch.ones(channels, *[1] * count)),
        Do("torch.cat([x, x.relu()], joined)[:, :channels]", lambda x: torch.cat([x, x.relu()], joined)[:, :channels]),
        Do("x[:, :channels].chunk(1, 1)[0]", lambda x: x[:, :channels].chunk(1, 1)[0]),
        Do("x.transpose(-1, -2).contiguous()", lambda x: x.transpose(-1, -2).contiguous()),
        Do(
            "x.permute(0, *range(2, count + 2), 1).contiguous().permute(0",
            lambda x: x.permute(0, *range(2, count + 2), 1).contiguous().permute(0, count + 1, *range(1, count + 1)),
        ),
    ]
    return choose.choice(layers if count == 2 else layers[:-1])  # the last one makes channels the last axis


class Chain(nn.ModuleList):
    """Layers in turn; the result of each is returned."""

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [x]
        for each in self:
            found.append(each(found[-1]))
        return found


def on_symbols(module: nn.Module, channels: int, sizes: dict[str, int]) -> list[tuple[list[int], list[int]]]:
    """The shape of each result at some sizes, and its axes from the outermost inwards; none where torch has asked."""
    symbols = Symbols({name: Span(2) for name in sizes}, lambda: "", lambda found: True)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    fake.shape_env, fake.cache_enabled = symbols.env, False
    symbols.env.look_up()
    twin = Emptied(module, fake).copy()
    axes = {symbols.axes[name]: size for name, size in sizes.items()}

    def number(size: Any) -> int:
        return size if isinstance(size, int) else int(symbols.in_axes(size.node.expr).xreplace(axes))

    with fake, Rules(symbols):
        first, *rest = symbols.sizes.values()
        results = twin(torch.empty(first, channels, *rest))
        if not all(guard.relation.xreplace(axes) for guard in symbols.guards()):
            return []  # it is so for the examples that the symbols have
        lies = [lying(result) or outermost_first(map(number, result.stride())) for result in results]
        return [(list(map(number, result.shape)), list(lie)) for result, lie in zip(results, lies, strict=True)]


def outermost_first(strides: Iterable[int]) -> list[int]:
    numbers = list(strides)
    return sorted(range(len(numbers)), key=lambda axis: -numbers[axis])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_chains_of_layers(count: int):
    """Shapes are the real ones, and a result lies contiguously or with its channels last where the real one does."""
    done = 0
    for seed in range(COUNT):
        choose = random.Random(seed + 1000 * count)
        torch.manual_seed(seed)
        channels = choose.randint(2, 4)
        sizes = {name: choose.randint(2, 9) for name in ("batch", *("length", "height", "depth")[:count])}
        chain = Chain([layer(choose, channels, count) for _ in range(4)])
        try:
            expected = chain(real("batch", channels, *list(sizes)[1:], sizes=sizes))
        except (RuntimeError, ValueError):
            continue
        found = on_symbols(chain, channels, sizes)
        done += bool(found)
        for came, result in zip(found, expected, strict=False):
            assert came[0] == list(result.shape), chain
            if all(size > 1 for size in result.shape):
                assert came[1] == outermost_first(result.stride()), chain
    assert done > COUNT // 3
