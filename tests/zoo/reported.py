"""Faults that people reported in public, each in a small module, and sound modules that do the same things right."""

import torch
from jaxtyping import Bool, Float, Int
from specimen import Specimen
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from towers import Tower

# Packing: the output is as long as the longest sentence, which need not be the padded length.


class PackedEncoder(nn.Module):
    WHERE = ("1 <= lengths <= time",)

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: Float[Tensor, "batch time 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "batch time 6"]:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return output


class PackedEncoderWhole(PackedEncoder):
    def forward(self, x: Float[Tensor, "batch time 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "batch time 6"]:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return output


class PackedResidual(nn.Module):
    WHERE = ("1 <= lengths <= time",)

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 4, bidirectional=True)

    def forward(self, x: Float[Tensor, "time batch 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "time batch 8"]:
        packed = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
        output, _ = pad_packed_sequence(self.gru(packed)[0])
        return x + output


class PackedLast(nn.Module):
    WHERE = ("1 <= lengths <= time",)

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 4, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: Float[Tensor, "batch time 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "batch 8"]:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, hidden = self.gru(packed)
        return torch.cat([hidden[-2], hidden[-1]], dim=1)


# squeeze: it takes every axis of 1, a batch of one sentence among them.


class SentimentRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 6, bidirectional=True)
        self.fc = nn.Linear(12, 1)

    def forward(self, embedded: Float[Tensor, "time batch 8"]) -> Float[Tensor, "batch 1"]:
        _, (hidden, _) = self.rnn(embedded)
        hidden = torch.cat((hidden[-2], hidden[-1]), dim=1)
        return self.fc(hidden.squeeze(0))


class PooledFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 6"]:
        return torch.squeeze(F.adaptive_avg_pool2d(self.conv(images), 1))


class PooledFeaturesFlat(PooledFeatures):
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 6"]:
        return F.adaptive_avg_pool2d(self.conv(images), 1).flatten(1)


# batch_first.


class SimpleEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.lstm = nn.LSTM(8, 6)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch 6"]:
        _, (hidden, _) = self.lstm(self.embed(tokens))
        return hidden[-1]


class SimpleEncoderBatchFirst(SimpleEncoder):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, batch_first=True)


class HiddenIsNotBatchFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, num_layers=2, batch_first=True)

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 6"]:
        _, (hidden, _) = self.lstm(x)
        return hidden[:, -1]


class AttentionWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Float[Tensor, "batch time 8"]) -> tuple[
        Float[Tensor, "batch time 8"], Float[Tensor, "batch time time"]
    ]:  # fmt: skip
        return self.attention(x, x, x)


class AttentionWeightsBatchFirst(AttentionWeights):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)


class DecoderWithView(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 6"]:
        output, _ = self.lstm(x.reshape(x.shape[1], x.shape[0], 8))
        return output


# Widths of recurrent layers.


class SentenceProbabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 6, bidirectional=True, batch_first=True)
        self.score = nn.Linear(6, 1)

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 1"]:
        hidden, _ = self.gru(x)
        return torch.softmax(self.score(hidden), dim=1)


class LastOfTheWrongAxis(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(8, 6, batch_first=True)
        self.decoder = nn.Linear(6, 1)

    def forward(self, encoded: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch"]:
        output, _ = self.rnn(encoded)
        return self.decoder(output[:, :, -1]).squeeze(-1)


class LastStep(LastOfTheWrongAxis):
    def forward(self, encoded: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch"]:
        output, _ = self.rnn(encoded)
        return self.decoder(output[:, -1, :]).squeeze(-1)


class FinalStateView(nn.Module):
    """`view(-1, …)` makes two rows of each sentence, one for a direction."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, bidirectional=True, batch_first=True)

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 6 1"]:
        _, (state, _) = self.lstm(x)
        return state.view(-1, 6, 1)


class HiddenOfAFixedBatch(nn.Module):
    def __init__(self, batch_size: int = 4):
        super().__init__()
        self.batch_size = batch_size
        self.lstm = nn.LSTM(8, 6)

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 6"]:
        start = torch.zeros(1, self.batch_size, 6)
        _, (hidden, _) = self.lstm(x.permute(1, 0, 2), (start, start))
        return hidden[-1]


class HiddenOfAnyBatch(HiddenOfAFixedBatch):
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 6"]:
        start = torch.zeros(1, x.shape[0], 6)
        _, (hidden, _) = self.lstm(x.permute(1, 0, 2), (start, start))
        return hidden[-1]


# Odd lengths.


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 2 height width"]:
        skip = self.down(images)
        return self.out(torch.cat([skip, self.up(F.max_pool2d(skip, 2))], dim=1))


class UNetNarrowed(UNet):
    WHERE = ("height % 2 == 0", "width % 2 == 0")


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(4, 4, 3, stride=2, padding=1)

    def forward(self, features: Float[Tensor, "batch 4 height width"]) -> Float[Tensor, "batch 4 height width"]:
        return features + F.interpolate(self.down(features), scale_factor=2, mode="nearest")


class PyramidToSize(Pyramid):
    def forward(self, features: Float[Tensor, "batch 4 height width"]) -> Float[Tensor, "batch 4 height width"]:
        return features + F.interpolate(self.down(features), size=features.shape[2:], mode="nearest")


class HeartbeatBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, stride=2, padding=1)

    def forward(self, signal: Float[Tensor, "batch 4 time"]) -> Float[Tensor, "batch 4 (time+1)//2"]:
        return self.conv(signal) + F.max_pool1d(signal, 2, 2)


class HeartbeatBlockPadded(HeartbeatBlock):
    def forward(self, signal: Float[Tensor, "batch 4 time"]) -> Float[Tensor, "batch 4 (time+1)//2"]:
        return self.conv(signal) + F.max_pool1d(signal, 3, 2, padding=1)


class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.Linear(3, 3)

    def forward(self, x: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch height width 3"]:
        batch, height, width, channels = x.shape
        windows = x.view(batch, height // 4, 4, width // 4, 4, channels).transpose(2, 3)
        return self.attention(windows).transpose(2, 3).reshape(batch, height, width, channels)


class WindowsNarrowed(Windows):
    WHERE = ("height % 4 == 0", "width % 4 == 0", "height >= 4", "width >= 4")


class ThereAndBack(nn.Module):
    """A spectrogram and its inverse lose what does not fill a whole hop."""

    WHERE = ("samples >= 16",)

    def forward(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch samples"]:
        window = torch.hann_window(16)
        spectrum = torch.stft(waves, 16, hop_length=4, window=window, return_complex=True)
        return torch.istft(spectrum, 16, hop_length=4, window=window)


# Convolutions and pooling.


class EvenKernel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(8, 6, 4, padding=4 // 2)

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 6"]:
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class OddKernel(EvenKernel):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(8, 6, 5, padding=5 // 2)


class ChannelsFirstPool(nn.Module):
    """`channels_first` in Keras pools the features of (batch, steps, features); max_pool1d here pools the steps."""

    WHERE = ("steps >= 4",)

    def forward(self, phrases: Float[Tensor, "batch steps 32"]) -> Float[Tensor, "batch steps 8"]:
        return F.max_pool1d(phrases.transpose(1, 2), 4).transpose(1, 2)


class FeaturesPooled(ChannelsFirstPool):
    def forward(self, phrases: Float[Tensor, "batch steps 32"]) -> Float[Tensor, "batch steps 8"]:
        return F.max_pool1d(phrases, 4)


# Positions and masks.


class PositionsOfTheBatch(nn.Module):
    """Written for (time, batch, width): for (batch, time, width) it slices the wrong axis."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(5000, 1, 8))

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x + self.table[: x.size(1)]


class PositionsOfTheTime(PositionsOfTheBatch):
    WHERE = ("time <= 5000",)

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x + self.table[: x.size(1)].transpose(0, 1)


class ShortTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(1, 200, 8))

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x * 8**0.5 + self.table[:, : x.size(1)]


class FixedTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(20, 8)

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return self.positions.weight.unsqueeze(0).repeat(x.size(0), 1, 1)


class MaskOfTheOtherAxis(nn.Module):
    """nn.Transformer* take (time, batch, width), but the padding mask is (batch, time)."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16)

    def forward(
        self, x: Float[Tensor, "time batch 8"], padding: Bool[Tensor, "time batch"]
    ) -> Float[Tensor, "time batch 8"]:
        return self.encoder(x, src_key_padding_mask=padding)


class MaskOfTheRightAxis(MaskOfTheOtherAxis):
    def forward(
        self, x: Float[Tensor, "time batch 8"], padding: Bool[Tensor, "time batch"]
    ) -> Float[Tensor, "time batch 8"]:
        return self.encoder(x, src_key_padding_mask=padding.transpose(0, 1))


class RelativeScores(nn.Module):
    """Scores by content and by distance, added: they are of one size only where there are as many queries as keys."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.distance = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(
        self,
        queries: Float[Tensor, "batch queries 8"],
        keys: Float[Tensor, "batch keys 8"],
        positions: Float[Tensor, "1 queries 8"],
    ) -> Float[Tensor, "batch queries keys"]:
        query = self.query(queries)
        return query @ self.key(keys).transpose(1, 2) + query @ self.distance(positions).transpose(1, 2)


# Sound ones with a size that no symbolic run can know, and one of our own.


class TrimmedToTheLongest(nn.Module):
    WHERE = ("1 <= lengths <= time",)

    def forward(self, x: Float[Tensor, "batch time 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "batch _ 8"]:
        return x[:, : int(lengths.max())]


class TowerInChunks(nn.Module):
    WHERE = ("words >= 2",)

    def __init__(self):
        super().__init__()
        self.tower = Tower(vector_width=12, filters=8, chunk=2)

    def forward(self, sentences: Float[Tensor, "batch words 12"]) -> Float[Tensor, "batch 6"]:
        return self.tower(sentences)


_GITHUB = "https://github.com/"

SPECIMENS = (
    Specimen(PackedEncoder, "forgotten total_length", "as long as the longest sentence", {"time": 7},
             source=_GITHUB + "pytorch/pytorch/issues/1591"),
    Specimen(PackedEncoderWhole, "forgotten total_length", None),
    Specimen(PackedResidual, "forgotten total_length", "added to input that is longer", {"time": 7},
             source=_GITHUB + "pytorch/pytorch/issues/6299"),
    Specimen(PackedLast, "forgotten total_length", None),
    Specimen(SentimentRNN, "squeeze() that eats a batch of 1", "squeeze(0) of (batch, 12)", {"batch": 1},
             source=_GITHUB + "bentrevett/pytorch-sentiment-analysis/issues/41"),
    Specimen(PooledFeatures, "squeeze() that eats a batch of 1", "squeeze of (batch, 6, 1, 1)", {"batch": 1},
             source=_GITHUB + "layumi/Person_reID_baseline_pytorch/issues/77"),
    Specimen(PooledFeaturesFlat, "squeeze() that eats a batch of 1", None),
    Specimen(SimpleEncoder, "batch_first forgotten", "the last state has a row for each step",
             source=_GITHUB + "facebookresearch/fairseq/issues/2449"),
    Specimen(SimpleEncoderBatchFirst, "batch_first forgotten", None),
    Specimen(HiddenIsNotBatchFirst, "batch_first forgotten", "h_n is never batch first",
             source=_GITHUB + "pytorch/pytorch/issues/19675"),
    Specimen(AttentionWeights, "batch_first forgotten", "attention over the batch",
             source=_GITHUB + "om-ai-lab/OmDet/issues/19"),
    Specimen(AttentionWeightsBatchFirst, "batch_first forgotten", None),
    Specimen(DecoderWithView, "a reshape that mixes batch and time", "view in the place of transpose",
             source=_GITHUB + "HHTseng/video-classification/issues/42"),
    Specimen(SentenceProbabilities, "BiLSTM width not doubled", "a linear layer of 6 meets 12",
             source=_GITHUB + "LeonYang95/PLELog/issues/18"),
    Specimen(LastOfTheWrongAxis, "pooling over time instead of features", "the last feature, not the last step",
             source=_GITHUB + "scoutbee/pytorch-nlp-notebooks/issues/24"),
    Specimen(LastStep, "pooling over time instead of features", None),
    Specimen(FinalStateView, ".view(-1, …) that hides a wrong batch", "two rows for each sentence",
             source=_GITHUB + "zy1996code/nlp_basic_model/issues/1"),
    Specimen(HiddenOfAFixedBatch, "a hard-coded length", "a batch of 4 only",
             source=_GITHUB + "udacity/deep-learning-v2-pytorch/pull/398"),
    Specimen(HiddenOfAnyBatch, "a hard-coded length", None),
    Specimen(UNet, "odd lengths", "sizes that 2 does not divide", {"height": 7},
             source=_GITHUB + "milesial/Pytorch-UNet/issues/32"),
    Specimen(UNetNarrowed, "odd lengths", None),
    Specimen(Pyramid, "odd lengths", "twice the half of an odd size", {"height": 7},
             source=_GITHUB + "open-mmlab/mmdetection/pull/2157"),
    Specimen(PyramidToSize, "odd lengths", None),
    Specimen(HeartbeatBlock, "odd lengths", "pooling rounds down where the convolution rounds up", {"time": 7},
             source=_GITHUB + "lxdv/ecg-classification/issues/37"),
    Specimen(HeartbeatBlockPadded, "odd lengths", None),
    Specimen(Windows, "odd lengths", "sizes that 4 does not divide", {"height": 7},
             source=_GITHUB + "berniwal/swin-transformer-pytorch/issues/8"),
    Specimen(WindowsNarrowed, "odd lengths", None),
    Specimen(ThereAndBack, "odd lengths", "the end that fills no hop is lost", {"samples": 18},
             source=_GITHUB + "pytorch/audio/issues/2070"),
    Specimen(EvenKernel, "off-by-one in a convolution's output", "an even kernel padded by its half",
             source=_GITHUB + "jamesmullenbach/caml-mimic/issues/3"),
    Specimen(OddKernel, "off-by-one in a convolution's output", None),
    Specimen(ChannelsFirstPool, "pooling over time instead of features", "a quarter of the steps",
             source=_GITHUB + "tensorflow/tensorflow/issues/11638"),
    Specimen(FeaturesPooled, "pooling over time instead of features", None),
    Specimen(PositionsOfTheBatch, "transposed output with batch == time", "positions added along the batch",
             source=_GITHUB + "KasperGroesLudvigsen/influenza_transformer/issues/9"),
    Specimen(PositionsOfTheTime, "transposed output with batch == time", None),
    Specimen(ShortTable, "a hard-coded length", "more than 200 steps", {"time": 201},
             source=_GITHUB + "SamLynnEvans/Transformer/issues/14"),
    Specimen(FixedTable, "a hard-coded length", "20 positions for any length",
             source=_GITHUB + "jiwidi/Behavior-Sequence-Transformer-Pytorch/issues/4"),
    Specimen(MaskOfTheOtherAxis, "a padding mask of the wrong axis", "time x batch for batch x time",
             source=_GITHUB + "pytorch/pytorch/issues/25132"),
    Specimen(MaskOfTheRightAxis, "a padding mask of the wrong axis", None),
    Specimen(RelativeScores, "transposed output with batch == time", "as many keys as queries only",
             source=_GITHUB + "espnet/espnet/issues/3409"),
    Specimen(TrimmedToTheLongest, "forgotten total_length", None, data_dependent=True),
    Specimen(TowerInChunks, "a tower of five words given any length", None),
)  # fmt: skip
