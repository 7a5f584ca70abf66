"""Compiles the C code with sanitizers (address, undefined behaviour), and calls it: 300 valid calls, 100 hostile ones.

    python .ci/sanitized.py            with CC, or the first of cc, gcc and clang, in a copy of the checkout; Linux
    python .ci/sanitized.py --calls 30 --hostile 10

Valid calls are compared with the layers. Hostile ones have contracts off; each may be refused or give numbers, and must
touch no memory that is not its own: tensors lie in the sanitizer's memory too. One more call reads beyond the end of a
tensor on purpose and must be caught, or all the others would say nothing.
"""

import argparse
import ctypes
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FLAGS = "-g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
LEVELS = ("v2", "v3", "v4")


# Around the calls: the build, and one process for each level.


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--hostile", type=int, default=100)
    parser.add_argument("--in-process", choices=("calls", "fault"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process == "fault":
        fault()
    elif options.in_process:
        calls(options.calls, options.hostile)
    else:
        with tempfile.TemporaryDirectory() as folder:
            outside(Path(folder), options.calls, options.hostile)


def outside(copy: Path, valid: int, hostile: int) -> None:
    for name in ("src", ".build"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("native.so", "__pycache__"))
    compiler = os.environ.get("CC") or next(name for name in ("cc", "gcc", "clang") if shutil.which(name))
    clang = "clang" in said(compiler, "--version")
    shared = " -shared-libasan" if clang else ""
    environment = os.environ | {"CC": compiler, "CFLAGS": FLAGS, "LDFLAGS": FLAGS + shared}
    subprocess.run([sys.executable, copy / ".build/native.py"], env=environment, check=True)
    # The sanitizer must be loaded first; where C++ throws, it looks for the C++ library.
    runtimes = ("libclang_rt.asan-x86_64.so" if clang else "libasan.so", "libstdc++.so.6")
    asked = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in runtimes
    ]
    # Python itself never gives all back. A compiler's own libraries must not reach the program.
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    environment |= {
        "LD_PRELOAD": " ".join(asked),
        "PYTHONPATH": str(copy / "src"),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    here = [sys.executable, __file__, "--in-process"]
    for at, level in enumerate(LEVELS):
        counts = [f"--calls={len(range(at, valid, 3))}", f"--hostile={len(range(at, hostile, 3))}"]
        subprocess.run([*here, "calls", *counts], env=environment | {"TOWERS_NATIVE": level}, check=True)
    caught = subprocess.run([*here, "fault"], env=environment, capture_output=True, text=True, check=False)
    if caught.returncode == 0 or "heap-buffer-overflow" not in caught.stderr:
        sys.exit(f"a read beyond the end was not caught, so that all of this says nothing:\n{caught.stderr[-2000:]}")
    print("and a read beyond the end, made on purpose, was caught")


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# In the process.


def fault() -> None:
    import torch

    from towers.kernels.cpu.library import code

    own, source, target = code(torch.float32), torch.zeros(8, 4), torch.zeros(4096)
    assert own is not None
    at = (ctypes.c_void_p(target.data_ptr()), ctypes.c_void_p(source.data_ptr()))
    own.phrases_pack(*at, ctypes.c_int64(8), ctypes.c_int64(40))  # it is 4


def calls(valid: int, hostile: int) -> None:
    import torch

    from towers.contracts import checks
    from towers.kernels import cpu
    from towers.kernels.cpu import library

    if cpu.why_not() is not None:
        print(f"not run: {cpu.why_not()}")
        return
    drawn, refused = random.Random(0), 0
    for number in range(valid):
        torch.manual_seed(number)
        torch.set_num_threads(drawn.choice((1, 2)))
        drawn.choice((tower, tower, pair, lstm, search))(drawn)
    with checks("off"):
        for number in range(hostile):
            torch.manual_seed(number)
            try:
                HOSTILE[number % len(HOSTILE)](drawn)
            except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError):
                refused += 1
    print(f"{library.level()}: {valid} valid calls as the layers; {hostile} hostile ones, {refused} of them refused")


def drawn_tower(drawn: random.Random) -> Any:
    import torch

    from towers import Tower

    pool = drawn.choice((1, 2, 4))
    return Tower(
        vector_width=drawn.choice((1, 3, 16, 33, 300)), kernel_words=drawn.choice((1, 2, 3)), pool=pool,
        filters=pool * drawn.choice((1, 3, 8)), hidden=drawn.choice((1, 3, 6, 17)),
        dtype=drawn.choice((torch.float32, torch.float64)),
    )  # fmt: skip


def drawn_sentences(drawn: random.Random, module: Any, count: int) -> tuple[Any, ...]:
    import torch

    from towers import Ragged

    least, dtype, width = module.kernel_words, module.weight.dtype, module.vector_width
    lengths = torch.tensor([least + drawn.randrange(12) for _ in range(count)], dtype=torch.int64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    tokens, most = int(offsets[-1]), max([least, *lengths.tolist()])
    kind = drawn.choice(("alike", "lengths", "ragged", "ids"))
    if kind == "ragged":
        return (Ragged(torch.randn(tokens, width, dtype=dtype), offsets),)
    if kind == "ids":
        return (Ragged(torch.randint(0, 9, (tokens,)), offsets, table=torch.randn(9, width, dtype=dtype)),)
    x = torch.randn(count, most, width, dtype=dtype, requires_grad=drawn.random() < 0.5)
    return (x, lengths) if kind == "lengths" else (x,)


def close(found: Any, wanted: Any) -> None:
    import torch

    for one, other in zip(found, wanted, strict=True):
        bound, largest = 1e-9 if one.dtype == torch.float64 else 2e-3, float(other.abs().amax()) if other.numel() else 0
        torch.testing.assert_close(one, other, rtol=bound, atol=bound * max(1.0, largest))


def result_and_gradients(module: Any, given: tuple[Any, ...]) -> list[Any]:
    import torch

    result = module(*given)
    inputs = [*module.parameters(), *[one for one in given if isinstance(one, torch.Tensor) and one.requires_grad]]
    found = torch.autograd.grad(result.square().sum(), inputs, materialize_grads=True, allow_unused=True)
    return [result.detach(), *found]


def by_layers(module: Any, call: Callable[[], Any]) -> Any:
    handle = module.conv.register_forward_hook(lambda *_: None)
    try:
        return call()
    finally:
        handle.remove()


def tower(drawn: random.Random) -> None:
    module = drawn_tower(drawn)
    given = drawn_sentences(drawn, module, drawn.choice((0, 1, 2, 5, 40)))
    wanted = by_layers(module, lambda: result_and_gradients(module, given))
    close(result_and_gradients(module, given), wanted)


def pair(drawn: random.Random) -> None:
    import torch

    from towers import TwoTowers

    left = drawn_tower(drawn)
    model, count = TwoTowers(left, left, dense=drawn.choice((1, 5, 16))).to(left.weight.dtype), drawn.choice((1, 3, 9))
    one, other = (drawn_sentences(drawn, left, count) for _ in range(2))
    lengths = [part[1] if len(part) == 2 else None for part in (one, other)]
    given = one[0], other[0], *lengths
    wanted = by_layers(left, lambda: result_and_gradients(model, given))
    close(result_and_gradients(model, given), wanted)
    with torch.no_grad():
        close([model(*given)], wanted[:1])


def lstm(drawn: random.Random) -> None:
    import torch

    from towers import Ragged, RaggedLSTM
    from towers.layers.word_table import WordTable

    inputs, hidden = drawn.choice((1, 5, 40)), drawn.choice((1, 3, 8, 17, 33))
    dtype = drawn.choice((torch.float32, torch.float64))
    module = RaggedLSTM(
        inputs, hidden, num_layers=drawn.choice((1, 2)), bidirectional=drawn.random() < 0.5, dtype=dtype
    )
    lengths = torch.tensor([drawn.randrange(9) for _ in range(drawn.choice((1, 2, 20)))])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    x = torch.randn(int(offsets[-1]), inputs, dtype=dtype, requires_grad=True)
    output, (h, c) = module(Ragged(x, offsets))
    (output.values.sum() + h.square().sum() + c.sum()).backward()
    for at, length in enumerate(lengths.tolist()):
        if length:
            own = module.to_torch()(x[offsets[at] : offsets[at + 1]].unsqueeze(0))[0][0]
            close([output.values[offsets[at] : offsets[at + 1]].detach()], [own.detach()])
    with torch.no_grad():
        wanted = [output.values.detach(), h.detach(), c.detach()]
        found, state = module(Ragged(x, offsets))
        close([found.values, *state], wanted)
        words = WordTable(12, x)
        for there in (5, 12):
            table = words.add(torch.randn(there - len(words), inputs, dtype=dtype))
            sentences = Ragged(torch.randint(there, (len(x),)), offsets, table=table)
            output, state_of_ids = module(sentences)
            wanted_of_ids = module(sentences.vectors())
            close([output.values, *state_of_ids], [wanted_of_ids[0].values, *wanted_of_ids[1]])
        padded, _ = Ragged(x, offsets).to_padded()
        close(module(padded, lengths=lengths)[1], wanted[1:])


def search(drawn: random.Random) -> None:
    import torch

    from towers import Tower, TwoTowers
    from towers.kernels.cpu import topk_call
    from towers.search import Index
    from towers.search import items as laid_out

    laid_out.FEWEST = topk_call.BOX  # boxes for few items too
    pace = drawn.choice((1e-3, float("inf")))  # walks are given up, or are not
    topk_call.pace = lambda *_: pace
    hidden, dtype = drawn.choice((1, 6, 9)), drawn.choice((torch.float32, torch.float64))
    towers = [Tower(vector_width=3, hidden=hidden) for _ in range(2)]
    model = TwoTowers(*towers, dense=drawn.choice((1, 5, 16))).to(dtype)
    items, queries = (torch.randn(count, hidden, dtype=dtype) for count in (drawn.choice((9, 300, 3000)), 5))
    k = min(drawn.choice((1, 7, 40)), len(items))  # in order, or in a buffer
    index = Index(model)
    index.add(items)
    with torch.no_grad():
        close([index.search(queries, k)[0]], [model.compare(queries.unsqueeze(1), items).topk(k).values])
    features = ("absolute difference", "product", "positive difference")[: drawn.choice((1, 3))]
    model = TwoTowers(*towers, dense=drawn.choice((1, 5, 16)), features=features).to(dtype)
    index = Index(model)
    index.add(items)
    with torch.no_grad():
        close([index.search(queries, k)[0]], [model.compare(queries.unsqueeze(1), items).topk(k).values])
    index.search(queries, 1, candidates=7)


# Hostile calls. Each changes one thing that C reads.


def wrong_lengths(drawn: random.Random) -> None:
    import torch

    module = drawn_tower(drawn)
    x = torch.randn(3, 6, module.vector_width, dtype=module.weight.dtype)
    numbers = [drawn.choice((-(2**63), -1, 0, 1, 6, 7, 2**31, 2**63 - 1)) for _ in range(drawn.choice((2, 3, 4)))]
    result_and_gradients(module, (x, torch.tensor(numbers)))


def wrong_offsets(drawn: random.Random) -> None:
    import torch

    from towers import Ragged

    module = drawn_tower(drawn)
    offsets = torch.tensor([drawn.choice((0, 5, 12, -3, 99, 2**62)) for _ in range(4)])
    rows = torch.randn(12, module.vector_width, dtype=module.weight.dtype)
    result_and_gradients(module, (Ragged.unchecked(rows, offsets),))


def wrong_ids(drawn: random.Random) -> None:
    import torch

    from towers import Ragged

    module = drawn_tower(drawn)
    ids = torch.tensor([drawn.choice((0, 4, 5, -1, 2**40, -(2**62))) for _ in range(12)])
    table = torch.randn(5, module.vector_width, dtype=module.weight.dtype)
    with torch.set_grad_enabled(drawn.random() < 0.5):
        module(Ragged.unchecked(ids, torch.tensor([0, 5, 12]), None, table))


def wrong_weight(drawn: random.Random) -> None:
    import torch

    module = drawn_tower(drawn)
    x = torch.randn(3, 6, module.vector_width, dtype=module.weight.dtype)
    module(x)
    name = drawn.choice([name for name, _ in module.named_parameters()])
    part = dict(module.named_parameters())[name]
    change: Any = drawn.choice((
        lambda data: data[:-1].clone(), lambda data: data[:0], lambda data: data.half(), lambda data: data.unsqueeze(0),
        lambda data: data.t() if data.dim() == 2 else data, lambda data: torch.empty_like(data, device="meta"),
        lambda data: data[:1].expand_as(data),
    ))  # fmt: skip
    part.data = change(part.data)
    result_and_gradients(module, (x,))


def small_storage(drawn: random.Random) -> None:
    import torch

    module = drawn_tower(drawn)
    x = torch.randn(3, 6, module.vector_width, dtype=module.weight.dtype)
    which, early = drawn.choice((x, *module.parameters())), drawn.random() < 0.5
    if early:
        which.untyped_storage().resize_(drawn.randrange(max(which.nbytes, 1)))
    result = module(x).sum()
    which.untyped_storage().resize_(0)
    result.backward()


def changed_on_the_way(drawn: random.Random) -> None:
    import torch

    module = drawn_tower(drawn)
    x = torch.randn(3, 6, module.vector_width, dtype=module.weight.dtype)
    change: Any = drawn.choice((
        lambda kept: kept[:1].clone(), lambda kept: kept.half(), lambda kept: kept.flatten(),
        lambda kept: torch.full_like(kept, -1e30), lambda kept: kept * torch.nan,
    ))  # fmt: skip
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, change):
        result = module(x, torch.tensor([6, 4, 5])).sum()
    result.backward()


def wrong_lstm(drawn: random.Random) -> None:
    import torch

    from towers import Ragged, RaggedLSTM

    module = RaggedLSTM(4, drawn.choice((1, 8, 20)), bias=drawn.choice((True, False, "single")))
    places = [drawn.choice((-(2**63), -1, 0, 2, 5, 12, 13, 2**62, 2**63 - 1)) for _ in range(drawn.choice((2, 3, 4)))]
    hx = drawn.choice((None, (torch.zeros(1, 2, module.hidden_size), torch.zeros(1, 2, module.hidden_size)[..., :1])))
    x = torch.randn(12, 4)
    if drawn.random() < 0.3:
        which = drawn.choice((x, *module.parameters()))
        which.data = drawn.choice((which.data[:-1].clone(), which.data[:1].expand_as(which), which.data.double()))
    if drawn.random() < 0.2:
        drawn.choice((x, *module.parameters())).untyped_storage().resize_(4)
    with torch.no_grad():
        if drawn.random() < 0.5:
            module(Ragged.unchecked(x, torch.tensor([drawn.choice((0, places[0])), *places[1:]])), hx)
        else:
            module(x.unflatten(0, (-1, 1))[:3].expand(3, 4, 4), hx, lengths=torch.tensor(places))


def wrong_operation(drawn: random.Random) -> None:
    import torch

    module = drawn_tower(drawn)
    lstm, dtype = module.lstm, module.weight.dtype
    given = [torch.randn(3, 6, module.vector_width, dtype=dtype), None, None, module.conv.weight, module.conv.bias]
    given += [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, module.pool.size]
    at = drawn.randrange(9)
    shape = drawn.choice(((3,), (2, 2), (12, 1), (0,)))
    given[at] = drawn.choice((0, -1, 3, 2**62)) if at == 8 else torch.randn(shape, dtype=dtype)
    torch.ops.towers.tower(*given)


def wrong_state(drawn: random.Random) -> None:
    import torch

    from towers import RaggedLSTM

    module, x = RaggedLSTM(4, 3), torch.randn(3, 6, 4)
    state = [torch.randn(1, drawn.choice((1, 2, 3, 9)), drawn.choice((1, 3, 9))) for _ in range(2)]
    lengths = torch.tensor([drawn.choice((-1, 0, 6, 7, 2**40)) for _ in range(drawn.choice((2, 3)))])
    output, (h, c) = module(x, tuple(state), lengths=lengths)
    (output.sum() + h.sum() + c.sum()).backward()


HOSTILE = (
    wrong_lengths, wrong_offsets, wrong_ids, wrong_weight, small_storage, changed_on_the_way, wrong_operation,
    wrong_state, wrong_lstm,
)  # fmt: skip

if __name__ == "__main__":
    main()
