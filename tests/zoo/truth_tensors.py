"""Tensors moved about: what only looks right at one size, and what is right at all."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from truth import Known

from towers.contracts import contract

HUB = "https://github.com/"


class NoTranspose(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch width"], w: Float[Tensor, "out width"]) -> Float[Tensor, "batch out"]:
        return x @ w


class SquareSum(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        return x + x.T


class WrongAxis(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 4"], w: Float[Tensor, "batch"]) -> Float[Tensor, "batch time 4"]:
        return x * w[:, None]


class SplitInFour(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 3"]) -> Float[Tensor, "batch 4 3"]:
        return x.split(4, dim=1)[0]


class ChunkInFour(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 3"]) -> Float[Tensor, "batch (time+3)//4 3"]:
        return x.chunk(4, dim=1)[0]


class FourChunks(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 3"]) -> Float[Tensor, "4 batch time//4 3"]:
        return torch.stack(x.chunk(4, dim=1))


class TensorSplit(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 3"]) -> Float[Tensor, "batch time//3 3"]:
        return x.tensor_split(3, dim=1)[2]


class Gates(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width//2"]:
        return F.glu(x, dim=-1)


class GatesOfChunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(16, 8)

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class EveryThird(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch (time+2)//3"]:
        return x[:, ::3]


class EveryThirdFloor(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time//3"]:
        return x[:, ::3]


class KthValue(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        return x.kthvalue(5, dim=1)[0]


class SumOfDiagonal(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows"]:
        return x.diagonal()


class UpperPairs(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch n 4"]) -> Float[Tensor, "batch (n*(n-1))//2"]:
        n = x.shape[1]
        i, j = torch.triu_indices(n, n, 1)
        return (x @ x.transpose(1, 2))[:, i, j]


class InPlaceExpanded(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time time"]:
        y = x.unsqueeze(1).expand(-1, x.shape[1], -1)
        y += 1
        return y


class InPlaceCloned(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time time"]:
        y = x.unsqueeze(1).expand(-1, x.shape[1], -1).clone()
        y += 1
        return y


class InPlaceWider(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 1"], y: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        x = x * 2
        x += y
        return x


class NoReuse(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 6"]) -> Float[Tensor, "time batch 6"]:
        return x.reshape(x.shape[1], x.shape[0], 6)


class ViewOfTransposed(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 6"]) -> Float[Tensor, "batch 6*time"]:
        return x.transpose(1, 2).view(x.shape[0], -1)


class ViewOfSlice(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 6"]) -> Float[Tensor, "batch*(time-1) 6"]:
        return x[:, 1:].view(-1, 6)


class ReshapeOfSlice(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 6"]) -> Float[Tensor, "batch*(time-1) 6"]:
        return x[:, 1:].reshape(-1, 6)


class Pairs(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "n 4"], y: Float[Tensor, "m 4"]) -> Float[Tensor, "n m 8"]:
        return torch.cat([x[:, None].expand(-1, len(y), -1), y[None].expand(len(x), -1, -1)], -1)


class PairsRepeated(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "n 4"]) -> Float[Tensor, "n n 8"]:
        n = x.shape[0]
        left, right = x.repeat(n, 1), x.repeat_interleave(n, dim=0)
        return torch.cat([left, right], dim=1).view(n, -1, 8)


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.codes = nn.Embedding(16, 8)

    @contract
    def forward(
        self, x: Float[Tensor, "batch time 8"]
    ) -> tuple[Float[Tensor, "batch time 8"], Int[Tensor, "batch time"]]:
        flat = x.reshape(-1, 8)
        ids = torch.cdist(flat, self.codes.weight).argmin(-1).view(x.shape[:2])
        return self.codes(ids), ids


class Contrastive(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 8"], y: Float[Tensor, "batch 8"]) -> Float[Tensor, ""]:
        logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).t()
        labels = torch.arange(len(logits))
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2


class ClassAxis(nn.Module):
    """Gives cross_entropy the classes last, where it wants them second."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 6)

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"], y: Int[Tensor, "batch time"]) -> Float[Tensor, ""]:
        return F.cross_entropy(self.head(x), y)


class ClassAxisTurned(ClassAxis):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"], y: Int[Tensor, "batch time"]) -> Float[Tensor, ""]:
        return F.cross_entropy(self.head(x).transpose(1, 2), y)


class Messages(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    @contract
    def forward(self, x: Float[Tensor, "nodes 8"], edges: Int[Tensor, "2 edges"]) -> Float[Tensor, "nodes 8"]:
        source, target = edges
        return torch.zeros_like(x).index_add(0, target, self.linear(x[source]))


class MessagesLost(Messages):
    @contract
    def forward(self, x: Float[Tensor, "nodes 8"], edges: Int[Tensor, "2 edges"]) -> Float[Tensor, "nodes 8"]:
        return torch.zeros_like(x).index_add(0, edges[0], self.linear(x))


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 8)

    @contract
    def forward(self, ids: Int[Tensor, "batch words"]) -> Float[Tensor, "batch 8"]:
        return self.bag(ids)


class DropPath(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        return x * x.new_empty(shape).bernoulli_(0.9) / 0.9


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        weights, chosen = self.router(x).softmax(-1).topk(2, -1)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=2)
        picked = outputs.gather(2, chosen.unsqueeze(-1).expand(-1, -1, -1, 8))
        return (picked * weights.unsqueeze(-1)).sum(2)


class PickLast(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "batch 8"]:
        last = (lengths - 1).clamp(min=0, max=x.shape[1] - 1).view(-1, 1, 1).expand(-1, 1, 8)
        return x.gather(1, last).squeeze(1)


class OuterMask(nn.Module):
    @contract
    def forward(self, mask: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time time"]:
        return mask[:, :, None] & mask[:, None, :]


class MaskedMean(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch 8"]:
        return (x * mask).sum(1) / mask.sum(1, keepdim=True)


class TwoBounds(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        if 7 * x.shape[0] + x.shape[1] == 37:
            return x[:, 1:]
        return x


class Large(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        return x[:-1] if x.numel() > 4000 else x


class LargeSound(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        return torch.cat(list(x.split(1000))) if x.numel() > 4000 else x


class Far(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "time"]) -> Float[Tensor, "time"]:
        return x[1:] if x.shape[0] % 97 == 96 else x


class NotOnSquare(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        return x.reshape(-1) if x.shape[0] == x.shape[1] else x


class Power(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "time 2"]) -> Float[Tensor, "time 2"]:
        time = x.shape[0]
        padded = F.pad(x, (0, 0, 0, 2 ** (time - 1).bit_length() - time if isinstance(time, int) else 0))
        return padded[:time]


class Cholesky(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch n n"], y: Float[Tensor, "batch n k"]) -> Float[Tensor, "batch n k"]:
        return torch.linalg.solve(x @ x.transpose(1, 2) + torch.eye(x.shape[1]), y)


class Quantile(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "3 batch"]:
        return torch.quantile(x, torch.tensor([0.1, 0.5, 0.9]), dim=1)


class Rank(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        return x.gather(1, x.argsort(1).argsort(1)).cumsum(1).flip(1)


class Differences(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time-2"]:
        return x.diff(dim=1).diff(dim=1)


class Stacked(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 4"]) -> Float[Tensor, "batch time 4"]:
        state, states = x.new_zeros(x.shape[0], 4), []
        for now in x.unbind(1)[:4]:
            state = torch.tanh(state + now)
            states.append(state)
        return torch.stack(states, dim=1)


class IntegerMean(nn.Module):
    @contract
    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        return ids.mean(1)


class IntegerMeanFloat(nn.Module):
    @contract
    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        return ids.float().mean(1)


class Counts(nn.Module):
    @contract
    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch 10"]:
        return F.one_hot(ids, 10).sum(1)


class CountsFloat(nn.Module):
    @contract
    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch 10"]:
        return F.one_hot(ids, 10).float().mean(1)


KNOWN = [
    Known(NoTranspose, "width == out"),
    Known(SquareSum, "rows == columns"),
    Known(WrongAxis, "batch == time or batch == 1", HUB + "pytorch/pytorch/issues/4938"),
    Known(SplitInFour, "time >= 4"),
    Known(ChunkInFour, "True"),
    Known(FourChunks, "time % 4 == 0"),
    Known(TensorSplit, "True"),
    Known(Gates, "width % 2 == 0"),
    Known(GatesOfChunk, "True", HUB + "lucidrains/x-transformers"),
    Known(EveryThird, "True"),
    Known(EveryThirdFloor, "time % 3 == 0"),
    Known(KthValue, "time >= 5", HUB + "qgallouedec/lge/issues/9"),
    Known(SumOfDiagonal, "rows <= columns"),
    Known(UpperPairs, "True", HUB + "facebookresearch/dlrm"),
    Known(InPlaceExpanded, "time == 1"),
    Known(InPlaceCloned, "True"),
    Known(InPlaceWider, "width == 1"),
    Known(NoReuse, "True"),
    Known(ViewOfTransposed, "time == 1", HUB + "csyanbin/TPN-pytorch/issues/6"),
    Known(ViewOfSlice, "batch == 1 or time <= 2", HUB + "fl16180/small-object-detection/issues/2"),
    Known(ReshapeOfSlice, "True", HUB + "fl16180/small-object-detection/issues/2"),
    Known(Pairs, "True"),
    Known(PairsRepeated, "True", HUB + "Diego999/pyGAT"),
    Known(Quantized, "True", HUB + "lucidrains/vector-quantize-pytorch"),
    Known(Contrastive, "True", HUB + "openai/CLIP"),
    Known(ClassAxis, "time == 6"),
    Known(ClassAxisTurned, "True"),
    Known(Messages, "True", HUB + "pyg-team/pytorch_geometric/issues/1370"),
    Known(MessagesLost, "nodes == edges", HUB + "pyg-team/pytorch_geometric/issues/474"),
    Known(Bag, "True", HUB + "facebookresearch/fastText"),
    Known(DropPath, "True", HUB + "huggingface/pytorch-image-models"),
    Known(Experts, "True", HUB + "huggingface/transformers"),
    Known(PickLast, "True"),
    Known(OuterMask, "True"),
    Known(MaskedMean, "time == 1 or (time == 8 and batch in (1, 8))"),
    Known(TwoBounds, "7 * batch + time != 37"),
    Known(Large, "batch * time <= 4000"),
    Known(LargeSound, "True"),
    Known(Far, "time % 97 != 96"),
    Known(NotOnSquare, "rows != columns"),
    Known(Power, "True"),
    Known(Cholesky, "True"),
    Known(Quantile, "True"),
    Known(Rank, "True"),
    Known(Differences, "time >= 2"),
    Known(Stacked, "time <= 4"),
    Known(IntegerMean, "False"),
    Known(IntegerMeanFloat, "True"),
    Known(Counts, "False"),
    Known(CountsFloat, "True"),
]
