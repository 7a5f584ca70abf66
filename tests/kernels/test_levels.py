"""The levels of x86-64 beside each other: v3 and v4 give the same bits, and v2, which rounds more often, agrees with them."""

import runpy
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from tests.helpers.native import at_level
from torch import Tensor

from towers import Ragged, RaggedLSTM, Tower, TwoTowers
from towers.kernels.cpu import library

LENGTHS = [5, 1, 0, 17, 2, 9, 9, 30, 4, 4, 4, 11, 3, 80, 6, 7, 8, 1, 2, 26, 12, 13, 5, 5, 5, 0, 3, 3, 19, 21, 2, 40, 9]


def gradients_too(module: torch.nn.Module, results: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The results, and the gradients of inputs and weights."""
    total = sum((part * torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view_as(part)).sum() for part in results)
    inputs = [*inputs, *module.parameters()]
    return [part.detach() for part in (*results, *torch.autograd.grad(total, inputs))]


def lstm(inputs: int, hidden: int, dtype: torch.dtype, count: int) -> list[Tensor]:
    module = RaggedLSTM(inputs, hidden, bidirectional=True, dtype=dtype)
    lengths = LENGTHS[:count]
    values = torch.randn(sum(lengths), inputs, dtype=dtype).requires_grad_()
    state = [torch.randn(2, count, hidden, dtype=dtype).requires_grad_() for _ in range(2)]
    output, ends = module(Ragged(values, torch.tensor([0, *lengths]).cumsum(0)), tuple(state))
    return gradients_too(module, [output.values, *ends], [values, *state])


def tower(width: int, filters: int, dtype: torch.dtype, *, kernel_words: int = 2, ids: bool = False) -> list[Tensor]:
    module = Tower(vector_width=width, filters=filters, kernel_words=kernel_words, dtype=dtype)
    lengths = [length + kernel_words for length in LENGTHS]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    table = torch.randn(50 if ids else sum(lengths), width, dtype=dtype).requires_grad_()
    sentences = Ragged(torch.arange(sum(lengths)) % 50, offsets, table=table) if ids else Ragged(table, offsets)
    return gradients_too(module, [module(sentences)], [table])


def pair(width: int, filters: int, dtype: torch.dtype, *, count: int) -> list[Tensor]:
    towers = [Tower(vector_width=width, filters=filters, dtype=dtype) for _ in range(2)]
    module = TwoTowers(*towers).to(dtype)
    left, right = (torch.randn(count, words, width, dtype=dtype) for words in (9, 5))
    with torch.no_grad():
        return [module(left, right), module.probability(left, right), module.encode_left(left)]


CASES = {
    f"{kind} {width} {size} {str(dtype)[6:]} {more}".strip(): (run, width, size, dtype, options)
    for dtype in (torch.float32, torch.float64)
    for kind, run, width, size, more, options in [
        *[
            ("lstm", lstm, 5, hidden, "", {"count": len(LENGTHS)})
            for hidden in (1, 2, 3, 4, 5, 6, 8, 9, 16, 17, 24, 33)
        ],
        ("lstm", lstm, 40, 20, "two sentences", {"count": 2}),
        ("tower", tower, 20, 8, "", {}),
        ("tower", tower, 300, 32, "", {}),
        ("tower", tower, 33, 12, "three words", {"kernel_words": 3}),
        ("tower", tower, 19, 32, "ids", {"ids": True}),
        ("pair", pair, 300, 32, "alone", {"count": 1}),
        ("pair", pair, 40, 16, "beside others", {"count": 7}),
    ]
}


@lru_cache(None)
def found(level: str, case: str) -> list[Tensor]:
    run, width, size, dtype, options = CASES[case]
    with at_level(level):
        torch.manual_seed(0)
        return run(width, size, dtype=dtype, **options)


@pytest.mark.parametrize("case", CASES)
def test_v3_and_v4_give_the_same_bits(case: str):
    for number, pair in enumerate(zip(found("v3", case), found("v4", case), strict=True)):
        assert torch.equal(*pair), f"{CASES[case]}, result {number}"


@pytest.mark.parametrize("case", CASES)
def test_v2_agrees_to_rounding(case: str):
    """To 1e-6 of the largest number of each result, 1e-14 in float64; a sum of n numbers may be off by more."""
    for one, other in zip(found("v2", case), found("v3", case), strict=True):
        bound = (1e-6 if one.dtype == torch.float32 else 1e-14) * max(1.0, float(other.abs().max()))
        assert (one - other).abs().max() <= bound


@pytest.mark.parametrize("level", ["v2", "v3", "v4"])
def test_a_level_is_as_nn_lstm(level: str):
    with at_level(level):
        lstm, x = RaggedLSTM(4, 17), torch.randn(3, 5, 4)
        assert str(lstm.backend(x)) == f"native: C code, compiled for x86-64-{level}"
        torch.testing.assert_close(lstm(x)[0], lstm.to_torch()(x)[0], rtol=0, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux says what the processor can do")
def test_the_best_level_is_taken_where_none_is_asked_for():
    if library.level() is None:
        pytest.skip(f"the C code cannot run: {library.why_not()}")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    flags = next(line for line in lines if line.startswith("flags")).split()
    needed = {"v4": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}, "v3": {"avx2", "fma", "bmi2"}}
    best = next((level for level, features in needed.items() if features <= set(flags)), "v2")
    assert library.level() == f"x86-64-{best}"


@pytest.mark.parametrize("level", ["v3", "v4"])
def test_the_bits_are_those_of_other_machines(level: str):
    """Of arm64 too, where the same file ran."""
    script = runpy.run_path(str(Path(__file__).parents[2] / ".ci/native_runs.py"))
    with at_level(level):
        assert script["digest"]() == script["BITS"]
