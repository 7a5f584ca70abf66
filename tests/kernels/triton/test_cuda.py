"""On a GPU, at real sizes. One command runs these and all others that need one: pytest -m cuda"""

import copy
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor

from towers import Ragged, RaggedLSTM, Tower, TwoTowers

from ...helpers import reference
from . import real_cases
from .cases import Case, Result, close, compare, expect, run
from .gpu_tools import no_waiting, sanitizer_refusal
from .rounding import bounds

pytestmark = pytest.mark.cuda
CUDA = torch.device("cuda")


@pytest.mark.parametrize("case", real_cases.SIZES.values(), ids=real_cases.SIZES.keys())
def test_real_sizes_against_float64(case):
    wanted = expect(case)
    compare(run(case, CUDA), wanted, *bounds(case, wanted))


@pytest.mark.parametrize("seed", range(100))
def test_random_batches(seed):
    case = real_cases.drawn(seed)
    wanted = expect(case)
    compare(run(case, CUDA), wanted, *bounds(case, wanted))


LARGE = {
    "few units": Case(6, real_cases.random_lengths(1, 300, 80), 8, gaps=True, precision="tf32x3"),
    "many units": Case(64, real_cases.random_lengths(2, 300, 80), 8, gaps=True, precision="tf32x3"),
    "weights too large for registers": Case(128, real_cases.random_lengths(3, 100, 40), 8, precision="tf32x3"),
}
large = pytest.mark.parametrize("case", LARGE.values(), ids=LARGE.keys())


def same_bits(one: Result, other: Result) -> None:
    parts = zip((one.h_n, one.c_n, *one.outputs), (other.h_n, other.c_n, *other.outputs), strict=True)
    assert all(torch.equal(a, b) for a, b in parts)
    for name, gradient in one.gradients.items():
        assert torch.equal(gradient, other.gradients[name]), name


@large
def test_the_same_bits_twice(case):
    first = run(case, CUDA)
    for _ in range(3):
        same_bits(first, run(case, CUDA))


def poison() -> None:
    """Free memory is full of NaN afterwards."""
    torch.cuda.synchronize()
    blocks = [
        torch.full((size,), float("nan"), device=CUDA) for size in (2**28, *[2**20] * 50, *[2**12] * 500, *[64] * 500)
    ]
    torch.cuda.synchronize()
    del blocks


@large
def test_no_memory_is_read_before_it_is_written(case):
    first = run(case, CUDA)
    poison()
    second = run(case, CUDA)
    assert second.h_n.isfinite().all()
    same_bits(first, second)


def example(kind: str, seed: int = 0, batch: int = 64) -> tuple[object, ...]:
    """What a tower is called with; always the same number of tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 30, (batch // 2,), generator=generator)
    lengths = torch.cat([lengths, 32 - lengths])
    tokens = int(lengths.sum())
    if kind == "padded":
        return torch.randn(batch, 30, 300, generator=generator).to(CUDA), lengths.to(CUDA)
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(CUDA)
    if kind == "ids":
        table = torch.randn(500, 300, generator=torch.Generator().manual_seed(9)).to(CUDA)
        ids = torch.randint(0, 500, (tokens,), generator=generator).to(CUDA)
        return (Ragged.unchecked(ids, offsets, None, table),)
    return (Ragged.unchecked(torch.randn(tokens, 300, generator=generator).to(CUDA), offsets),)


kinds = pytest.mark.parametrize("kind", ["padded", "vectors", "ids"])


def exact_states(tower: Tower, arguments: tuple[object, ...]) -> Tensor:
    exact = copy.deepcopy(tower).cpu().double()
    if isinstance(arguments[0], Ragged):
        rows = [row.cpu().double() for row in arguments[0].vectors().to_list()]
    else:
        rows = [row[:length].cpu().double() for row, length in zip(*arguments, strict=True)]
    return torch.stack([reference.tower(row, exact) for row in rows]).detach()


def warm(module: torch.nn.Module, *calls: tuple[object, ...]) -> None:
    for arguments in calls:
        module(*arguments).square().sum().backward()
    torch.cuda.synchronize()


@kinds
def test_a_tower_does_not_wait_for_the_device(kind):
    tower = reference.number_weights(Tower()).to(CUDA)
    warm(tower, example(kind))
    given = example(kind, seed=1, batch=128)
    with no_waiting():
        found = tower(*given)
        found.square().sum().backward()
        with torch.no_grad():
            tower(*given)
    close(found, exact_states(tower, given), 1e-4, "states")


@pytest.mark.parametrize("hidden", [6, 16, 64, 128])
def test_a_layer_does_not_wait_for_the_device(hidden):
    layer = RaggedLSTM(8, hidden, num_layers=2, bidirectional=True, device=CUDA)
    words, lengths = torch.randn(40, 20, 8, device=CUDA), torch.randint(0, 21, (40,), device=CUDA)
    layer(words, lengths=lengths)[0].sum().backward()
    with no_waiting():
        layer(words, lengths=lengths)[0].sum().backward()
        layer.last(words, lengths=lengths)


@kinds
def test_a_graph_takes_other_numbers_and_other_lengths(kind):
    """Captured once with its gradients, replayed on other words and lengths of the same number of tokens."""
    tower = reference.number_weights(Tower()).to(CUDA)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        warm(tower, example(kind), example(kind))
    torch.cuda.current_stream().wait_stream(stream)
    given, other = example(kind), example(kind, seed=1)
    tower.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = tower(*given)
        found.square().sum().backward()
    for place, part in zip(given, other, strict=True):
        if isinstance(place, Ragged):
            place.values.copy_(part.values)
            place.offsets.copy_(part.offsets)
        else:
            place.copy_(part)
    graph.replay()
    states, gradients = found.clone(), [parameter.grad.clone() for parameter in tower.parameters()]
    close(states, exact_states(tower, other), 1e-4, "states")
    tower.zero_grad(set_to_none=True)
    tower(*other).square().sum().backward()
    for parameter, gradient in zip(tower.parameters(), gradients, strict=True):
        close(gradient, parameter.grad.cpu().double(), 1e-4, "gradient")


@kinds
def test_compiled_towers(kind):
    tower = reference.number_weights(Tower()).to(CUDA)
    compiled = torch.compile(tower, fullgraph=True, dynamic=True)
    for seed, batch in ((0, 64), (1, 32), (2, 128)):
        given = example(kind, seed, batch)
        tower.zero_grad()
        found = compiled(*given)
        found.square().sum().backward()
        gradients = [parameter.grad.clone() for parameter in tower.parameters()]
        tower.zero_grad()
        wanted = tower(*given)
        wanted.square().sum().backward()
        close(found, wanted.cpu().double(), 1e-5, "states")
        for parameter, gradient in zip(tower.parameters(), gradients, strict=True):
            close(gradient, parameter.grad.cpu().double(), 1e-4, "gradient")


def test_exported_towers():
    model = reference.number_weights(TwoTowers()).to(CUDA).eval()
    (left, lengths), right = example("padded"), torch.randn(64, 5, 300, device=CUDA)
    batch, words = torch.export.Dim("batch"), torch.export.Dim("words", min=2)
    shapes = {
        "left": {0: batch, 1: words}, "right": {0: batch}, "left_lengths": {0: batch},
    }  # fmt: skip
    with torch.no_grad():
        program = torch.export.export(model, (left, right, lengths), dynamic_shapes=shapes)
        found = program.module()(left[:50, :25].contiguous(), right[:50], lengths[:50].clamp(max=25))
        wanted = model(left[:50, :25].contiguous(), right[:50], lengths[:50].clamp(max=25))
    close(found, wanted.cpu().double(), 1e-5, "logits")


def test_nothing_is_compiled_again_for_other_batches_and_lengths():
    from towers.kernels.triton import lstm_narrow, lstm_wide, phrase_features

    kernels = [phrase_features.forward_kernel]
    kernels += [
        kernel for module in (lstm_narrow, lstm_wide) for kernel in (module.forward_kernel, module.backward_kernel)
    ]

    def count() -> int:
        return sum(len(cache[0]) for kernel in kernels for cache in kernel.device_caches.values())

    tower, wide = Tower(device=CUDA), RaggedLSTM(8, 64, device=CUDA)

    def go(batch: int, words: int) -> None:
        lengths = torch.randint(2, words + 1, (batch,), device=CUDA)
        tower(torch.randn(batch, words, 300, device=CUDA), lengths).sum().backward()
        wide(torch.randn(batch, words, 8, device=CUDA), lengths=lengths)[0].sum().backward()

    go(3, 7)
    before = count()
    for batch, words in ((1, 2), (16, 16), (64, 33), (500, 3), (2, 1000)):
        go(batch, words)
    assert count() == before > 0


SANITIZED = """
    import torch
    from towers import RaggedLSTM, Tower
    words, lengths = torch.randn(9, 7, 300, device="cuda"), torch.tensor([2, 7, 3, 2, 5, 4, 7, 6, 2], device="cuda")
    words.requires_grad_()
    Tower(device="cuda")(words, lengths).sum().backward()
    for hidden in (6, 16, 32, 64, 128):
        layer = RaggedLSTM(8, hidden, bidirectional=True, device="cuda")
        layer(torch.randn(9, 7, 8, device="cuda", requires_grad=True), lengths=lengths)[0].sum().backward()
    torch.cuda.synchronize()
"""


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_the_sanitizer_finds_nothing(tool):
    program = shutil.which("compute-sanitizer")
    if program is None:
        pytest.skip("no compute-sanitizer here: it comes with the CUDA toolkit")
    if reason := sanitizer_refusal(program, tool):
        pytest.skip(reason)
    code = textwrap.dedent(SANITIZED)
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
