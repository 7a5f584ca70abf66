"""All measurements of this project with one command.

    python benchmarks/run.py                           all suites on the CPU
    python benchmarks/run.py lstm tower --device cuda  two suites on the GPU
    python benchmarks/run.py cuda --minutes 6          what a GPU has to show, in six minutes
    python benchmarks/run.py cuda --quick              the same plan without a GPU, tiny: does everything run?
    python benchmarks/run.py cuda --sass               the kernels' instructions a step, compiled without a GPU
    python benchmarks/run.py proof --packages          what verify says of modules of public packages
    python benchmarks/run.py --quick                   small sizes on one thread: does everything run?
    python benchmarks/run.py lstm --only "hidden 6,"   only the cases whose name contains this text
    python benchmarks/run.py lstm --resume             continue a run that was interrupted
    python benchmarks/run.py lstm --show               measure nothing: print what benchmarks/results/cpu/lstm.json has

Each suite prints a table and writes DIR/SUITE.json and the picture DIR/SUITE.png. Random numbers have the seed 0.

A suite is a module beside this file, listed in SUITES. It has a TITLE, `cases(quick)` and
`measure(case, device, quick=…) -> list[Row]`, and optionally:

- `plot(rows, title, about, path)`, its own picture;
- `summary(rows)`, a text to print in place of the table;
- `reach(rows)`, a table of what was measured beside the aims or beside others;
- `profile(rows)`, a table of where the time goes.
"""

import argparse
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

SUITES = {
    "lstm": "lstm",
    "tower": "tower",
    "lstm-memory": "lstm_memory",
    "lstm-threads": "lstm_threads",
    "contracts": "contracts",
    "proof": "proof",
    "import": "imports",
    "reading": "reading",
    "quick-paths": "quick_paths",
    "search": "search",
    "search-heads": "search_heads",
    "scale": "scale",
    "answers": "answers",
    "export": "export",
}
# On a GPU these replace the modules above.
CUDA_SUITES = {"lstm": "cuda_lstm", "tower": "cuda_tower", "search": "cuda_search"}
RESULTS = Path(__file__).parent / "results"

try:
    import torch
    from report import Row, folder_name, machine, plot, read_json, read_machine, table, write_json
    from rich.console import Console
    from rich.progress import track
    from timing import equal_precision

    import towers  # noqa: F401  # a GPU's machine often lacks beartype or jaxtyping
except ImportError as missing:
    sys.exit(f'{missing}. The benchmarks need towers and their own extra: pip install -e ".[bench]"')


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)}; default: all; or cuda")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats")
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="for cuda alone: the limit of its plan, from 1; default: 6"
    )
    parser.add_argument("--sass", action="store_true", help="for cuda alone: instructions a step, without a GPU")
    parser.add_argument(
        "--keras-python",
        metavar="PYTHON",
        help="for the suite tower: a Python that has Keras with TensorFlow, JAX or PyTorch; default: this one",
    )
    parser.add_argument(
        "--packages",
        action="store_true",
        help="for the suite proof: public packages too, each if installed",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: benchmarks/results/MACHINE; with --quick .../quick; with --show .../cpu or .../cuda",
    )
    parser.add_argument("--only", metavar="TEXT", help="only cases whose name contains this text")
    parser.add_argument("--resume", action="store_true", help="skip the cases that DIR/SUITE.json has already")
    parser.add_argument("--show", action="store_true", help="print, and draw, what DIR/SUITE.json has")
    options = parser.parse_args(argv)
    if options.keras_python:
        os.environ["KERAS_PYTHON"] = options.keras_python
    if options.packages:
        os.environ["PROVE_PACKAGES"] = "1"
    if "cuda" in options.suites:
        if len(options.suites) > 1:
            parser.error("cuda is a plan of its own: name no other suite beside it")
        if options.only or options.show:
            parser.error("cuda takes no --only and no --show; what it printed is in DIR/cuda.txt")
        if not options.minutes >= 1:
            parser.error(f"--minutes ({options.minutes:g}) must be at least 1")
        needed = ("triton",) if options.sass else ("triton", "pytest", "xdist")
        if missing := [name for name in needed if find_spec(name) is None]:
            parser.error(f'cuda needs {", ".join(missing)}: pip install -e ".[dev]"')
        if not (options.quick or options.sass) and not torch.cuda.is_available():
            parser.error("cuda: torch sees no CUDA device here; cuda --quick is the dry run without one")
        options.device = "cpu" if options.quick or options.sass else "cuda"
        return options
    if options.sass:
        parser.error("--sass is for cuda: python benchmarks/run.py cuda --sass")
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}, cuda")
    if options.device == "cuda" and not options.show and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here")
    return options


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    console = Console(width=None if sys.stdout.isatty() else 110)
    if options.show:
        show(options, console)
        return
    if options.sass:
        import_module("cuda_sass").main(console)
        return
    if options.quick:
        torch.set_num_threads(1)  # several threads wait for each other while anything else runs on the machine
    about = machine(torch.device(options.device))
    out = options.out or RESULTS / ("quick" if options.quick else folder_name(about))
    make(out)
    print_machine(about, console)
    if about["load_before"] > 1:
        console.print("[red]Other programs are running on this machine: do not keep these numbers.")
    if options.suites == ["cuda"]:
        plan = import_module("cuda_minutes")
        sys.exit(not plan.main(options.minutes, out, console, quick=options.quick, resume=options.resume))
    for name in options.suites or SUITES:
        suite = module_of(name, options.device)
        if rows := run(suite, name, options, about, out):
            report(suite, name, rows, about, out, console)


def make(out: Path) -> None:
    """A folder in which results can be written, or the end before anything is measured."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "try.part").touch()
        (out / "try.part").unlink()
    except OSError as error:
        sys.exit(f"results cannot be written to {out} ({error.strerror}); --out names another folder")


def show(options: argparse.Namespace, console: Console) -> None:
    """Print the results that were written before, and draw their pictures again."""
    out = options.out or RESULTS / options.device
    for name in options.suites or SUITES:
        path = out / f"{name}.json"
        if not path.exists():
            sys.exit(f"{path} does not exist; python benchmarks/run.py {name} --out {out} measures it")
        rows, about = read_json(path), read_machine(path)
        suite = module_of(name, options.device)
        print_machine(about, console)
        if hasattr(suite, "summary"):  # which `report` prints in place of the table
            console.print(table(rows, suite.TITLE))
        report(suite, name, rows, about, out, console)


def module_of(name: str, device: str) -> ModuleType:
    return import_module((SUITES | (CUDA_SUITES if device == "cuda" else {}))[name])


def print_machine(about: dict[str, object], console: Console) -> None:
    console.print(", ".join(f"{key} {value}" for key, value in about.items()))


def run(suite: ModuleType, name: str, options: argparse.Namespace, about: dict[str, object], out: Path) -> list[Row]:
    """Measure case by case; the file is written after each case."""
    path, device = out / f"{name}.json", torch.device(options.device)
    rows = read_json(path) if options.resume and path.exists() else []
    done = {row.case for row in rows}
    cases = [case for case in suite.cases(options.quick) if (options.only or "") in case_name(case)]
    with equal_precision():
        for case in track(cases, name, console=Console(stderr=True), transient=True):
            if case_name(case) not in done:
                rows += suite.measure(case, device, quick=options.quick)
                write_json(rows, about, path)
    return rows


def report(
    suite: ModuleType, name: str, rows: list[Row], about: dict[str, object], out: Path, console: Console
) -> None:
    """A table or a summary, and a picture."""
    if hasattr(suite, "summary"):
        print(suite.summary(rows))
    else:
        console.print(table(rows, suite.TITLE))
    for part in ("reach", "profile"):
        if hasattr(suite, part):
            console.print(getattr(suite, part)(rows))
    picture = out / f"{name}.png"
    getattr(suite, "plot", plot)(rows, suite.TITLE, about, picture)
    print(f"{out / name}.json, {picture}")


def case_name(case: object) -> str:
    return getattr(case, "name", str(case))


if __name__ == "__main__":
    main()
