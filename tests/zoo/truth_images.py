"""Images and signals: pyramids, windows, patches, pooling."""

import torch
from einops import rearrange
from einops.layers.torch import Rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from truth import Known

from towers.contracts import contract

HUB = "https://github.com/"


class WindowsOfTwo(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        h, w = x.shape[2] // 2, x.shape[3] // 2
        y = rearrange(x, "b d (h ph) (w pw) -> b (ph pw) (h w) d", ph=2, pw=2)
        return rearrange(y.relu(), "b (ph pw) (h w) d -> b d (h ph) (w pw)", h=h, w=w, ph=2, pw=2)


class Unshuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.PixelUnshuffle(4)

    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 48 height//4 width//4"]:
        return self.layer(x)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 2), (2, 2), (2, 2)))
        self.up2, self.up1 = nn.ConvTranspose2d(2, 2, 2, 2), nn.ConvTranspose2d(4, 2, 2, 2)
        self.last = nn.Conv2d(4, 1, 1)

    @contract
    def forward(self, x: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
        one = self.first(x)
        two = self.second(F.max_pool2d(one, 2))
        three = self.third(F.max_pool2d(two, 2))
        y = torch.cat([self.up2(three), two], dim=1)
        return self.last(torch.cat([self.up1(y), one], dim=1))


class UNetPadded(UNet):
    def join(self, small: Tensor, large: Tensor) -> Tensor:
        high, wide = large.size(2) - small.size(2), large.size(3) - small.size(3)
        small = F.pad(small, [wide // 2, wide - wide // 2, high // 2, high - high // 2])
        return torch.cat([large, small], dim=1)

    @contract
    def forward(self, x: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
        one = self.first(x)
        two = self.second(F.max_pool2d(one, 2))
        three = self.third(F.max_pool2d(two, 2))
        return self.last(self.join(self.up1(self.join(self.up2(three), two)), one))


class UNetLine(nn.Module):
    """In one dimension, three levels deep, by interpolation."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(a, 4, 3, padding=1) for a in (2, 4, 4))
        self.ups = nn.ModuleList(nn.Conv1d(4, 4, 3, padding=1) for _ in range(3))

    @contract
    def forward(self, x: Float[Tensor, "batch 2 time"]) -> Float[Tensor, "batch 4 time"]:
        skips = []
        for conv in self.convs:
            x = conv(x)
            skips.append(x)
            x = F.avg_pool1d(x, 2)
        for up in self.ups:
            x = up(F.interpolate(x, scale_factor=2)) + skips.pop()
        return x


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.lateral, self.down = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, stride=2, padding=1)

    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 4 height width"]:
        return self.lateral(x) + F.interpolate(self.down(x), scale_factor=2, mode="nearest")


class PyramidToSize(Pyramid):
    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 4 height width"]:
        large = self.lateral(x)
        return large + F.interpolate(self.down(x), size=large.shape[2:], mode="nearest")


class ToSixtyFour(nn.Module):
    """Scales to 64 by a factor, which floating point makes one too small at some heights."""

    @contract
    def forward(self, x: Float[Tensor, "batch 1 height"]) -> Float[Tensor, "batch 1 64"]:
        return F.interpolate(x, scale_factor=64.0 / x.shape[2], mode="linear")


class Third(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 1 time"]) -> Float[Tensor, "batch 1 time"]:
        return F.interpolate(F.interpolate(x, scale_factor=1 / 3), scale_factor=3.0)


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, 4)
        self.cls, self.places = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 17, 8))

    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 17 8"]:
        x = self.cut(x).flatten(2).transpose(1, 2)
        return torch.cat((self.cls.expand(x.shape[0], -1, -1), x), dim=1) + self.places


class PatchesAsserted(nn.Module):
    def __init__(self):
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, 4)

    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 16 8"]:
        _, _, height, width = x.shape
        assert (height, width) == (16, 16), f"Input image size ({height}*{width}) doesn't match model (16*16)."
        return self.cut(x).flatten(2).transpose(1, 2)


class PatchesOfEinops(nn.Module):
    def __init__(self):
        super().__init__()
        self.cut = nn.Sequential(Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=4, q=4), nn.Linear(48, 8))

    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch (height//4)*(width//4) 8"]:
        return self.cut(x)


class ChannelShuffle(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch channels side side"]) -> Float[Tensor, "batch channels side side"]:
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return x.view(batch, channels, height, width)


class ChannelsLastView(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3*height*width"]:
        return x.permute(0, 3, 1, 2).view(x.size(0), -1)


class Excite(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.down, self.up = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    @contract
    def forward(self, x: Float[Tensor, "batch 8 height width"]) -> Float[Tensor, "batch 8 height width"]:
        return x * self.up(self.down(self.pool(x)).relu()).sigmoid()


class Ghost(nn.Module):
    def __init__(self):
        super().__init__()
        self.primary, self.cheap = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 3, padding=1, groups=5)

    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 9 height width"]:
        one = self.primary(x)
        return torch.cat([one, self.cheap(one)], dim=1)[:, :9]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.side, self.norm = nn.Conv2d(3, 6, 1, 2), nn.BatchNorm2d(6)
        self.eval()

    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 6 (height+1)//2 (width+1)//2"]:
        return self.norm(self.two(self.one(x).relu())) + self.side(x)


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(1, 3, 5), nn.Conv2d(3, 4, 5), nn.Linear(64, 10)

    @contract
    def forward(self, x: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch 10"]:
        x = F.max_pool2d(self.one(x).relu(), 2)
        x = F.max_pool2d(self.two(x).relu(), 2)
        return self.fc(torch.flatten(x, 1))


class SpatialPyramid(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 63"]:
        return torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in (4, 2, 1)], dim=1)


class UnfoldFold(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        columns = F.unfold(x, 2, stride=2)
        return F.fold(columns, x.shape[2:], 2, stride=2)


class Unpool(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        small, where = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(small, where, 2)


class UnpoolToSize(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 3 time"]) -> Float[Tensor, "batch 3 time"]:
        small, where = F.max_pool1d(x, 2, return_indices=True)
        return F.max_unpool1d(small, where, 2, output_size=list(x.shape[2:]))


class Reflect(nn.Module):
    def __init__(self):
        super().__init__()
        self.pad, self.conv = nn.ReflectionPad1d(3), nn.Conv1d(2, 2, 7)

    @contract
    def forward(self, x: Float[Tensor, "batch 2 time"]) -> Float[Tensor, "batch 2 time"]:
        return self.conv(self.pad(x))


class Circular(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 5, padding=2, padding_mode="circular")

    @contract
    def forward(self, x: Float[Tensor, "batch 2 time"]) -> Float[Tensor, "batch 2 time"]:
        return self.conv(x)


class EvenKernel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 4, padding=2)

    @contract
    def forward(self, x: Float[Tensor, "batch 2 time"]) -> Float[Tensor, "batch 2 time"]:
        return self.conv(x)


class SameKernel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 4, padding="same", dilation=3)

    @contract
    def forward(self, x: Float[Tensor, "batch 2 time"]) -> Float[Tensor, "batch 2 time"]:
        return self.conv(x)


class CeilPool(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 2 time"]) -> Float[Tensor, "batch 2 (time+2)//3"]:
        return F.max_pool1d(x, 3, ceil_mode=True)


class CoarseGrid(nn.Module):
    """A grid of coordinates beside the channels (CoordConv)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(5, 4, 1)

    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 4 height width"]:
        b, _, h, w = x.shape
        y, z = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        return self.conv(torch.cat([x, torch.stack([y, z]).expand(b, -1, -1, -1)], dim=1))


class CoarseGridTurned(CoarseGrid):
    @contract
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 4 height width"]:
        b, _, h, w = x.shape
        y, z = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="xy")
        return self.conv(torch.cat([x, torch.stack([y, z]).expand(b, -1, -1, -1)], dim=1))


class SwinWindows(nn.Module):
    """Windows of 4, with padding, moved by 2 and moved back."""

    @contract
    def forward(self, x: Float[Tensor, "batch height width 6"]) -> Float[Tensor, "batch height width 6"]:
        b, h, w, c = x.shape
        y = F.pad(x, (0, 0, 0, (4 - w % 4) % 4, 0, (4 - h % 4) % 4))
        _, high, wide, _ = y.shape
        y = torch.roll(y, (-2, -2), dims=(1, 2))
        y = y.view(b, high // 4, 4, wide // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = (y @ y.transpose(1, 2)).softmax(-1) @ y
        y = y.view(b, high // 4, wide // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, high, wide, c)
        return torch.roll(y, (2, 2), dims=(1, 2))[:, :h, :w, :].contiguous()


class SwinWindowsBare(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch height width 6"]) -> Float[Tensor, "batch height width 6"]:
        b, h, w, c = x.shape
        y = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = (y @ y.transpose(1, 2)).softmax(-1) @ y
        return y.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)


class MergePatches(nn.Module):
    def __init__(self):
        super().__init__()
        self.reduce = nn.Linear(24, 12)

    @contract
    def forward(self, x: Float[Tensor, "batch height width 6"]) -> Float[Tensor, "batch (height+1)//2 (width+1)//2 12"]:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduce(torch.cat(corners, -1))


class MergePatchesBare(MergePatches):
    @contract
    def forward(self, x: Float[Tensor, "batch height width 6"]) -> Float[Tensor, "batch height//2 width//2 12"]:
        return self.reduce(torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1))


class Spectrogram(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))

    @contract
    def forward(self, sound: Float[Tensor, "batch time"]) -> Float[Tensor, "batch 9 time//4+1"]:
        return torch.stft(sound, 16, 4, window=self.window, return_complex=True).abs()


class ToCommonSize(nn.Module):
    @contract
    def forward(
        self, x: Float[Tensor, "batch time 4"], y: Float[Tensor, "batch words 4"]
    ) -> Float[Tensor, "batch min(time,words) 4"]:
        least = min(x.shape[1], y.shape[1])
        return x[:, :least] + y[:, :least]


class GroupsFree(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch channels time"]:
        return F.group_norm(x, 4)


class InstanceFree(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm1d(4)

    @contract
    def forward(self, x: Float[Tensor, "batch 4 time"]) -> Float[Tensor, "batch 4 time"]:
        return self.norm(x)


KNOWN = [
    Known(WindowsOfTwo, "height % 2 == 0 and width % 2 == 0", HUB + "chinhsuanwu/mobilevit-pytorch/issues/8"),
    Known(Unshuffle, "height % 4 == 0 and width % 4 == 0", HUB + "lllyasviel/ControlNet/issues/533"),
    Known(UNet, "height % 4 == 0 and width % 4 == 0", HUB + "ptrblck/pytorch_misc/issues/2"),
    Known(UNetPadded, "height >= 4 and width >= 4", HUB + "milesial/Pytorch-UNet/issues/32"),
    Known(UNetLine, "time % 8 == 0", HUB + "bigmb/Unet-Segmentation-Pytorch-Nest-of-Unets/issues/55"),
    Known(Pyramid, "height % 2 == 0 and width % 2 == 0", HUB + "open-mmlab/mmdetection/pull/2157"),
    Known(PyramidToSize, "True", HUB + "open-mmlab/mmdetection/pull/2157"),
    Known(ToSixtyFour, "floor(height * (64.0 / height)) == 64", HUB + "richzhang/PerceptualSimilarity/issues/51"),
    Known(Third, "floor(time * (1 / 3)) * 3 == time", HUB + "pytorch/pytorch/issues/71877"),
    Known(Patches, "(height // 4) * (width // 4) == 16", HUB + "jeonsworld/ViT-pytorch/issues/3"),
    Known(PatchesAsserted, "height == 16 and width == 16", HUB + "huggingface/pytorch-image-models/issues/597"),
    Known(PatchesOfEinops, "height % 4 == 0 and width % 4 == 0", HUB + "lucidrains/vit-pytorch"),
    Known(ChannelShuffle, "channels % 2 == 0", HUB + "jaxony/ShuffleNet/issues/5"),
    Known(ChannelsLastView, "height * width == 1", HUB + "sergeywong/cp-vton/issues/30"),
    Known(Excite, "True", HUB + "pytorch/vision"),
    Known(Ghost, "True", HUB + "huawei-noah/ghostnet"),
    Known(Residual, "True", HUB + "pytorch/vision"),
    Known(LeNet, "28 <= side <= 31", HUB + "pytorch/examples"),
    Known(SpatialPyramid, "True"),
    Known(UnfoldFold, "height >= 2 and width >= 2"),
    Known(Unpool, "height % 2 == 0 and width % 2 == 0", HUB + "meetps/pytorch-semseg/issues/231"),
    Known(UnpoolToSize, "time >= 2"),
    Known(Reflect, "time >= 4"),
    Known(Circular, "time >= 2"),
    Known(EvenKernel, "False"),
    Known(SameKernel, "True"),
    Known(CeilPool, "True"),
    Known(CoarseGrid, "True", HUB + "mkocabas/CoordConv-pytorch"),
    Known(CoarseGridTurned, "height == width", HUB + "mkocabas/CoordConv-pytorch"),
    Known(SwinWindows, "True", HUB + "microsoft/Swin-Transformer"),
    Known(SwinWindowsBare, "height % 4 == 0 and width % 4 == 0", HUB + "microsoft/Swin-Transformer/issues/296"),
    Known(MergePatches, "True", HUB + "pytorch/vision"),
    Known(MergePatchesBare, "height % 2 == 0 and width % 2 == 0", HUB + "microsoft/Swin-Transformer"),
    Known(Spectrogram, "time >= 9"),
    Known(ToCommonSize, "True"),
    Known(GroupsFree, "channels % 4 == 0 and not (batch * time == 1 and channels == 4)"),
    Known(InstanceFree, "time >= 2"),
]
