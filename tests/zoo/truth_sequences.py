"""Sequences: what people reported, what public models do, and the same done right."""

import math
from functools import lru_cache

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from truth import Known

from towers.contracts import contract

HUB = "https://github.com/"


class GruView(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 6, batch_first=True)
        self.decoder = nn.Linear(6, 5)

    @contract
    def forward(self, text: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch*time 5"]:
        return self.decoder(self.gru(text)[0].view(-1, 6))


class LearnedPositions(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 32, 8))

    @contract
    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return words + self.table[:, : words.shape[1]]


class PositionIds(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(50, 8), nn.Embedding(20, 8)

    @contract
    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time 8"]:
        places = torch.arange(ids.shape[1]).unsqueeze(0).repeat(ids.shape[0], 1)
        return self.words(ids) * math.sqrt(8) + self.places(places)


class NanoMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.register_buffer("bias", torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8))

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        b, t, c = x.size()
        q, k, v = (layer(x).view(b, t, 2, 4).transpose(1, 2) for layer in (self.query, self.key, self.value))
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
        return (F.softmax(att, dim=-1) @ v).transpose(1, 2).contiguous().view(b, t, c)


class MaskInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 6, bias=False) for _ in range(3))
        self.register_buffer("mask", torch.triu(torch.ones(12, 12), diagonal=1))

    @contract
    def forward(self, x: Float[Tensor, "batch tokens 8"]) -> Float[Tensor, "batch tokens 6"]:
        count = x.shape[1]
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        scores.masked_fill_(self.mask.bool()[:count, :count], -torch.inf)
        return torch.softmax(scores / 6**0.5, dim=-1) @ self.value(x)


class WholeMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.zeros(16, 16))

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return (x @ x.transpose(1, 2) + self.mask).softmax(-1) @ x


class FlashCausal(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        b, t, c = x.size()
        q, k, v = (part.view(b, t, 2, 4).transpose(1, 2) for part in self.qkv(x).split(8, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).contiguous().view(b, t, c))


class LocalWindows(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        w = rearrange(x, "b (n w) d -> b n w d", w=8)
        return rearrange((w @ w.transpose(-1, -2)).softmax(-1) @ w, "b n w d -> b (n w) d")


class LocalWindowsPadded(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        time = x.shape[1]
        w = rearrange(F.pad(x, (0, 0, 0, -time % 8)), "b (n w) d -> b n w d", w=8)
        return rearrange((w @ w.transpose(-1, -2)).softmax(-1) @ w, "b n w d -> b (n w) d")[:, :time]


class AutoCorrelation(nn.Module):
    @contract
    def forward(self, signal: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        spectrum = torch.fft.rfft(signal, dim=-1)
        return torch.fft.irfft(spectrum * torch.conj(spectrum), dim=-1)


class AutoCorrelationWhole(nn.Module):
    @contract
    def forward(self, signal: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        spectrum = torch.fft.rfft(signal, dim=-1)
        return torch.fft.irfft(spectrum * torch.conj(spectrum), n=signal.shape[-1], dim=-1)


class RotateEveryTwo(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
        return x * 0.5 + turned * 0.5


class RotateHalf(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("speed", 1.0 / (10000 ** (torch.arange(0, 8, 2).float() / 8)))

    @contract
    def forward(self, q: Float[Tensor, "batch heads time 8"]) -> Float[Tensor, "batch heads time 8"]:
        angles = torch.outer(torch.arange(q.shape[2]).float(), self.speed)
        both = torch.cat((angles, angles), dim=-1)
        left, right = q.chunk(2, dim=-1)
        return q * both.cos() + torch.cat((-right, left), dim=-1) * both.sin()


class AlibiKept(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = None

    @contract
    def forward(self, scores: Float[Tensor, "batch queries keys"]) -> Float[Tensor, "batch queries keys"]:
        keys = scores.shape[-1]
        if self.bias is None or self.bias.shape[-1] < keys:
            self.bias = -torch.arange(keys).flip(0).float().view(1, 1, keys)
        return scores + self.bias


class AlibiCut(AlibiKept):
    @contract
    def forward(self, scores: Float[Tensor, "batch queries keys"]) -> Float[Tensor, "batch queries keys"]:
        keys = scores.shape[-1]
        if self.bias is None or self.bias.shape[-1] < keys:
            self.bias = -torch.arange(keys).flip(0).float().view(1, 1, keys)
        return scores + self.bias[..., -keys:]


class CrossView(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))

    @contract
    def forward(
        self, hidden: Float[Tensor, "batch queries 8"], states: Float[Tensor, "batch keys 8"]
    ) -> Float[Tensor, "batch queries 8"]:
        shape = (*hidden.shape[:-1], -1, 4)
        q = self.query(hidden).view(shape).transpose(1, 2)
        k, v = (layer(states).view(shape).transpose(1, 2) for layer in (self.key, self.value))
        return (torch.softmax(q @ k.transpose(2, 3), -1) @ v).transpose(1, 2).reshape(*hidden.shape[:-1], -1)


class RelativeShift(nn.Module):
    """The rel_shift of ESPnet's attention, for as many places as the query has."""

    def __init__(self):
        super().__init__()
        self.places = nn.Linear(8, 8)

    @contract
    def forward(
        self, q: Float[Tensor, "batch queries 8"], k: Float[Tensor, "batch keys 8"]
    ) -> Float[Tensor, "batch queries keys"]:
        count = q.shape[1]
        position = torch.linspace(-1, 1, 2 * count - 1).unsqueeze(-1).expand(-1, 8)
        bd = q @ self.places(position).T
        padded = torch.cat([bd.new_zeros(*bd.shape[:2], 1), bd], dim=-1)
        shifted = padded.view(bd.shape[0], bd.shape[2] + 1, bd.shape[1])[:, 1:].view_as(bd)[:, :, :count]
        return q @ k.transpose(1, 2) + shifted


class TopK(nn.Module):
    @contract
    def forward(self, scores: Float[Tensor, "batch time"]) -> Int[Tensor, "batch 16"]:
        return scores.topk(16, dim=-1)[1]


class TopKClamped(nn.Module):
    @contract
    def forward(self, scores: Float[Tensor, "batch time"]) -> Int[Tensor, "batch min(16,time)"]:
        return scores.topk(min(16, scores.shape[-1]), dim=-1)[1]


class TextCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.convs = nn.ModuleList(nn.Conv2d(1, 5, (k, 8)) for k in (2, 3, 4))
        self.fc = nn.Linear(15, 3)

    @contract
    def forward(self, ids: Int[Tensor, "batch words"]) -> Float[Tensor, "batch 3"]:
        x = self.embed(ids).unsqueeze(1)
        x = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        return self.fc(torch.cat([F.max_pool1d(one, one.size(2)).squeeze(2) for one in x], 1))


class SqueezeAll(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(8, 1)

    @contract
    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time"]:
        return self.score(words).squeeze()


class StartIndex(nn.Module):
    @contract
    def forward(self, curves: Float[Tensor, "batch 5 9"]) -> Int[Tensor, "batch 5"]:
        return curves.topk(1, dim=-1)[1].transpose(1, 2).squeeze()


class NormOfOne(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    @contract
    def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 8"]:
        return self.norm(x)


class NormOverTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    @contract
    def forward(self, x: Float[Tensor, "batch 8 time"]) -> Float[Tensor, "batch 8 time"]:
        return self.norm(x)


class ColumnLoss(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 1"], y: Float[Tensor, "batch"]) -> Float[Tensor, "batch 1"]:
        return (x - y).square()


class FlatView(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(4, 8, 3, padding=1), nn.Linear(48, 4)

    @contract
    def forward(self, x: Float[Tensor, "batch 4 time"]) -> Float[Tensor, "batch 4"]:
        return self.fc(self.conv(x).view(-1, 48))


class SoundCodec(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv1d(1, 4, 4, stride=4), nn.ConvTranspose1d(4, 1, 4, stride=4)

    @contract
    def forward(self, sound: Float[Tensor, "batch 1 time"]) -> Float[Tensor, "batch 1 time"]:
        return self.up(self.down(sound))


class SpeechFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 4, 5, 2), nn.Conv1d(4, 4, 3, 2), nn.Conv1d(4, 4, 2, 2))

    @contract
    def forward(self, sound: Float[Tensor, "batch time"]) -> Float[Tensor, "batch 4"]:
        return self.layers(sound.unsqueeze(1)).mean(-1)


class PaddingMaskTurned(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16)

    @contract
    def forward(
        self, x: Float[Tensor, "time batch 8"], mask: Bool[Tensor, "time batch"]
    ) -> Float[Tensor, "time batch 8"]:
        return self.layer(x, src_key_padding_mask=mask)


class PaddingMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.eval()

    @contract
    def forward(
        self, x: Float[Tensor, "batch time 8"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time 8"]:
        return self.layer(x, src_key_padding_mask=mask)


class MaskOfBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return self.layer(x, src_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[0]))


class CausalDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 1)

    @contract
    def forward(
        self, target: Float[Tensor, "batch time 8"], memory: Float[Tensor, "batch words 8"]
    ) -> Float[Tensor, "batch time 8"]:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.layer(target, memory, tgt_mask=mask)


class Chomp(nn.Module):
    """A block of a temporal network: pads on both sides, and bites the end off."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=4, dilation=2)

    @contract
    def forward(self, x: Float[Tensor, "batch 4 time"]) -> Float[Tensor, "batch 4 time"]:
        return x + self.conv(x)[:, :, :-4].contiguous()


class Sinusoids(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        _, time, width = x.shape
        place = torch.arange(time).unsqueeze(1)
        speed = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(time, width)
        table[:, 0::2] = torch.sin(place * speed)
        table[:, 1::2] = torch.cos(place * speed)
        return x + table


class RelativeBuckets(nn.Module):
    """The bias of T5, without its logarithm."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Embedding(9, 2)

    @contract
    def forward(self, scores: Float[Tensor, "batch 2 queries keys"]) -> Float[Tensor, "batch 2 queries keys"]:
        far = torch.arange(scores.shape[3])[None, :] - torch.arange(scores.shape[2])[:, None]
        return scores + self.bias(far.clamp(-4, 4) + 4).permute(2, 0, 1).unsqueeze(0)


class Past(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    @contract
    def forward(
        self, x: Float[Tensor, "batch time 8"], past: Float[Tensor, "batch before 8"]
    ) -> tuple[Float[Tensor, "batch time 8"], Float[Tensor, "batch before+time 8"]]:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        keys = torch.cat([past, k], dim=1)
        values = torch.cat([past, v], dim=1)
        return (q @ keys.transpose(1, 2)).softmax(-1) @ values, keys


class Speech(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, 5)

    @contract
    def forward(self, x: Float[Tensor, "time batch 8"]) -> Float[Tensor, ""]:
        time, batch = x.shape[:2]
        target = torch.ones(batch, 1, dtype=torch.long)
        lengths = torch.full((batch,), time), torch.full((batch,), 1)
        return F.ctc_loss(self.out(x).log_softmax(-1), target, *lengths)


@lru_cache(maxsize=32)
def distances(time: int) -> Tensor:
    return (torch.arange(time)[:, None] - torch.arange(time)[None]).float()


class CachedTable(nn.Module):
    @contract
    def forward(self, scores: Float[Tensor, "batch time time"]) -> Float[Tensor, "batch time time"]:
        return scores - distances(scores.shape[1]).abs()


class Shifted(nn.Module):
    """The loss of a language model."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)

    @contract
    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, ""]:
        logits = self.head(self.embed(ids))
        return F.cross_entropy(logits[:, :-1].reshape(-1, 50), ids[:, 1:].reshape(-1))


class Overlapping(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch (time-4)//2+1 8 4"]:
        return x.unfold(1, 4, 2)


class RolledByHalf(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        half = int(x.shape[1] * 0.5)
        return torch.cat([x[:, half:], x[:, :half]], dim=1)


class CeilHalf(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch (time+1)//2 8"]:
        return x[:, : math.ceil(x.shape[1] / 2)]


class RoundHalf(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch (time+1)//2 8"]:
        return x[:, : round(x.shape[1] / 2)]


KNOWN = [
    Known(GruView, "batch == 1 or time == 1", HUB + "geyang/deep-auto-punctuation/issues/3"),
    Known(LearnedPositions, "time <= 32", HUB + "huggingface/sentence-transformers/issues/929"),
    Known(PositionIds, "time <= 20", HUB + "bentrevett/pytorch-seq2seq/issues/69"),
    Known(NanoMask, "time <= 8", HUB + "karpathy/nanoGPT/issues/473"),
    Known(MaskInPlace, "tokens <= 12", HUB + "rasbt/LLMs-from-scratch/issues/60"),
    Known(WholeMask, "time == 16", HUB + "facebookresearch/xformers/pull/66"),
    Known(FlashCausal, "True", HUB + "karpathy/nanoGPT"),
    Known(LocalWindows, "time % 8 == 0", HUB + "lucidrains/local-attention/issues/21"),
    Known(LocalWindowsPadded, "True", HUB + "lucidrains/local-attention"),
    Known(AutoCorrelation, "time % 2 == 0", HUB + "thuml/Autoformer/issues/133"),
    Known(AutoCorrelationWhole, "True", HUB + "thuml/Autoformer/issues/133"),
    Known(RotateEveryTwo, "width % 2 == 0", HUB + "Jamie-Stirling/RetNet/pull/31"),
    Known(RotateHalf, "True", HUB + "lucidrains/rotary-embedding-torch"),
    Known(AlibiKept, "False", HUB + "lucidrains/x-transformers/pull/90", keeps_state=True),
    Known(AlibiCut, "True", HUB + "lucidrains/x-transformers/pull/90"),
    Known(CrossView, "queries == keys or queries == 2 * keys", HUB + "huggingface/transformers/pull/48356"),
    Known(RelativeShift, "queries == keys or queries == 1", HUB + "espnet/espnet/issues/5886"),
    Known(TopK, "time >= 16", HUB + "NVIDIA-NeMo/Automodel/pull/3035"),
    Known(TopKClamped, "True", HUB + "radixark/miles/pull/1122"),
    Known(TextCNN, "words >= 4", HUB + "allenai/allennlp/issues/5384"),
    Known(SqueezeAll, "batch >= 2 and time >= 2", HUB + "galsang/BiDAF-pytorch/pull/26"),
    Known(StartIndex, "batch >= 2", HUB + "tiangexiang/CurveNet/pull/25"),
    Known(NormOfOne, "batch >= 2", HUB + "pytorch/pytorch/issues/4534"),
    Known(NormOverTime, "batch * time >= 2", HUB + "nikitakaraevv/pointnet/issues/18"),
    Known(ColumnLoss, "batch == 1", HUB + "pytorch/pytorch/issues/16045"),
    Known(FlatView, "time == 6", HUB + "weka511/hpa-scc/issues/38"),
    Known(SoundCodec, "time % 4 == 0", HUB + "wesbz/SoundStream/issues/6"),
    Known(SpeechFeatures, "time >= 13", HUB + "m-bain/whisperX/pull/510"),
    Known(PaddingMaskTurned, "batch == time", HUB + "pytorch/pytorch/issues/25132"),
    Known(PaddingMask, "True"),
    Known(MaskOfBatch, "batch == time", HUB + "pytorch/pytorch/issues/115472"),
    Known(CausalDecoder, "True"),
    Known(Chomp, "True", HUB + "locuslab/TCN"),
    Known(Sinusoids, "width % 2 == 0 or width == 1", HUB + "pytorch/examples"),
    Known(RelativeBuckets, "True", HUB + "google-research/text-to-text-transfer-transformer"),
    Known(Past, "True", HUB + "openai/gpt-2"),
    Known(Speech, "True"),
    Known(CachedTable, "True"),
    Known(Shifted, "True", HUB + "karpathy/nanoGPT"),
    Known(Overlapping, "time >= 4"),
    Known(RolledByHalf, "True"),
    Known(CeilHalf, "True"),
    Known(RoundHalf, "time % 2 == 0 or (time + 1) % 4 == 0"),
]
