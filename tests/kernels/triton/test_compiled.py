"""The kernels' machine code for compute capability 9.0, made without a GPU: exactly what a launch would start.

Registers, spills and shared memory are what the assembler says, read by the cuobjdump that Triton brings.
"""

import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402

from towers.kernels.triton import (  # noqa: E402
    best_items,
    launch,
    lstm_exchanged,
    lstm_narrow,
    lstm_wide,
    phrase_features,
)

KERNELS = {
    "narrow forward": lstm_narrow.forward_kernel,
    "narrow backward": lstm_narrow.backward_kernel,
    "wide forward": lstm_wide.forward_kernel,
    "wide backward": lstm_wide.backward_kernel,
    "exchanged forward": lstm_exchanged.forward_kernel,
    "exchanged backward": lstm_exchanged.backward_kernel,
    "phrases forward": phrase_features.forward_kernel,
    "phrases lookup": phrase_features.lookup_kernel,
    "phrases backward, weight": phrase_features.backward_weight_kernel,
    "phrases backward, values": phrase_features.backward_values_kernel,
    "search": best_items.search_kernel,
}
SHARED_MEMORY = 227 * 1024  # bytes that a block can have at compute capability 9.0


class NoDevice:
    """What Triton asks of a device before it compiles for it."""

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@dataclass
class Usage:
    """Of one kernel in machine code."""

    registers: int
    spilled: int  # bytes of each thread
    shared: int  # bytes of a block


class Compiler:
    """Stands where kernels are started; compiles what would be started, on the given tensors."""

    def __init__(self) -> None:
        self.built: list[Usage] = []

    def __call__(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        done = kernel.run(*arguments, grid=grid, warmup=True, **options, enable_fp_fusion=True)
        self.built.append(usage(done))


def usage(kernel: Any) -> Usage:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    cubin = Path(triton.knobs.cache.dir) / f"{kernel.hash}.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    report = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", report)
    assert found, report
    return Usage(int(found[1]), int(found[2]) + int(found[3]), kernel.metadata.shared)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Compiler]:
    instead = Compiler()
    for module in (lstm_narrow, lstm_wide, phrase_features, best_items):
        monkeypatch.setattr(module, "start", instead)
    for kernel in KERNELS.values():
        kernel.device_caches.clear()
    monkeypatch.setattr(triton.runtime.driver, "_active", NoDevice())
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(cache)
        yield instead
    for kernel in KERNELS.values():
        kernel.device_caches.clear()


def lstm(
    hidden: int, width: int, lengths: list[int], *, dtype: torch.dtype = torch.float32, precision: str = "tf32x3",
    keep: bool = True, outputs: bool = True, gaps: bool = False, backward: bool = True,
) -> None:  # fmt: skip
    """Start what a layer's forward and backward pass start."""
    rows = sum(lengths)
    ends = torch.tensor(lengths).cumsum(0)
    narrow = max(hidden, width) <= 8
    starts, lengths = ends - torch.tensor(lengths), torch.tensor(lengths)
    weight_hh, precisions = torch.zeros(1, 4 * hidden, hidden, dtype=dtype), [] if narrow else [precision]
    if narrow:
        bias, weight_ih = torch.zeros(1, 4 * hidden), torch.zeros(1, 4 * hidden, width, dtype=dtype)
        module, inputs = lstm_narrow, (torch.zeros(rows, width, dtype=dtype), weight_ih, weight_hh, bias)
    else:
        module, inputs = lstm_wide, (torch.zeros(rows, 4 * hidden, dtype=dtype), weight_hh)
    inputs = (*inputs, starts, lengths)
    output, before_h, before_c, h_n, c_n = module.launch_forward(*inputs, None, None, *precisions, keep, outputs, gaps)
    if backward:
        d_output = output if outputs else None
        module.launch_backward(*inputs, before_h, before_c, d_output, h_n, c_n, *precisions, gaps)


LSTMS = {
    "hidden 6": (6, 8, torch.float32, "tf32x3"),
    "hidden 6, many inputs": (6, 300, torch.float32, "tf32x3"),
    "hidden 16": (16, 16, torch.float32, "tf32x3"),
    "hidden 32": (32, 32, torch.float32, "tf32x3"),
    "hidden 64": (64, 64, torch.float32, "tf32x3"),
    "hidden 64, tf32": (64, 64, torch.float32, "tf32"),
    "hidden 64, bfloat16": (64, 64, torch.bfloat16, ""),
    "hidden 128": (128, 128, torch.float32, "tf32x3"),
    "hidden 128, bfloat16": (128, 128, torch.bfloat16, ""),
}


@pytest.mark.parametrize("sizes", LSTMS.values(), ids=LSTMS.keys())
def test_no_register_of_the_lstm_is_spilled(sizes, compiler):
    hidden, width, dtype, precision = sizes
    lstm(hidden, width, [3, 2], dtype=dtype, precision=precision)
    lstm(hidden, width, [3, 2], dtype=dtype, precision=precision, keep=False, outputs=False, backward=False)
    forward, _, last = compiler.built
    for built in compiler.built:
        assert built.spilled == 0
        assert built.registers <= 255
        assert built.shared <= SHARED_MEMORY
    if hidden <= 16:
        assert max(forward.registers, last.registers) <= 128, "16 warps of a multiprocessor at once"


@pytest.mark.parametrize("precision", ["tf32", "tf32x3", ""], ids=["tf32", "tf32x3", "bfloat16"])
def test_no_register_of_the_phrases_is_spilled(precision, compiler):
    dtype = torch.float32 if precision else torch.bfloat16
    values, weight, bias = torch.zeros(200, 300, dtype=dtype), torch.zeros(2, 32, 300, dtype=dtype), torch.zeros(32)
    features, winners = phrase_features.launch_forward(values, None, weight, bias, None, 4, precision, True)
    ids = torch.zeros(200, dtype=torch.int64)
    phrase_features.launch_lookup(torch.zeros(9, 2, 32), ids, bias, None, 4, False)
    phrase_features.launch_backward(values, None, weight, bias, None, winners, features, precision, True)
    assert len(compiler.built) == 4
    for built in compiler.built:
        assert built.spilled == 0
        assert built.shared <= 99 * 1024, "as the smallest of today's GPUs have it"


def search(queries: int, items: int, k: int, longest: int) -> None:
    """Start what a search starts; no query may find `longest` items at most."""
    rows, weights, keep = torch.zeros(items, 16), torch.zeros(16), torch.ones(items, dtype=torch.bool)
    hidden = best_items.Hidden(torch.zeros(queries * longest).long(), torch.zeros(queries + 1).long(), longest)
    given = (torch.zeros(queries, 16), weights, 0.5, best_items.tiles_of(rows), items, k)
    best_items.launch(*given, least=-torch.inf, keep=keep, hidden=hidden)


@pytest.mark.parametrize("k", [10, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_register_of_the_search_is_spilled(k, compiler):
    search(64, 2000, k, 3)
    (built,) = compiler.built
    assert built.spilled == 0
    assert built.registers <= 128, "16 warps of a multiprocessor at once"


def test_spills_would_be_noticed(compiler, monkeypatch):
    monkeypatch.setitem(lstm_narrow.OPTIONS, "maxnreg", 32)
    lstm(6, 8, [3, 2], backward=False)
    assert compiler.built[0].registers == 32
    assert compiler.built[0].spilled > 0


def variants() -> dict[str, int]:
    return {name: len(kernel.device_caches[0][0]) for name, kernel in KERNELS.items() if 0 in kernel.device_caches}


def test_nothing_is_compiled_again_for_other_batches_and_lengths(compiler):
    for lengths in ([3, 2], [1], [7] * 16, [16] * 64, [5, 0, 1000, 3], [1] * 33):
        for hidden in (6, 16):
            lstm(hidden, 8, lengths)
        rows = sum(lengths)
        values, weight, bias = torch.zeros(rows, 300), torch.zeros(2, 32, 300), torch.zeros(32)
        features, winners = phrase_features.launch_forward(values, None, weight, bias, None, 4, "tf32x3", True)
        phrase_features.launch_backward(values, None, weight, bias, None, winners, features, "tf32x3", True)
        phrase_features.launch_lookup(torch.zeros(9, 2, 32), torch.zeros(rows, dtype=torch.int64), bias, None, 4, False)
        search(len(lengths), 1 + rows, 10, rows)
    assert variants() == dict.fromkeys(variants(), 1)
    assert len(variants()) == 9
    lstm(5, 8, [3, 2], backward=False)
    assert variants()["narrow forward"] == 2, "another variant is counted"


def unaligned(*shape: int) -> torch.Tensor:
    """A part of another tensor, as a layer's part of a state is, that starts 4 bytes after a multiple of 16."""
    return torch.zeros(1 + math.prod(shape))[1:].view(shape)


@pytest.mark.parametrize("hidden", [6, 16], ids=["narrow", "wide"])
def test_nothing_is_compiled_again_for_other_alignments(hidden, compiler):
    """Parts of a state, of gradients and of padded values start where the batch says."""
    for make in (torch.zeros, unaligned):
        starts, lengths, weight_hh = make(2).long(), make(2).long() + 2, torch.zeros(1, 4 * hidden, hidden)
        state = [make(1, 2, hidden) for _ in range(2)]
        if hidden == 6:
            forward, backward, precisions = lstm_narrow.narrow_lstm, lstm_narrow.narrow_lstm_backward, []
            inputs = (make(5, 8), torch.zeros(1, 4 * hidden, 8), weight_hh, make(1, 4 * hidden))
        else:
            forward, backward, precisions = lstm_wide.wide_lstm, lstm_wide.wide_lstm_backward, ["tf32x3"]
            inputs = (make(5, 4 * hidden), weight_hh)
        inputs = (*inputs, starts, lengths)
        _, before_h, before_c, h_n, c_n = forward(*inputs, *state, *precisions, True, True, False)
        gradients = (make(5, hidden), make(*h_n.shape), make(*c_n.shape))
        backward(*inputs, before_h, before_c, *gradients, *precisions, False)
    assert list(variants().values()) == [1, 1]


@pytest.fixture
def settings() -> Iterator[Any]:
    """torch's settings of precision: its defaults, before and afterwards."""
    _default_precision()
    yield torch.backends
    _default_precision()


def _default_precision() -> None:
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = torch.backends.fp32_precision = "none"


def test_precision_follows_torchs_own(settings):
    assert launch.torch_precision() == "tf32x3", "torch's default is ieee"
    settings.fp32_precision = "tf32"
    assert launch.torch_precision() == "tf32"
    settings.cuda.matmul.fp32_precision = "ieee"
    assert launch.torch_precision() == "tf32x3"
    settings.cuda.matmul.fp32_precision = "tf32"
    assert launch.torch_precision() == "tf32"


def test_precision_follows_the_older_settings_too(settings):
    torch.set_float32_matmul_precision("high")
    assert launch.torch_precision() == "tf32"
    torch.set_float32_matmul_precision("highest")
    assert launch.torch_precision() == "tf32x3"


def test_weights_lie_in_registers_where_shared_memory_can_pass_them_on():
    big, small = 227 * 1024, 99 * 1024
    assert [lstm_wide.tile(hidden, "tf32x3", big)["STREAM"] for hidden in (6, 16, 32, 64, 65, 128)] == [0] * 4 + [
        16
    ] * 2
    assert [lstm_wide.tile(hidden, "tf32x3", small)["STREAM"] for hidden in (32, 64)] == [0, 16]
    assert lstm_wide.tile(64, "tf32", small)["STREAM"] == 0
    assert "STREAM" not in lstm_wide.tile(128, "bfloat16", big), "weights of bfloat16 stay in shared memory"
    assert "STREAM" not in lstm_wide.tile(64, "bfloat16", small)
    assert lstm_wide.tile(128, "bfloat16", small)["STREAM"] == 16
    assert lstm_wide.tile(32, "bfloat16", big)["PRECISION"] == "tf32"
    assert [lstm_wide.tile(hidden, "tf32", big)["H"] for hidden in (1, 8, 9, 16, 17, 33, 128)] == [
        8,
        8,
        16,
        16,
        32,
        64,
        128,
    ]
