"""A recogniser of spoken words in the style of public PyTorch code, checked by jaxtyping and beartype.

Nothing of towers is in here: `test_moving_in.py` moves this file over to `towers.contracts` and compares.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from beartype import beartype
from jaxtyping import Bool, Float, Int, jaxtyped
from torch import Tensor


@jaxtyped(typechecker=beartype)
def compress(power: Float[Tensor, "batch mel time"], floor: float = 1e-5) -> Float[Tensor, "batch mel time"]:
    return power.clamp(min=floor).log10()


@jaxtyped(typechecker=beartype)
def length_mask(lengths: Int[Tensor, "batch"], time: int) -> Bool[Tensor, "batch {time}"]:
    return torch.arange(time, device=lengths.device) < lengths[:, None]


@jaxtyped(typechecker=beartype)
def rotate(x: Float[Tensor, "batch heads time width"]) -> Float[Tensor, "batch heads time width"]:
    """Rotary positions (Su et al., 2021)."""
    half = x.shape[-1] // 2
    speed = torch.exp(-math.log(10_000) * torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.shape[2], device=x.device)[:, None] * speed
    first, second = x[..., :half], x[..., half:]
    return torch.cat(
        [first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], dim=-1
    ).to(x.dtype)


@jaxtyped(typechecker=beartype)
def attend(
    query: Float[Tensor, "batch heads time width"],
    key: Float[Tensor, "batch heads source width"],
    value: Float[Tensor, "batch heads source width"],
    mask: Bool[Tensor, "#batch #heads #time source"] | None = None,
) -> Float[Tensor, "batch heads time width"]:
    score = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        score = score.masked_fill(~mask, -1e4)
    return score.softmax(-1) @ value


class Stem(nn.Module):
    """Two convolutions over time, the second with stride 2 (as in Whisper's encoder)."""

    def __init__(self, mel: int, width: int):
        super().__init__()
        self.mel, self.width = mel, width
        self.conv1 = nn.Conv1d(mel, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)

    @jaxtyped(typechecker=beartype)
    def forward(self, x: Float[Tensor, "batch {self.mel} time"]) -> Float[Tensor, "batch (time+1)//2 {self.width}"]:
        return F.gelu(self.conv2(F.gelu(self.conv1(x)))).transpose(1, 2)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        assert width % heads == 0
        self.width, self.heads = width, heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    @jaxtyped(typechecker=beartype)
    def split(self, x: Float[Tensor, "batch time {self.width}"]) -> Float[Tensor, "batch {self.heads} time _"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @jaxtyped(typechecker=beartype)
    def forward(
        self, x: Float[Tensor, "batch time {self.width}"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time {self.width}"]:
        query, key, value = (self.split(part) for part in self.qkv(x).chunk(3, dim=-1))
        wide = None if mask is None else mask[:, None, None, :]
        y = attend(rotate(query), rotate(key), value, wide)
        return self.out(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.net = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    @jaxtyped(typechecker=beartype)
    def forward(self, x: Float[Tensor, "*lead {self.width}"]) -> Float[Tensor, "*lead {self.width}"]:
        return self.net(x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.width = width
        self.attention, self.feed = SelfAttention(width, heads), FeedForward(width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    @jaxtyped(typechecker=beartype)
    def forward(
        self, x: Float[Tensor, "batch time {self.width}"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time {self.width}"]:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.feed(self.norm2(x))


class Encoder(nn.Module):
    """The convolutions and the attention: what torch can compile and export whole."""

    def __init__(self, mel: int = 6, width: int = 8, heads: int = 2, layers: int = 2):
        super().__init__()
        self.mel, self.width = mel, width
        self.stem = Stem(mel, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])

    @jaxtyped(typechecker=beartype)
    def forward(
        self, power: Float[Tensor, "batch {self.mel} time"], lengths: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch (time+1)//2 {self.width}"]:
        x = self.stem(compress(power))
        mask = None if lengths is None else length_mask((lengths + 1) // 2, x.shape[1])
        for block in self.blocks:
            x = block(x, mask)
        return x


class Recogniser(nn.Module):
    """The encoder, a GRU over its output, and the class of the last state."""

    def __init__(self, classes: int = 5, hidden: int = 7, **sizes: int):
        super().__init__()
        self.encoder = Encoder(**sizes)
        self.classes, self.hidden = classes, hidden
        self.gru = nn.GRU(self.encoder.width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    @jaxtyped(typechecker=beartype)
    def recur(
        self,
        x: Float[Tensor, "batch time {self.encoder.width}"],
        state: Float[Tensor, "1 batch {self.hidden}"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.hidden}"], Float[Tensor, "1 batch {self.hidden}"]]:
        return self.gru(x, state)

    @jaxtyped(typechecker=beartype)
    def forward(
        self, power: Float[Tensor, "batch {self.encoder.mel} time"], lengths: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch {self.classes}"]:
        _, last = self.recur(self.encoder(power, lengths))
        return self.head(last[0])


@jaxtyped(typechecker=beartype)
def loss(
    logits: Float[Tensor, "batch classes"], target: Int[Tensor, "batch"], weight: Float[Tensor, "classes"] | None = None
) -> Float[Tensor, ""]:
    return F.cross_entropy(logits, target, weight)
