"""Sentences of different lengths through one LSTM: padded and packed nn.LSTM, and towers.RaggedLSTM.

The job is the same for all: from padded input and its lengths to the last state of each sentence; in training also the
gradients of the input and the weights. The time includes packing, sorting and picking the last states.

The sweep has all combinations of hidden size, batch size, share of real positions and distribution of lengths. The
longest sentence has 64 words in batches of up to 256 sentences and 32 in larger ones, so that the sweep takes about
twenty minutes. The distributions ("laws"):

- equal: all sentences have the same length (share 1);
- uniform: all lengths from a shortest to a longest have the same probability;
- log-normal: with a standard deviation of 0.5;
- outlier: one sentence is the longest, all others have the same length;
- sick: that of the corpus SICK, padded to the longest of the batch (about a third is real).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import lstm_report
import torch
from report import Row
from timing import interleaved
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from towers import RaggedLSTM

TITLE = "LSTM over sentences of different lengths"
OURS = "towers.RaggedLSTM"

# Sentences of SICK (both sides, all parts) by their number of words, from 0.
SICK = (
    *(0, 0, 0, 11, 553, 906, 2532, 2650, 2692, 1922, 1735, 1581, 1362, 951, 839, 682, 353, 380, 194, 210, 83, 91, 38),
    *(23, 20, 16, 9, 6, 11, 0, 2, 0, 2),
)

Path = Callable[[Tensor], Tensor]  # padded input -> last states

summary = lstm_report.summary
plot = lstm_report.plot


class Case(NamedTuple):
    hidden: int
    batch: int
    share: float | None  # of the positions, how many are real words; None: the law decides
    law: str = "uniform"

    @property
    def name(self) -> str:
        share = "" if self.share is None else f"{self.share:.0%} real, "
        return f"hidden {self.hidden}, batch {self.batch}, {share}{self.law}"

    @property
    def input_size(self) -> int:
        return 8 if self.hidden == 6 else self.hidden  # 8 inputs and hidden size 6: the towers' own LSTM

    @property
    def longest(self) -> int:
        return 64 if self.batch <= 256 else 32


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(6, 32, 0.5), Case(6, 256, 0.25, "outlier"), Case(64, 32, None, "sick")]
    mixes: list[tuple[float | None, str]] = [(1.0, "equal"), (None, "sick")]
    mixes += [(share, law) for share in (0.75, 0.5, 0.25, 0.1) for law in ("uniform", "log-normal", "outlier")]
    alone = [(1.0, "equal"), *((share, "uniform") for share in (0.75, 0.5, 0.25, 0.1))]
    return [
        Case(hidden, batch, share, law)
        for hidden in (6, 16, 32, 64, 128)
        for batch in (1, 32, 256, 1024, 4096)
        for share, law in (alone if batch == 1 else mixes)
    ]


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of both phases, after a check that all paths give the same states and gradients."""
    torch.manual_seed(0)
    lengths, words = lengths_of(case)
    padded = torch.randn(case.batch, words, case.input_size, device=device)
    paths, weights = implementations(case, lengths, device)
    check(case, paths, weights, padded)
    backend = RaggedLSTM(case.input_size, case.hidden, device=device).backend(padded, lengths=lengths).name
    rows = []
    for phase, job in (("forward", forward), ("training", training)):
        calls = {name: job(path, padded, weights[name]) for name, path in paths.items()}
        for name, timing in interleaved(calls, device, seconds=0.3 if quick else 0.8, fewest=2).items():
            details = case._asdict() | {
                "input_size": case.input_size,
                "words": words,
                "real_share": round(lengths.sum().item() / padded[..., 0].numel(), 4),
                "backend": backend if name == OURS else "torch",
                "spread": timing.spread,
                "rounds": timing.rounds,
            }
            if device.type == "cuda":
                details["peak_bytes"] = peak_bytes(calls[name])
            speed = lengths.sum().item() / timing.milliseconds * 1e3
            rows.append(Row("lstm", case.name, name, phase, timing.milliseconds, timing.time_ratio, speed, details))
    return rows


def lengths_of(case: Case) -> tuple[Tensor, int]:
    """The lengths, with about the case's share of real positions, and the number of words they are padded to."""
    generator, longest = torch.Generator().manual_seed(0), case.longest
    if case.law == "sick":
        lengths = torch.multinomial(torch.tensor(SICK).double(), case.batch, replacement=True, generator=generator)
        return lengths, int(lengths.max())
    share = 1.0 if case.share is None else case.share
    mean = torch.full((case.batch,), max(1, round(share * longest)))
    if case.batch == 1 or case.law == "equal":
        return mean, longest
    if case.law == "outlier":
        lengths = mean
    elif case.law == "log-normal":
        lengths = torch.randn(case.batch, generator=generator).mul(0.5).exp()
        for _ in range(20):  # clipping at the longest lowers the mean: raise it again
            lengths = (lengths * (share * longest / lengths.clamp(max=longest).mean())).clamp(max=longest)
        lengths = lengths.round().clamp(min=1).long()
    else:
        low = max(1, round((2 * share - 1) * longest))
        high = min(longest, round(2 * share * longest))
        lengths = torch.randint(low, high + 1, (case.batch,), generator=generator)
    lengths[case.batch // 2] = longest
    return lengths, longest


def implementations(
    case: Case, lengths: Tensor, device: torch.device
) -> tuple[dict[str, Path], dict[str, list[nn.Parameter]]]:
    """The paths by name, the baseline first, and each path's weights; all of them have the same numbers."""
    theirs = nn.LSTM(case.input_size, case.hidden, batch_first=True, device=device)
    sentence, end = torch.arange(case.batch, device=device), (lengths - 1).to(device)

    def padded(input: Tensor) -> Tensor:
        return theirs(input)[0][sentence, end]

    def packed(input: Tensor) -> Tensor:
        return theirs(pack_padded_sequence(input, lengths, batch_first=True, enforce_sorted=False))[1][0][0]

    paths: dict[str, Path] = {"padded nn.LSTM": padded, "packed nn.LSTM": packed}
    weights = {name: list(theirs.parameters()) for name in paths}
    ours = RaggedLSTM(case.input_size, case.hidden, device=device)
    ours.load_state_dict(theirs.state_dict())
    paths[OURS] = lambda input: ours.last(input, lengths=lengths)[0]
    weights[OURS] = list(ours.parameters())
    return paths, weights


def forward(path: Path, padded: Tensor, weights: list[nn.Parameter]) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.no_grad():
            return path(padded)

    return call


def training(path: Path, padded: Tensor, weights: list[nn.Parameter]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward pass; the input needs its gradient too, as after a layer that is trained."""
    input = padded.detach().requires_grad_()

    def call() -> tuple[Tensor, ...]:
        states = path(input)
        return torch.autograd.grad(states.square().sum(), [input, *weights])

    return call


def check(case: Case, paths: Mapping[str, Path], weights: Mapping[str, list[nn.Parameter]], padded: Tensor) -> None:
    """All paths agree with the first: states to 1e-5, gradients to 1e-4 of their largest entry.

    Where two do not, float64 decides: in float32, sums over 100,000 words are no more exact than that in nn.LSTM.
    """
    expected, (first, *others) = (), paths
    for name in (first, *others):
        result = (paths[name](padded), *training(paths[name], padded, weights[name])())
        expected = expected or result
        if worst := disagreement(result, expected):
            worst = disagreement(result, in_float64(case, weights[first], padded))
        if worst:
            raise AssertionError(f"{case.name}: {name} is {worst[0]:.1e} away from {first}; at most {worst[1]:.1e}")


def disagreement(found: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float] | None:
    """The largest difference and the one that is allowed; None if all entries are close enough."""
    for ours, theirs, relative in zip(found, expected, (1e-5, *[1e-4] * (len(found) - 1)), strict=True):
        distance, largest = float((ours - theirs).detach().abs().max()), float(theirs.detach().abs().max())
        allowed = relative * max(1.0, largest)
        if not distance <= allowed:
            return distance, allowed
    return None


def in_float64(case: Case, weights: list[nn.Parameter], padded: Tensor) -> tuple[Tensor, ...]:
    """The result of padded nn.LSTM in float64."""
    lstm = nn.LSTM(case.input_size, case.hidden, batch_first=True, device=padded.device, dtype=torch.float64)
    with torch.no_grad():
        for own, weight in zip(lstm.parameters(), weights, strict=True):
            own.copy_(weight)
    sentence, end = torch.arange(case.batch, device=padded.device), (lengths_of(case)[0] - 1).to(padded.device)

    def path(input: Tensor) -> Tensor:
        return lstm(input)[0][sentence, end]

    return (path(padded.double()), *training(path, padded.double(), list(lstm.parameters()))())


def peak_bytes(call: Callable[[], object]) -> int:
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
