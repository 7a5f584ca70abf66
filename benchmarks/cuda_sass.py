"""The kernels' machine code for compute capability 9.0, made and read without a GPU.

    python benchmarks/run.py cuda --sass

A launch is compiled as it would be started, by the Triton that is installed. Registers, spills and shared memory are
what the assembler says. A step is one pass through the loop over the time steps; of weights' gradients, over tiles of
rows; of products of rows, of the phrases' forward pass, and of kernels without a loop, it is all. A loop inside a step
counts as often as it runs. Instructions are those of one warp. `benchmarks/results/sm_90.json` keeps the rows of each
version of Triton, one for each kernel and size, beside them the counts of the design before ("before"), and what
`cuda_counts` counts ("work").
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import triton
from rich import box
from rich.console import Console
from rich.table import Table
from triton.backends.compiler import GPUTarget

from towers.kernels.triton import best_items, lstm_exchanged, lstm_narrow, lstm_products, lstm_wide, phrase_features

MODULES = (lstm_narrow, lstm_wide, lstm_exchanged, lstm_products, phrase_features, best_items)
RESULTS = Path(__file__).parent / "results" / "sm_90.json"
SHARED_MEMORY = 227 * 1024  # bytes that a block can have at compute capability 9.0


class NoDevice:
    """What Triton asks of a device before it compiles for it."""

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@dataclass(frozen=True)
class Usage:
    """Of one kernel in machine code."""

    sentences: int  # or tokens, rows or queries, of a block
    warps: int
    registers: int
    spilled: int  # bytes of each thread
    shared: int  # bytes of a block
    instructions: int  # of one warp in one step
    mufu: int  # of these, on the unit for exponentials and reciprocals
    products: int  # of these, on the matrix units
    barriers: int  # of these, that wait for other warps


class Resources(NamedTuple):
    """Of one kernel, as the assembler says."""

    registers: int
    spilled: int
    shared: int


class Compiler:
    """Stands where kernels are started; compiles what would be started, on the given tensors, and reads it."""

    def __init__(self, read: Callable[[Any, Any, dict[str, Any]], Any]) -> None:
        self.read, self.built = read, list[Any]()

    def __call__(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        done = kernel.run(*arguments, grid=grid, warmup=True, **options, enable_fp_fusion=True)
        self.built.append(self.read(done, kernel, options))


def kernels() -> dict[str, Any]:
    """By module and name."""
    return {
        f"{module.__name__.rpartition('.')[2]} {name.removesuffix('_kernel')}": value
        for module in MODULES
        for name, value in vars(module).items()
        if name.endswith("_kernel")
    }


@contextmanager
def compiling(
    cache: Path, read: Callable[[Any, Any, dict[str, Any]], Any], modules: Sequence[ModuleType] = MODULES
) -> Iterator[Compiler]:
    """Launches of these modules compile for compute capability 9.0, and start nothing; those of others do nothing."""
    instead, found = Compiler(read), kernels().values()
    for kernel in found:
        kernel.device_caches.clear()
    with patch.object(triton.runtime.driver, "_active", NoDevice()), triton.knobs.cache.scope(), ExitStack() as stack:
        triton.knobs.cache.dir = str(cache)
        for module in MODULES:
            if hasattr(module, "start"):
                start = instead if module in modules else lambda *_, **__: None
                stack.enter_context(patch.object(module, "start", start))
        try:
            yield instead
        finally:
            for kernel in found:
                kernel.device_caches.clear()


def _dump(kernel: Any, what: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    cubin = Path(triton.knobs.cache.dir) / f"{kernel.hash}.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    return subprocess.run([tool, what, cubin], capture_output=True, text=True, check=True).stdout


def resources(kernel: Any, *_: Any) -> Resources:
    report = _dump(kernel, "-res-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", report)
    assert found, report
    return Resources(int(found[1]), int(found[2]) + int(found[3]), kernel.metadata.shared)


def usage(done: Any, kernel: Any, options: dict[str, Any]) -> Usage:
    """What the assembler and the instructions say."""
    tile = next(options[name] for name in ("B", "TILE", "QUERIES") if name in options)
    stream, whole, trips = options.get("STREAM", 0), False, 1  # trips: how often a loop inside a step runs
    if kernel in (phrase_features.forward_kernel, lstm_products.rows_kernel):
        whole, trips = True, -(-options.get("WIDTH", options.get("INPUTS", 0)) // options["CHUNK"])
    elif stream:
        trips = -(-options["HIDDEN"] // stream)
    a_step = step(_dump(done, "-sass"), trips, whole=whole)
    return Usage(tile, done.metadata.num_warps, *resources(done), *a_step)


LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[0-9T]+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", re.MULTILINE)
COUNTED = (r".", r"MUFU", r"HMMA|HGMMA", r"BAR|WARPSYNC")


def step(sass: str, trips: int, *, whole: bool) -> tuple[int, ...]:
    """Instructions of the loop over steps: all, and those of `COUNTED`.

    Of the loops it is the longest that no other holds, divided by the passes that the assembler has unrolled: a loop
    for what is left over then has fewer exponentials.
    """
    lines = [(int(at, 16), name, rest) for at, name, rest in LINE.findall(sass)]
    loops = [
        (int(target[1], 16), at)
        for at, name, rest in lines
        if name == "BRA" and (target := re.search(r"(0x[0-9a-f]+)", rest)) and int(target[1], 16) < at
    ]
    end = (0, max(at for at, _, _ in lines))
    loops = [end, *loops] if whole or not loops else loops

    def count(loop: tuple[int, int], pattern: str) -> int:
        return sum(loop[0] <= at <= loop[1] and re.match(pattern, name) is not None for at, name, _ in lines)

    def holds(outer: tuple[int, int], inner: tuple[int, int]) -> bool:
        return outer != inner and outer[0] <= inner[0] and inner[1] <= outer[1]

    outermost = [loop for loop in loops if not any(holds(other, loop) for other in loops)]
    unit = next((one for one in COUNTED[1:3] if any(count(loop, one) for loop in outermost)), ".")
    walk = max(outermost, key=lambda loop: (count(loop, unit), count(loop, ".")))
    least = min((found for loop in outermost if (found := count(loop, unit))), default=0)
    passes = max(1, count(walk, unit) // least) if least else 1
    inside = [loop for loop in loops if holds(walk, loop)]
    inside = [loop for loop in inside if not any(holds(other, loop) for other in inside)]
    return tuple(
        (count(walk, pattern) + (trips - 1) * sum(count(loop, pattern) for loop in inside)) // passes
        for pattern in COUNTED
    )


def lstm(
    hidden: int, width: int, lengths: list[int], *, dtype: torch.dtype = torch.float32, precision: str = "tf32x3",
    keep: bool = True, outputs: bool = True, gaps: bool = False, backward: bool = True,
) -> None:  # fmt: skip
    """Start what a layer's forward and backward pass start."""
    ends, longs = torch.tensor(lengths).cumsum(0), torch.tensor(lengths)
    narrow = max(hidden, width) <= 8
    module, precisions = (lstm_narrow, []) if narrow else (lstm_wide, [precision])
    weights = [torch.zeros(1, 4 * hidden, size, dtype=dtype) for size in (width, hidden)]
    inputs = (torch.zeros(sum(lengths), width, dtype=dtype), *weights, torch.zeros(1, 4 * hidden), ends - longs, longs)
    output, *kept, h_n, c_n = module.launch_forward(*inputs, None, None, *precisions, keep, outputs, gaps)
    if backward:
        how = [gaps] if narrow else [precision, gaps, True]
        module.launch_backward(*inputs, *kept, output if outputs else None, h_n, c_n, *how)


LSTMS: Mapping[str, tuple[int, int, torch.dtype, str]] = {
    "hidden 6": (6, 8, torch.float32, "tf32x3"),
    "hidden 6, many inputs": (6, 300, torch.float32, "tf32x3"),
    "hidden 16": (16, 16, torch.float32, "tf32x3"),
    "hidden 32": (32, 32, torch.float32, "tf32x3"),
    "hidden 64": (64, 64, torch.float32, "tf32x3"),
    "hidden 64, tf32": (64, 64, torch.float32, "tf32"),
    "hidden 64, bfloat16": (64, 64, torch.bfloat16, ""),
    "hidden 128": (128, 128, torch.float32, "tf32x3"),
    "hidden 128, tf32": (128, 128, torch.float32, "tf32"),
    "hidden 128, bfloat16": (128, 128, torch.bfloat16, ""),
}


def phrases(dtype: torch.dtype, precision: str) -> None:
    """Start what the convolution and the pool of a tower start: forward, lookup, both backward kernels."""
    values, weight, bias = torch.zeros(200, 300, dtype=dtype), torch.zeros(2, 32, 300, dtype=dtype), torch.zeros(32)
    features, winners = phrase_features.launch_forward(values, None, weight, bias, None, 4, precision, True)
    ids = torch.zeros(200, dtype=torch.int64)
    phrase_features.launch_lookup(torch.zeros(9, 2, 32), ids, bias, None, 4, False)
    phrase_features.launch_backward(values, None, weight, bias, None, winners, features, precision, True)


PHRASES: Mapping[str, tuple[torch.dtype, str]] = {
    "float32": (torch.float32, "tf32x3"), "tf32": (torch.float32, "tf32"), "bfloat16": (torch.bfloat16, ""),
}  # fmt: skip


def search(queries: int, items: int, k: int, longest: int) -> None:
    """Start what a search starts; no query may find `longest` items at most."""
    rows, weights, keep = torch.zeros(items, 16), torch.zeros(16), torch.ones(items, dtype=torch.bool)
    hidden = best_items.Hidden(torch.zeros(queries * longest).long(), torch.zeros(queries + 1).long(), longest)
    given = (torch.zeros(queries, 16), weights, 0.5, best_items.tiles_of(rows), items, k)
    best_items.launch(*given, least=-torch.inf, keep=keep, hidden=hidden)


PRODUCTS: Mapping[str, tuple[int, int, torch.dtype, str]] = {
    "float32": (64, 64, torch.float32, "tf32x3"), "tf32": (64, 64, torch.float32, "tf32"),
    "bfloat16": (64, 64, torch.bfloat16, ""),
}  # fmt: skip


class Job(NamedTuple):
    """What to start, the modules of which launches are read, and what these are called."""

    name: str
    run: Callable[[], None]
    modules: tuple[ModuleType, ...]
    launches: tuple[str, ...]


def jobs() -> Iterator[Job]:
    walks = (lstm_narrow, lstm_wide)
    for name, (hidden, width, dtype, precision) in LSTMS.items():
        given = partial(lstm, hidden, width, [3, 2], dtype=dtype, precision=precision)
        yield Job(name, partial(given, keep=False, outputs=False, backward=False), walks, ("last",))
        yield Job(name, given, walks, ("forward", "backward"))
    launches = ("list", "inputs", "list", "complete", "sums, inputs", "sums, states", "d_inputs")
    for name, (hidden, width, dtype, precision) in PRODUCTS.items():
        run = partial(lstm, hidden, width, [3, 2], dtype=dtype, precision=precision, gaps=True)
        yield Job(f"products, {name}", run, (lstm_products,), launches)
    launches = ("forward", "lookup", "backward, weight", "backward, values")
    for name, of in PHRASES.items():
        yield Job(f"phrases, {name}", partial(phrases, *of), (phrase_features,), launches)
    yield Job("search, k 10", lambda: search(64, 2000, 10, 3), (best_items,), ("search",))


def measure(cache: Path) -> list[dict[str, object]]:
    """A row for each kernel and size."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for name, run, modules, launches in jobs():
        with compiling(cache, usage, modules) as compiler:
            run()
        for launch, built in zip(launches, compiler.built, strict=True):
            rows[name, launch] = {"case": name, "kernel": launch, **asdict(built)}
    return list(rows.values())


def main(console: Console) -> None:
    """Print the tables, and put their rows into `RESULTS`."""
    import cuda_counts  # which the tests that read machine code do not need

    with TemporaryDirectory() as folder:
        rows = measure(Path(folder))
    write(rows, RESULTS, f"triton {triton.__version__}")
    console.print(table(rows))
    counted = list(cuda_counts.measure())
    write(counted, RESULTS, "work")
    console.print(cuda_counts.table(counted))
    print(RESULTS)


def write(rows: list[dict[str, object]], path: Path, part: str) -> dict[str, list[dict[str, object]]]:
    """The rows in the place of this part's; those of others, as of other versions of Triton, stay."""
    found = json.loads(path.read_text("utf8")) if path.exists() else {}
    found[part] = rows
    parts = [
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(row) for row in own) + "\n]"
        for name, own in sorted(found.items())
    ]
    path.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf8")
    return found


def table(rows: list[dict[str, object]]) -> Table:
    result = Table(
        title=f"compute capability 9.0, triton {triton.__version__}: a step of one warp", box=box.SIMPLE_HEAD
    )
    for heading in ("kernel", "tile", "warps", "regs", "spilled", "shared", "instr", "mufu", "mma", "barriers"):
        result.add_column(heading, justify="left" if heading == "kernel" else "right", no_wrap=True)
    for case, kernel, *counts in (row.values() for row in rows):
        result.add_row(f"{case}: {kernel}", *map(str, counts))
    return result
