"""The kernels' machine code for compute capability 9.0, made without a GPU: exactly what a launch would start.

It is made and read by `benchmarks/cuda_sass.py`.
"""

import importlib.util
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from towers.kernels.triton import launch, lstm_narrow, lstm_products, lstm_wide, phrase_features  # noqa: E402


def module_of_benchmarks(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[3] / "benchmarks" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cuda_sass = module_of_benchmarks("cuda_sass")
lstm, search = cuda_sass.lstm, cuda_sass.search
KERNELS = cuda_sass.kernels()
COUNTED = json.loads(cuda_sass.RESULTS.read_text("utf8")).get(f"triton {triton.__version__}", [])


def as_in_the_results(case: str, **built: Any) -> None:
    """The file of results is of today's kernels, if it has this version of Triton: to read instructions takes longer."""
    rows = {row["kernel"]: row for row in COUNTED if row["case"] == case}
    for kernel, found in built.items():
        assert not COUNTED or found._asdict().items() <= rows[kernel].items(), "python benchmarks/run.py cuda --sass"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def compiler(cache: Path) -> Iterator[Any]:
    with cuda_sass.compiling(cache, cuda_sass.resources) as compiler:
        yield compiler


@pytest.fixture
def walks(cache: Path) -> Iterator[Any]:
    """Without the products that wait for no step."""
    with cuda_sass.compiling(cache, cuda_sass.resources, [lstm_narrow, lstm_wide]) as compiler:
        yield compiler


@pytest.mark.parametrize("name", cuda_sass.LSTMS)
def test_no_register_of_the_lstm_is_spilled(name, walks):
    hidden, width, dtype, precision = cuda_sass.LSTMS[name]
    lstm(hidden, width, [3, 2], dtype=dtype, precision=precision)
    lstm(hidden, width, [3, 2], dtype=dtype, precision=precision, keep=False, outputs=False, backward=False)
    forward, backward, last = walks.built
    as_in_the_results(name, forward=forward, backward=backward, last=last)
    for built in walks.built:
        assert built.spilled == 0
        assert built.registers <= 255
        assert built.shared <= cuda_sass.SHARED_MEMORY
    if hidden <= 16:
        assert max(forward.registers, last.registers) <= 128, "16 warps of a multiprocessor at once"


@pytest.mark.parametrize(
    "sizes",
    [cuda_sass.PRODUCTS["float32"]]
    + [pytest.param(cuda_sass.PRODUCTS[name], marks=pytest.mark.slow) for name in ("tf32", "bfloat16")],
    ids=cuda_sass.PRODUCTS.keys(),
)
def test_no_register_of_the_products_is_spilled(sizes, cache):
    hidden, width, dtype, precision = sizes
    with cuda_sass.compiling(cache, cuda_sass.resources, [lstm_products]) as compiler:
        lstm(hidden, width, [3, 2], dtype=dtype, precision=precision, gaps=True)
    assert len(compiler.built) == 7
    for built in compiler.built:
        assert built.spilled == 0
        assert built.shared <= 99 * 1024, "as the smallest of today's GPUs have it"


@pytest.mark.parametrize("name", cuda_sass.PHRASES)
def test_no_register_of_the_phrases_is_spilled(name, compiler):
    cuda_sass.phrases(*cuda_sass.PHRASES[name])
    assert len(compiler.built) == 4
    launches = ("forward", "lookup", "backward, weight", "backward, values")
    as_in_the_results(f"phrases, {name}", **dict(zip(launches, compiler.built, strict=True)))
    for built in compiler.built:
        assert built.spilled == 0
        assert built.shared <= 99 * 1024, "as the smallest of today's GPUs have it"


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
    several = {"lstm_products rows": 3, "lstm_products sums": 2}  # of different sizes, which are constants
    assert variants() == dict.fromkeys(variants(), 1) | several
    assert len(variants()) == 11, "all but the list of rows and the exchanged steps"
    lstm(5, 8, [3, 2], backward=False)
    assert variants()["lstm_narrow forward"] == 2, "another variant is counted"


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
            how = []
        else:
            forward, backward, precisions = lstm_wide.wide_lstm, lstm_wide.wide_lstm_backward, ["tf32x3"]
            how = [True]
        inputs = (make(5, 8), torch.zeros(1, 4 * hidden, 8), weight_hh, make(1, 4 * hidden), starts, lengths)
        _, *kept, h_n, c_n = forward(*inputs, *state, *precisions, True, True, False)
        gradients = (make(5, hidden), make(*h_n.shape), make(*c_n.shape))
        backward(*inputs, *kept, *gradients, *precisions, False, *how)
    if hidden == 6:
        assert list(variants().values()) == [1, 1]
    else:
        products = {"lstm_products rows": 3, "lstm_products sums": 2}
        assert variants() == {"lstm_wide forward": 1, "lstm_wide backward": 1} | products


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
