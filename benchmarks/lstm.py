"""Sentences of different lengths through one LSTM: padded and packed nn.LSTM, and towers.RaggedLSTM.

The job, the same for all: from padded input and its lengths to each sentence's last state; in training the gradients
of input and weights besides. All of a path's own work is timed: packing, sorting, picking the last states.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from report import Row
from timing import interleaved
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from towers import RaggedLSTM

TITLE = "LSTM over sentences of different lengths"
LONGEST = 64  # words of the longest sentence of each batch

Path = Callable[[Tensor], Tensor]  # padded input -> last states


class Case(NamedTuple):
    hidden: int
    batch: int
    share: float  # of the positions that are real words

    @property
    def name(self) -> str:
        return f"hidden {self.hidden}, batch {self.batch}, {self.share:.0%} real"

    @property
    def input_size(self) -> int:
        return 8 if self.hidden == 6 else self.hidden  # 8 into 6 is the towers' own LSTM


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(6, 32, 0.5), Case(6, 256, 0.5), Case(64, 32, 0.5)]
    sizes = [Case(hidden, batch, 0.5) for hidden in (6, 32, 128) for batch in (32, 256, 1024)]
    shares = [Case(hidden, 256, share) for hidden in (6, 32) for share in (1.0, 0.75, 0.25, 0.1)]
    return sorted(sizes + shares, key=lambda case: (case.hidden, case.batch, -case.share))


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of both phases, after all paths were seen to give the same states and gradients."""
    torch.manual_seed(0)
    lengths = lengths_of(case)
    padded = torch.randn(case.batch, LONGEST, case.input_size, device=device)
    paths, weights = implementations(case, lengths, device)
    check(case, paths, weights, padded)
    seconds = 0.5 if quick else 4.0
    rows = []
    for phase, job in (("forward", forward), ("training", training)):
        calls = {name: job(path, padded, weights[name]) for name, path in paths.items()}
        for name, timing in interleaved(calls, device, seconds=seconds).items():
            words_per_second = lengths.sum().item() / timing.milliseconds * 1e3
            details = case._asdict() | {
                "input_size": case.input_size,
                "longest": LONGEST,
                "real_share": round(lengths.sum().item() / padded[..., 0].numel(), 4),
                "spread": timing.spread,
                "rounds": timing.rounds,
            }
            if device.type == "cuda":
                details["peak_bytes"] = peak_bytes(calls[name])
            rows.append(
                Row("lstm", case.name, name, phase, timing.milliseconds, timing.time_ratio, words_per_second, details)
            )
    return rows


def lengths_of(case: Case) -> Tensor:
    """Uniform lengths, one of them the longest, with about the case's share of real positions."""
    low = max(1, round((2 * case.share - 1) * LONGEST))
    high = min(LONGEST, round(2 * case.share * LONGEST))
    lengths = torch.randint(low, high + 1, (case.batch,), generator=torch.Generator().manual_seed(0))
    lengths[case.batch // 2] = LONGEST
    return lengths


def implementations(
    case: Case, lengths: Tensor, device: torch.device
) -> tuple[dict[str, Path], dict[str, list[nn.Parameter]]]:
    """The paths by name, the baseline first, and each path's weights; all of them have the same numbers."""
    theirs = nn.LSTM(case.input_size, case.hidden, batch_first=True, device=device)
    ours = RaggedLSTM(case.input_size, case.hidden, device=device)
    ours.load_state_dict(theirs.state_dict())
    sentence, end = torch.arange(case.batch, device=device), (lengths - 1).to(device)

    def padded(input: Tensor) -> Tensor:
        return theirs(input)[0][sentence, end]

    def packed(input: Tensor) -> Tensor:
        return theirs(pack_padded_sequence(input, lengths, batch_first=True, enforce_sorted=False))[1][0][0]

    def ragged(input: Tensor) -> Tensor:
        return ours(input, lengths=lengths)[1][0][0]

    paths = {"padded nn.LSTM": padded, "packed nn.LSTM": packed, "towers.RaggedLSTM": ragged}
    weights = [list(module.parameters()) for module in (theirs, theirs, ours)]
    return paths, dict(zip(paths, weights, strict=True))


def forward(path: Path, padded: Tensor, weights: list[nn.Parameter]) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.no_grad():
            return path(padded)

    return call


def training(path: Path, padded: Tensor, weights: list[nn.Parameter]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward; the input asks for its gradient too, as behind a layer that is trained."""
    input = padded.detach().requires_grad_()

    def call() -> tuple[Tensor, ...]:
        states = path(input)
        return torch.autograd.grad(states.square().sum(), [input, *weights])

    return call


def check(case: Case, paths: Mapping[str, Path], weights: Mapping[str, list[nn.Parameter]], padded: Tensor) -> None:
    """All paths agree with the first: states to 1e-5, gradients to 1e-4 of their largest entry."""
    results = {name: (path(padded), *training(path, padded, weights[name])()) for name, path in paths.items()}
    (first, expected), *others = results.items()
    for name, result in others:
        for ours, theirs, relative in zip(result, expected, (1e-5, *[1e-4] * (len(result) - 1)), strict=True):
            distance, allowed = (ours - theirs).abs().max(), relative * max(1.0, theirs.abs().max())
            if not distance <= allowed:
                raise AssertionError(f"{case.name}: {name} is {distance:.1e} away from {first}; at most {allowed:.1e}")


def peak_bytes(call: Callable[[], object]) -> int:
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
