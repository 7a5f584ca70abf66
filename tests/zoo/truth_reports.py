"""After public reports of code that fails only at some sizes: the last batch, odd images, short sounds, full caches."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from truth import Known

HUB = "https://github.com/"


class PooledNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Float[Tensor, "batch 2 height width"]) -> Float[Tensor, "batch 2 height//2 width//2"]:
        return self.norm(F.avg_pool2d(x, 2))


class SpatialTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Linear(4, 6)

    def forward(self, x: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
        theta = self.theta(F.adaptive_avg_pool2d(x, 2).flatten(1)).view(-1, 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


class CropToJoin(nn.Module):
    def forward(self, x: Float[Tensor, "batch 2 height width"]) -> Float[Tensor, "batch 4 height width"]:
        y = F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
        dw, dh = (x.size(2) - y.size(2)) // 2, (x.size(3) - y.size(3)) // 2
        return torch.cat((x[:, :, dw : x.size(2) - dw, dh : x.size(3) - dh], y), 1)


class PaddedStrides(nn.Module):
    """Separates sounds of any length: padded to whole strides, then cut."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv1d(1, 2, 8, 4), nn.ConvTranspose1d(2, 1, 8, 4)

    def forward(self, x: Float[Tensor, "batch 1 time"]) -> Float[Tensor, "batch 1 time"]:
        more = max(math.ceil((x.size(-1) - 8) / 4), 0) * 4 + 8 - x.size(-1)
        return self.up(self.down(F.pad(x, (0, more))))[..., : x.size(-1)]


class ReflectedEdges(nn.Module):
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time+14"]:
        return F.pad(x[:, None], (7, 7), mode="reflect")[:, 0]


class SpectralModes(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 2, 5, dtype=torch.cfloat))

    def forward(self, x: Float[Tensor, "batch 2 time"]) -> Float[Tensor, "batch 2 time"]:
        parts = torch.fft.rfft(x)
        out = torch.zeros_like(parts)
        out[:, :, :5] = torch.einsum("bix,iox->box", parts[:, :, :5], self.weight)
        return torch.fft.irfft(out, n=x.size(-1))


class SqueezedWord(nn.Module):
    def __init__(self):
        super().__init__()
        self.context, self.both = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(
        self, x: Float[Tensor, "batch time 4"], y: Float[Tensor, "batch words 4"]
    ) -> Float[Tensor, "batch time words"]:
        both = self.both(x * y[:, :1]).squeeze()
        return self.context(x).expand(-1, -1, y.size(1)) + both[..., None]


class SharedMask(nn.Module):
    """The mask of a batch, beside whole heads: where batch and queries are as many, it goes unnoticed."""

    def forward(
        self, x: Float[Tensor, "batch heads queries keys"], mask: Bool[Tensor, "batch keys"]
    ) -> Float[Tensor, "batch heads queries keys"]:
        return x.masked_fill(mask, -1e9).softmax(-1)


class CachedMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(24, 8))

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x * self.table


class DoubledOnce(nn.Module):
    """A table of places that grows to twice its rows, and no further."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(16, 4))

    def forward(self, x: Float[Tensor, "batch time 4"]) -> Float[Tensor, "batch time 4"]:
        table = self.table if x.size(1) <= 16 else torch.cat([self.table, self.table])
        return x + table[: x.size(1)]


class Queue(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(4, 12))

    def forward(self, keys: Float[Tensor, "batch 4"]) -> Float[Tensor, "4 12"]:
        queue = self.queue.clone()
        queue[:, : keys.shape[0]] = keys.T
        return queue


class OfBothViews(nn.Module):
    def forward(self, x: Float[Tensor, "batch 4"], y: Float[Tensor, "batch 4"]) -> Float[Tensor, "2*batch"]:
        both = torch.cat([x, y])
        return torch.cat([(both @ both.T).diag(x.size(0)), (both @ both.T).diag(-x.size(0))])


class NearestRepeated(nn.Module):
    """Eight neighbours of each node; of fewer points some are taken more than once."""

    def forward(self, points: Float[Tensor, "points 3"], nodes: Float[Tensor, "nodes 3"]) -> Int[Tensor, "nodes 8"]:
        apart = torch.cdist(nodes, points)
        if apart.shape[1] < 8:
            apart = apart.repeat(1, math.ceil(8 / points.shape[0]))
        return apart.topk(8, 1, largest=False)[1]


class BestFive(nn.Module):
    def forward(self, x: Float[Tensor, "batch classes"], y: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
        right = x.topk(5, 1)[1].t().eq(y.view(1, -1))
        return right[:5].view(-1).float().sum(0)


class WithoutHardest(nn.Module):
    def forward(self, x: Float[Tensor, "batch 3"], y: Int[Tensor, "batch"]) -> Float[Tensor, "batch-2"]:
        loss = F.cross_entropy(x, y, reduction="none")
        return loss.topk(x.shape[0] - 2, largest=False)[0]


KNOWN = [
    Known(PooledNorm, "batch * (height // 2) * (width // 2) > 1", HUB + "zhanghang1989/ResNeSt/issues/46"),
    Known(SpatialTransformer, "True"),
    Known(CropToJoin, "height % 2 == 0 and width % 2 == 0", HUB + "hayashimasa/UNet-PyTorch/issues/3"),
    Known(PaddedStrides, "True", HUB + "kwatcharasupat/bandit/issues/8"),
    Known(ReflectedEdges, "time >= 8", HUB + "santi-pdp/pase/issues/95"),
    Known(SpectralModes, "time >= 8", HUB + "thuml/Autoformer/issues/133"),
    Known(SqueezedWord, "time > 1 or batch == 1", HUB + "galsang/BiDAF-pytorch/pull/26"),
    Known(SharedMask, "batch == queries or batch == 1"),
    Known(CachedMask, "time == 24", HUB + "TattaBio/gLM2/pull/3"),
    Known(DoubledOnce, "time <= 32", HUB + "OpenNMT/OpenNMT-py/pull/2561"),
    Known(Queue, "batch <= 12", HUB + "facebookresearch/moco/pull/100"),
    Known(OfBothViews, "True"),
    Known(NearestRepeated, "True", HUB + "qinzheng93/GeoTransformer/issues/59"),
    Known(BestFive, "batch == 1 and classes >= 5", HUB + "lukemelas/EfficientNet-PyTorch/issues/259"),
    Known(WithoutHardest, "batch >= 2", HUB + "pytorch/pytorch/issues/51413"),
]
