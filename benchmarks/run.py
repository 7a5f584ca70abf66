"""Every measurement of this project, one command.

    python benchmarks/run.py                          all suites on the CPU, a few minutes
    python benchmarks/run.py lstm tower --device cuda two suites on the GPU
    python benchmarks/run.py --quick                  small sizes, one thread, under a minute: does everything run?
    python benchmarks/run.py lstm --only "hidden 6,"  only the cases whose name has these words
    python benchmarks/run.py lstm --resume            goes on where an interrupted run stopped

Each suite prints a table and writes DIR/SUITE.json and DIR/SUITE.png. A suite is a module beside this file, entered in
SUITES, with a TITLE, `cases(quick)` and `measure(case, device, quick=…) -> list[Row]`; it may have a `plot` of its own,
`reach(rows)`, what was to be reached beside what was measured, `profile(rows)`, where the time goes, and
`summary(rows)`, which is printed instead of the table and written, with it, to DIR/SUITE.txt.
"""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

SUITES = {
    "lstm": "lstm",
    "tower": "tower",
    "lstm-memory": "lstm_memory",
    "lstm-costs": "lstm_costs",
    "lstm-threads": "lstm_threads",
    "contracts": "contracts",
    "proof": "proof",
    "import": "imports",
    "reading": "reading",
}
CUDA_SUITES = {"lstm": "cuda_lstm", "tower": "cuda_tower"}  # in their place on a GPU
RESULTS = Path(__file__).parent / "results"

try:
    import torch
    from report import Row, folder_name, machine, plot, read_json, table, write_json
    from rich.console import Console
    from rich.progress import track
    from timing import equal_precision
except ImportError as missing:
    sys.exit(f'{missing}. The benchmarks need their own extra: pip install -e ".[bench]"')


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; none means all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats, under a minute")
    parser.add_argument(
        "--keras-python",
        metavar="PYTHON",
        help="a Python that has Keras with TensorFlow, JAX or PyTorch, for the suite tower; default: this one",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: benchmarks/results/MACHINE, with --quick benchmarks/results/quick",
    )
    parser.add_argument("--only", metavar="TEXT", help="only cases whose name has this text")
    parser.add_argument("--resume", action="store_true", help="keep the cases that DIR/SUITE.json has already")
    options = parser.parse_args(argv)
    if options.keras_python:
        os.environ["KERAS_PYTHON"] = options.keras_python
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here")
    return options


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    if options.quick:
        torch.set_num_threads(1)  # more of them wait for each other while anything else runs on the machine
    about = machine(torch.device(options.device))
    out = options.out or RESULTS / ("quick" if options.quick else folder_name(about))
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(", ".join(f"{key} {value}" for key, value in about.items()))
    if about["load_before"] > 1:
        console.print("[red]This machine is busy with something else: do not keep these numbers.")
    for name in options.suites or SUITES:
        modules = SUITES | (CUDA_SUITES if options.device == "cuda" else {})
        suite = import_module(modules[name])
        if rows := run(suite, name, options, about, out):
            report(suite, name, rows, about, out, console)


def run(suite: ModuleType, name: str, options: argparse.Namespace, about: dict[str, object], out: Path) -> list[Row]:
    """Measure case by case; what is measured is written at once."""
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
        text = suite.summary(rows)
        print(text)
        with (out / f"{name}.txt").open("w", encoding="utf8") as file:
            file.write(text + "\n\n")
            Console(file=file, width=120).print(table(rows, suite.TITLE))
    else:
        console.print(table(rows, suite.TITLE))
    for part in ("reach", "profile"):
        if hasattr(suite, part):
            console.print(getattr(suite, part)(rows))
    getattr(suite, "plot", plot)(rows, suite.TITLE, about, out / f"{name}.png")
    print(f"{out / name}.json, {out / name}.png")


def case_name(case: object) -> str:
    return getattr(case, "name", str(case))


if __name__ == "__main__":
    main()
