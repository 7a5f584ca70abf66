"""Host time of one call on a GPU, measured on any machine: kernels are not launched, all else happens.

Tensors lie on the CPU, and what asks for a GPU is told that there is one, contracts too: they read no lengths. The
batch is small: what torch computes besides the kernels takes hardly any time.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median
from unittest.mock import patch

import torch
from report import Row
from torch import Tensor

from towers import RaggedLSTM, Tower
from towers.contracts import modes
from towers.kernels import dispatch
from towers.layers import fused, lstm

TITLE = "Host time of a call on a GPU, kernels not launched"
BATCH, WORDS, WIDTH = 32, 12, 300


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Layers take the fused kernels for tensors on the CPU: with launches left out, or in Triton's interpreter."""
    from towers.kernels.triton import support

    with (
        patch.object(support, "runs_on", lambda device: True),
        patch.object(dispatch, "_on_device", lambda batch: True),
        patch.object(fused, "_on_device", lambda conv: True),
        patch.object(lstm, "run_plain", lstm.run_on_gpu),
    ):
        yield


@contextmanager
def without_launches() -> Iterator[None]:
    from towers.kernels.triton import lstm_narrow, lstm_products, lstm_wide, phrase_features

    def start(kernel: object, grid: tuple[int, ...], *arguments: object, **options: object) -> None:
        pass

    may_read = modes.may_read

    def unread(values: Tensor, mode: modes.Mode | None = None) -> bool:
        return may_read(values, mode) and False

    with as_on_a_gpu(), patch.object(modes, "may_read", unread), ExitStack() as replaced:
        for module in (lstm_narrow, lstm_products, lstm_wide, phrase_features):
            replaced.enter_context(patch.object(module, "start", start))
        yield


def calls() -> Mapping[str, Callable[[], object]]:
    torch.manual_seed(0)
    layer, tower = RaggedLSTM(8, 6), Tower(vector_width=WIDTH)
    lengths = torch.randint(2, WORDS + 1, (BATCH,))
    words, vectors = torch.randn(BATCH, WORDS, 8), torch.randn(BATCH, WORDS, WIDTH)
    asks = words.clone().requires_grad_()
    parameters = list(layer.parameters())

    def last() -> Tensor:
        with torch.no_grad():
            return layer.last(words, lengths=lengths)

    def training() -> tuple[Tensor, ...]:
        return torch.autograd.grad(layer.last(asks, lengths=lengths).sum(), [asks, *parameters])

    def whole() -> Tensor:
        with torch.no_grad():
            return tower(vectors, lengths)

    return {"last(), hidden 6": last, "training step, hidden 6": training, "tower": whole}


def measure(seconds: float) -> list[Row]:
    """Medians of single calls, for about `seconds` in all."""
    rows: list[Row] = []
    with without_launches():
        for name, call in calls().items():
            times: list[float] = []
            for _ in range(10):
                call()
            end = time.perf_counter() + seconds / 3
            while time.perf_counter() < end or len(times) < 5:
                start = time.perf_counter()
                call()
                times.append(1e3 * (time.perf_counter() - start))
            row = Row("host", name, "towers", "host", median(times), 1.0, None, {"host_us": 1e3 * median(times)})
            rows.append(row)
    return rows
