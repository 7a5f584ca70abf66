"""Rules for changes of axes, parts and products beside real operations, in random chains: shapes and where they lie."""

import random
from collections.abc import Callable

import pytest
import torch
from tests.contracts.proofs.test_image_rules import Chain, Do, on_symbols, outermost_first
from tests.contracts.proofs.test_rules import real
from torch import Tensor
from torch.nn import functional as F

Step = Callable[[Tensor], Tensor]

COUNT = 60


def steps(choose: random.Random, width: int) -> dict[str, Step]:
    """Operations on (batch, time, heads * width) and (batch, heads, time, width), which give one or the other."""
    order = choose.sample(range(4), 4)
    three = choose.choice([0, 1, 2])
    return {
        "split": lambda x: x.view(x.shape[0], -1, 2, width) if x.dim() == 3 else x,
        "turn": lambda x: x.transpose(1, 2),
        "permute": lambda x: x.permute(*[at for at in order if at < x.dim()]),
        "join": lambda x: x.reshape(x.shape[0], x.shape[1], -1) if x.dim() == 4 else x,
        "join two": lambda x: x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:]),
        "flatten": lambda x: x.flatten(1, 2) if x.dim() == 4 else x,
        "flatten all": lambda x: x.flatten(0, 1),
        "chunk": lambda x: x.split(1, -1)[0],
        "row": lambda x: torch.stack([x, x, x]).unbind(0)[three],
        "of three": lambda x: x.reshape(*x.shape[:-1], 1, x.shape[-1]).permute(x.dim() - 1, *range(x.dim() - 1), -1)[0],
        "twice": lambda x: torch.cat([x, x], 1),
        "after nothing": lambda x: torch.cat([torch.tensor([]), x], -2),
        "wider": lambda x: x[:, None][:, 0] + 1,
        "roll": lambda x: torch.roll(x, (1, -2), (1, 2)),
        "power": lambda x: x.pow(2) * 0.5,
        "prelu": lambda x: F.prelu(x, torch.ones(1)),
        "fill": lambda x: x.masked_fill(torch.ones(1, dtype=torch.bool), 0.0),
        "add": lambda x: x + torch.ones(x.shape[-1]),
        "sum": lambda x: x + x.contiguous(),
        "heads": lambda x: torch.einsum("b h i d, b h j d -> b h i j", x, x) if x.dim() == 4 else x,
        "other heads": lambda x: torch.einsum("bihd,bjhd->bhij", x, x) if x.dim() == 4 else x,
        "values": lambda x: torch.einsum("bthd,bshd->tbsh", x, x.relu()) if x.dim() == 4 else x,
        "attention": lambda x: F.scaled_dot_product_attention(x, x, x) if x.dim() == 4 else x,
        "pad": lambda x: F.pad(x, (1, 2) * (x.dim() - 2), mode="replicate") if x.dim() < 5 else x,
        "addmm": _affine,
    }


def _affine(x: Tensor) -> Tensor:
    rows, width = x.reshape(-1, x.shape[-1]), x.shape[-1]
    return torch.addmm(torch.ones(width), rows, torch.ones(width, width)).view(x.shape)


def test_chains_of_axes_and_products():
    """Each result has the shape of the real one, and lies as it does."""
    done = known = 0
    for seed in range(COUNT):
        choose = random.Random(seed)
        width = choose.randint(2, 3)
        sizes = {"batch": choose.randint(2, 4), "time": choose.randint(2, 5)}
        names = choose.choices(list(steps(choose, width)), k=5)
        chain = Chain([Do(name, steps(choose, width)[name]) for name in ("split", *names)])
        try:
            expected = chain(_turned(real("batch", 2 * width, "time", sizes=sizes)))
            found = on_symbols(torch.nn.Sequential(Do("turn", _turned), chain), 2 * width, sizes)
        except (RuntimeError, IndexError, ValueError):
            continue
        for came, result in zip(found, expected, strict=False):
            assert came[0] == list(result.shape), (seed, chain)
            if all(size > 1 for size in result.shape):
                assert came[1] == outermost_first(result.stride()), (seed, chain)
                known += 1
        done += bool(found)
    assert done > COUNT // 3
    assert known > COUNT


def _turned(x: Tensor) -> Tensor:
    """From (batch, channels, time), in which the harness makes its input, to (batch, time, channels), contiguous."""
    return x.transpose(1, 2).contiguous()


@pytest.mark.parametrize("size", [1, 2])
def test_a_join_of_doubtful_axes_is_left_to_torch(size: int):
    """Where an axis is 1 a reshape is a view that need not be contiguous: so its layout is not claimed."""

    def join(x: Tensor) -> Tensor:
        turned = x.permute(2, 0, 1, 3)
        return turned.reshape(turned.shape[0] * turned.shape[1], *turned.shape[2:])

    sizes = {"batch": 2, "height": 3, "width": 3}
    [(shape, lies)] = on_symbols(torch.nn.Sequential(Do("join", join), Do("list", lambda x: [x])), size, sizes)
    result = join(real("batch", size, "height", "width", sizes=sizes))
    assert shape == list(result.shape)
    assert lies == outermost_first(result.stride()) or min(shape) == 1
