"""The half of the zoo that was written without sight of the prover, and before it: faults as people make them."""

import torch
from jaxtyping import Bool, Float, Int
from specimen import Specimen
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BothDirections(nn.Module):
    """Tags words from both sides; forgets that two directions give twice the width."""

    def __init__(self):
        super().__init__()
        self.hidden = 6
        self.lstm = nn.LSTM(8, self.hidden, batch_first=True, bidirectional=True)

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time {self.hidden}"]:
        return self.lstm(words)[0]


class BothDirectionsSound(BothDirections):
    """The same with the width that two directions have."""

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 2*{self.hidden}"]:
        return self.lstm(words)[0]


class Repacked(nn.Module):
    """Packs and unpacks, and forgets `total_length`: as long as the longest sentence, not as the input."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, batch_first=True)

    def forward(
        self, words: Float[Tensor, "batch time 8"], lengths: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch time 6"]:
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return output


class RepackedSound(Repacked):
    """The same with `total_length`."""

    def forward(
        self, words: Float[Tensor, "batch time 8"], lengths: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch time 6"]:
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=words.shape[1])
        return output


class LastStateOfGRU(nn.Module):
    """Takes the last state of a GRU that reads time first, of sentences that stand batch first."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 6)

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 6"]:
        return self.gru(words)[1][-1]


class LastStateOfGRUSound(nn.Module):
    """The same, with the axes in the order that the GRU reads."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 6, num_layers=2)

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 6"]:
        return self.gru(words.transpose(0, 1))[1][-1]


class TimeFirstOut(nn.Module):
    """Turns to time first for a recurrent layer, and forgets to turn back: right only for a square batch."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(8, 8)

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return self.rnn(words.transpose(0, 1))[0]


class PoolOverTime(nn.Module):
    """Means to keep the largest of four features, and pools four steps: Keras's channels_first in torch's order."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(10, 32, 2)

    def forward(self, words: Float[Tensor, "batch words 10"]) -> Float[Tensor, "batch words-1 8"]:
        phrases = self.conv(words.transpose(1, 2))
        return F.max_pool1d(phrases, 4).transpose(1, 2)

    WHERE = ("words >= 5",)


class PoolOverFeatures(PoolOverTime):
    """The same, over the features."""

    def forward(self, words: Float[Tensor, "batch words 10"]) -> Float[Tensor, "batch words-1 8"]:
        phrases = self.conv(words.transpose(1, 2)).transpose(1, 2)
        return F.max_pool1d(phrases, 4)


class Halves(nn.Module):
    """Averages neighbouring steps and stretches them again: a last odd step is lost on the way."""

    def forward(self, signal: Float[Tensor, "batch time 4"]) -> Float[Tensor, "batch time 4"]:
        time = signal.shape[1]
        pairs = signal[:, : time // 2 * 2].reshape(signal.shape[0], time // 2, 2, 4)
        return pairs.mean(2).repeat_interleave(2, dim=1)

    WHERE = ("time >= 2",)


class Padded(nn.Module):
    """The same with one step of zeros at the end, cut off again."""

    def forward(self, signal: Float[Tensor, "batch time 4"]) -> Float[Tensor, "batch time 4"]:
        time = signal.shape[1]
        even = F.pad(signal, (0, 0, 0, 1))[:, : (time + 1) // 2 * 2]
        pairs = even.reshape(signal.shape[0], (time + 1) // 2, 2, 4)
        return pairs.mean(2).repeat_interleave(2, dim=1)[:, :time]


class LongOnesCut(nn.Module):
    """Long documents lose their end on the way, which the result does not say."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        if words.shape[1] > 512:
            words = words[:, :512]
        return self.linear(words)


class Positions(nn.Module):
    """Adds a table of places that has sixteen of them, whatever the length."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.zeros(16, 8))

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return words + self.places


class PositionsSound(Positions):
    """The same, for up to sixteen words, and it says so."""

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return words + self.places[: words.shape[1]]

    WHERE = ("time <= 16",)


class StatesFlattened(nn.Module):
    """Gives the state of every step where the last one was promised: time has gone into the batch."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 3"]:
        return self.head(self.lstm(words)[0].reshape(-1, 6))


class Bigrams(nn.Module):
    """A convolution over two words promises as many phrases as there were words."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 12, (2, 10))

    def forward(self, words: Float[Tensor, "batch words 10"]) -> Float[Tensor, "batch words 12"]:
        return self.conv(words.unsqueeze(1)).squeeze(3).transpose(1, 2)

    WHERE = ("words >= 2",)


class BigramsSound(Bigrams):
    """The same with one phrase fewer."""

    def forward(self, words: Float[Tensor, "batch words 10"]) -> Float[Tensor, "batch words-1 12"]:
        return self.conv(words.unsqueeze(1)).squeeze(3).transpose(1, 2)


class Masked(nn.Module):
    """Puts the padding mask on the axis of features."""

    def forward(
        self, words: Float[Tensor, "batch time 8"], real: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time 8"]:
        return words.masked_fill(~real.unsqueeze(1), 0.0)


class MaskedMean(nn.Module):
    """The mean of the real words: the mask on the axis of time."""

    def forward(
        self, words: Float[Tensor, "batch time 8"], real: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch 8"]:
        kept = words.masked_fill(~real.unsqueeze(2), 0.0)
        return kept.sum(1) / real.sum(1, keepdim=True).clamp(min=1)


class Score(nn.Module):
    """One score for each sentence; for a batch of one, a score without a batch."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 1)

    def forward(self, states: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch"]:
        return self.head(states).squeeze()


class ScoreSound(Score):
    """The same; the axis to squeeze is said."""

    def forward(self, states: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch"]:
        return self.head(states).squeeze(-1)


class PairedRows(nn.Module):
    """`view(-1, …)` with twice the width takes two sentences for one."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 2)

    def forward(self, states: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 2"]:
        return self.head(states.view(-1, 16))


class Unpooled(nn.Module):
    """A convolution's 32 features go to an LSTM that was made for the 8 that pooling leaves."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(10, 32, 2)
        self.lstm = nn.LSTM(8, 6, batch_first=True)

    def forward(self, words: Float[Tensor, "batch words 10"]) -> Float[Tensor, "batch 6"]:
        phrases = self.conv(words.transpose(1, 2)).transpose(1, 2)
        return self.lstm(phrases)[1][0][-1]

    WHERE = ("words >= 2",)


class FiveWords(nn.Module):
    """Made for five words by its last layer, annotated for any number."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(10, 8, 2)
        self.head = nn.Linear(4 * 8, 6)

    def forward(self, words: Float[Tensor, "batch words 10"]) -> Float[Tensor, "batch 6"]:
        return self.head(self.conv(words.transpose(1, 2)).flatten(1))

    WHERE = ("words >= 2",)


class Strided(nn.Module):
    """Every second step of a convolution that reaches over the edge; the promise rounds the wrong way."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, stride=2, padding=1)

    def forward(self, signal: Float[Tensor, "batch 4 time"]) -> Float[Tensor, "batch 6 time//2"]:
        return self.conv(signal)


class StridedSound(Strided):
    """The same, rounded up."""

    def forward(self, signal: Float[Tensor, "batch 4 time"]) -> Float[Tensor, "batch 6 (time+1)//2"]:
        return self.conv(signal)


class WithStart(nn.Module):
    """Puts a start symbol before the words, and forgets that it has a place too."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(1, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return self.encoder(torch.cat([self.start.expand(words.shape[0], -1, -1), words], 1))


class WithStartSound(WithStart):
    """The same, one longer."""

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time+1 8"]:
        return self.encoder(torch.cat([self.start.expand(words.shape[0], -1, -1), words], 1))


class MeanOfBatch(nn.Module):
    """Takes the mean over the sentences instead of their words."""

    def forward(self, words: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 8"]:
        return words.mean(0)


class Heads(nn.Module):
    """Attention with heads, all axes in their places."""

    def __init__(self):
        super().__init__()
        self.heads = 4
        self.project = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)

    def split(self, x: Float[Tensor, "batch time 16"]) -> Float[Tensor, "batch {self.heads} time 4"]:
        return x.unflatten(2, (self.heads, 4)).transpose(1, 2)

    def forward(self, words: Float[Tensor, "batch time 16"]) -> Float[Tensor, "batch time 16"]:
        query, key, value = (self.split(part) for part in self.project(words).chunk(3, dim=2))
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class HeadsInBatch(Heads):
    """Merges the heads without turning them back: they end up in the axis of time."""

    def forward(self, words: Float[Tensor, "batch time 16"]) -> Float[Tensor, "batch time 16"]:
        query, key, value = (self.split(part) for part in self.project(words).chunk(3, dim=2))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.flatten(2).unflatten(2, (-1, 16)).flatten(1, 2))


class PackedLast(nn.Module):
    """The last state at each sentence's own end, by packing."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, words: Float[Tensor, "batch time 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "batch 12"]:
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        _, (h_n, _) = self.lstm(packed)
        return torch.cat([h_n[-2], h_n[-1]], 1)


class RealOnly(nn.Module):
    """Runs a layer on the real words alone: how many there are, only the mask knows."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 5)

    def forward(
        self, words: Float[Tensor, "batch time 8"], real: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time 5"]:
        index = real.flatten().nonzero().squeeze(1)
        found = self.linear(words.flatten(0, 1)[index])
        output = words.new_zeros(words.shape[0] * words.shape[1], 5)
        return output.index_copy(0, index, found).unflatten(0, words.shape[:2])


class RealOnlyReturned(RealOnly):
    """The same, but what it returns are the real words, not all of them."""

    def forward(
        self, words: Float[Tensor, "batch time 8"], real: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch*time 5"]:
        return self.linear(words[real])


SPECIMENS = (
    Specimen(BothDirections, "BiLSTM width", "two directions give 12 numbers a word, 6 are promised"),
    Specimen(BothDirectionsSound, "BiLSTM width", None),
    Specimen(Repacked, "total_length", "comes back as long as the longest sentence"),
    Specimen(RepackedSound, "total_length", None),
    Specimen(LastStateOfGRU, "batch_first", "the GRU takes the batch for time"),
    Specimen(LastStateOfGRUSound, "batch_first", None),
    Specimen(TimeFirstOut, "transposed", "comes back time first", {"batch": 3, "time": 4}),
    Specimen(PoolOverTime, "pooled axis", "pools over time"),
    Specimen(PoolOverFeatures, "pooled axis", None),
    Specimen(Halves, "odd lengths", "loses the last step of an odd length", {"time": 5}),
    Specimen(Padded, "odd lengths", None),
    Specimen(LongOnesCut, "branch on length", "cuts what is longer than 512", {"time": 513}),
    Specimen(Positions, "hard-coded length", "knows sixteen places", {"time": 15}),
    Specimen(PositionsSound, "hard-coded length", None),
    Specimen(StatesFlattened, "batch and time mixed", "one row for each word", {"time": 2}),
    Specimen(Bigrams, "off by one", "one phrase fewer than words"),
    Specimen(BigramsSound, "off by one", None),
    Specimen(Masked, "mask axis", "the mask lies on the features", {"time": 5}),
    Specimen(MaskedMean, "mask axis", None),
    Specimen(Score, "squeeze", "a batch of one loses its axis", {"batch": 1}),
    Specimen(ScoreSound, "squeeze", None),
    Specimen(PairedRows, "view(-1)", "two rows become one"),
    Specimen(Unpooled, "LSTM width", "32 features where 8 are taken"),
    Specimen(FiveWords, "fixed words", "takes five words only", {"words": 6}),
    Specimen(Strided, "rounding", "(time+1)//2 steps, time//2 promised", {"time": 5}),
    Specimen(StridedSound, "rounding", None),
    Specimen(WithStart, "off by one", "one longer than promised"),
    Specimen(WithStartSound, "off by one", None),
    Specimen(MeanOfBatch, "reduced axis", "the mean over the batch", {"batch": 3, "time": 4}),
    Specimen(Heads, "heads", None),
    Specimen(HeadsInBatch, "heads", "not turned back, and flattened into time"),
    Specimen(PackedLast, "packed", None),
    Specimen(RealOnly, "data-dependent", None, data_dependent=True),
    Specimen(RealOnlyReturned, "data-dependent", "as many rows as real words"),
)
