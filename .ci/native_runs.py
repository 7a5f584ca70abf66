"""Ends with an error unless the native code of an installed towers runs, agrees with nn.LSTM, and gives the known bits.

x86-64-v3, v4 and arm64 have one order of sums and fused multiply-add everywhere, so that they share `BITS`; x86-64-v2
has no such instruction. A change of the C code that changes a sum changes them: put in what is printed then.
"""

import hashlib

import torch
from torch import Tensor, nn

from towers import RaggedLSTM, TwoTowers
from towers.kernels.cpu.library import level
from towers.search import Index

BITS = "dffb503d87717966"


def uniform(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """From -1 to 1, with the same bits on each machine: no logarithm is in it."""
    return 2 * torch.rand(*shape, dtype=dtype) - 1


def results() -> list[Tensor]:
    """Of layers and towers with their gradients, and of a search."""
    torch.manual_seed(0)
    found, lengths = list[Tensor](), torch.tensor([5, 1, 12, 7, 2, 9, 9, 3, 12, 4, 4, 1])
    for dtype in (torch.float32, torch.float64):
        for hidden, both in ((2, False), (6, False), (17, True), (64, False)):
            lstm = filled(RaggedLSTM(20, hidden, bidirectional=both, dtype=dtype), 0.3)
            x = uniform(12, 12, 20, dtype=dtype).requires_grad_()
            output, ends = lstm(x, lengths=lengths)
            found += [output, *ends, *torch.autograd.grad(output.sum() + ends[1].sum(), [x, *lstm.parameters()])]
    model = filled(TwoTowers(), 0.1)
    logits = model(0.4 * uniform(9, 11, 300), 0.4 * uniform(9, 5, 300))
    found += [logits, *torch.autograd.grad(logits.sum(), list(model.parameters()))]
    index = Index(model)
    index.add(uniform(3000, 6))
    return [*found, *index.search(uniform(40, 6), 10)]


def filled(module: nn.Module, bound: float) -> nn.Module:
    with torch.no_grad():
        for part in module.parameters():
            part.copy_(bound * uniform(*part.shape, dtype=part.dtype))
    return module


def digest() -> str:
    """The first 16 digits of the SHA-256 of all results."""
    whole = hashlib.sha256()
    for result in results():
        whole.update(result.detach().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


if __name__ == "__main__":
    theirs, x = nn.LSTM(8, 6, batch_first=True), torch.randn(40, 9, 8)
    ours = RaggedLSTM.from_torch(theirs)
    print(ours.backend(x))
    assert ours.backend(x).name == "native"
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=0, atol=1e-6)
    bits = digest()
    print(f"the bits of {level()}: {bits}")
    assert bits == BITS or level() == "x86-64-v2", f"expected {BITS}"
