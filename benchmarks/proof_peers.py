"""The faults that `verify` finds in the zoos, beside the other tools that check shapes, each if it is installed.

The zoos are all modules in `tests/zoo`, whose truth was found by running them. A module is faulty if it breaks its
contract at any size that the contract claims. A tool answers "bad", "good" or "unknown" for each:

- "found" are the faulty ones that it calls bad, "missed" those that it calls good, "false alarms" the sound ones that
  it calls bad, and "undecided" all that it says nothing about: it cannot read or run them, loses their shapes on the
  way, or asks for other types. Why it calls a module bad is not looked at. "seconds" are those of the processor, of all
  processes, for all modules.
- `verify` calls bad what failed, is specialised, or holds only under a condition.
- jaxtyping at run time: random inputs of one or two ordinary sizes. Bad is an error of the check, or one that all kinds
  of values meet.
- `torch.export` exports at one ordinary size, with each named axis dynamic from that size to the end of the range that
  the contract claims (sizes of 0 and 1 are not asked of it), and the program is called with a second size. It is bad if
  the export refuses the range or meets an error of the module, or if the program refuses the second size or gives
  another shape than was promised; unknown if it cannot trace.
- torchtyc, pyrefly with its torch stubs, and torchshapeflow read a copy of the source in their own style of annotation,
  each class written alone, with the number in place of what stands in braces. They cannot be told bounds (`where=`), so
  that an alarm about a module that is sound within bounds counts as undecided. pyrefly is bad where two shapes do not
  fit; another error of types, or a result of unknown shape (as `reveal_type` says), is unknown. torchshapeflow too is
  unknown where it infers no shape for a result.

The extra `bench` has torchtyc and `peers` has pyrefly and torchshapeflow. The stubs are `pip install
pyrefly-torch-stubs`, of pyrefly's own version, in an environment of their own: pyright would read them too.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast, get_args, get_origin

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "zoo"))

from harness import unchecked, with_contract, with_jaxtyping
from peer_sources import Sample, Source, Style, numbered, samples, source
from report import Row
from rich import box
from rich.table import Table
from torch import nn
from torch.export import Dim

from towers.contracts import verify
from towers.contracts.proofs.copies import own_signature
from towers.contracts.proofs.symbolic_inputs import Case, read_subject
from towers.contracts.proofs.trials import Trials

CASE = "all zoos"
COLUMNS = ("found", "missed", "false alarms", "undecided")
STEPS = (3, 8)
"""Steps beyond the smallest size of each axis: one or two ordinary batches, as people try them."""
KINDS = ((3, 0, 0), (1, 0, 0), (0, 1, 0), (2, 2, 1))
"""Values that are tried: random lengths, ones, zeros, random indices; masks false, true, mixed."""

Key = tuple[str, str]
Verdicts = Mapping[Key, str]
Tool = Callable[[Sequence[int]], Verdicts]
"""The verdicts on the samples at some places of the list."""


def rows(places: Sequence[int] | None = None) -> list[Row]:
    """A row for each tool that is installed, about the samples at these places, or all."""
    known = samples(unchecked)
    places = range(len(known)) if places is None else places
    made: list[Row] = []
    for name, (tool, *packages) in TOOLS.items():
        if missing := [each for each in packages if not _installed(each)]:
            print(f"{' and '.join(missing)} not installed: no row of {name}")
            continue
        start = sum(os.times()[:4])
        verdicts = tool(places)
        seconds = sum(os.times()[:4]) - start
        counts = count((known[place], verdicts.get(known[place].key, "unknown")) for place in places)
        ratio = 1e3 * seconds / made[0].milliseconds if made else 1.0
        made.append(Row("proof", CASE, name, f"{len(places)} modules", 1e3 * seconds, ratio, details=dict(counts)))
    return made


def count(verdicts: Iterable[tuple[Sample, str]]) -> dict[str, int]:
    """The numbers of the table."""
    names = {(True, "bad"): "found", (True, "good"): "missed", (False, "bad"): "false alarms"}
    counted = dict.fromkeys(COLUMNS, 0)
    for sample, verdict in verdicts:
        if name := "undecided" if verdict == "unknown" else names.get((sample.faulty(), verdict)):
            counted[name] += 1
    return counted


def table(measured: Sequence[Row]) -> Table:
    """What each tool found."""
    shown = Table(title="Faults found in all zoos", box=box.SIMPLE_HEAD)
    shown.add_column("", no_wrap=True)
    for heading in (*COLUMNS, "seconds"):
        shown.add_column(heading, justify="right")
    for row in measured:
        numbers = [str(row.details[column]) for column in COLUMNS]
        shown.add_row(row.implementation, *numbers, f"{row.milliseconds / 1e3:.3g}")
    return shown


# What runs the modules.


def _ours(places: Sequence[int]) -> Verdicts:
    words = {"proven": "good", "not provable": "unknown"}
    ours = samples(with_contract)
    return {ours[at].key: words.get(verify(ours[at].module()).verdict, "bad") for at in places}


def _at_run_time(steps: Sequence[int]) -> Tool:
    def verdicts(places: Sequence[int]) -> Verdicts:
        plain, checked = samples(with_contract), samples(with_jaxtyping)
        return {checked[at].key: one(_case(plain[at].module), checked[at].module) for at in places}

    def one(case: Case, module: type[nn.Module]) -> str:
        sizes = [ordinary(case, step) for step in steps]
        return "bad" if any(_fails(module(), case, each) for each in sizes if each) else "good"

    return verdicts


def _fails(module: nn.Module, case: Case, sizes: dict[str, int]) -> bool:
    """Whether a check refuses some values, or all kinds of them meet an error."""
    for kind in KINDS:
        error = Trials(module, {}).call(module, case, sizes, kind, None)
        if error is None or type(error).__name__ == "TypeCheckError":
            return error is not None
    return True


def _case(module: type[nn.Module]) -> Case:
    contracted = module()
    return read_subject(contracted, own_signature(contracted), (), (), {}).cases()[-1]


def ordinary(case: Case, step: int) -> dict[str, int] | None:
    """Ordinary sizes, another for each axis; None where the bounds do not allow them."""
    spans = case.spans()
    sizes = {name: span.first + (step + place) * span.step for place, (name, span) in enumerate(spans.items())}
    sizes = {name: size if size in spans[name] else spans[name].first for name, size in sizes.items()}
    return sizes if case.fits(sizes) else None


def _exported(places: Sequence[int]) -> Verdicts:
    plain, contracted = samples(unchecked), samples(with_contract)
    logging.disable()  # torch tells at length what it cannot export
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            return {plain[at].key: export(plain[at].module(), _case(contracted[at].module)) for at in places}
    finally:
        logging.disable(logging.NOTSET)


def export(module: nn.Module, case: Case) -> str:
    """The verdict of `torch.export` on one module."""
    two = [ordinary(case, step) for step in STEPS]
    if None in two:
        return "unknown"
    hints = dict(type(module).forward.__annotations__)
    promise = hints.pop("return")
    first, second = (_inputs(module, case, sizes) for sizes in two)
    try:
        program = torch.export.export(module, first, dynamic_shapes=_dynamic(hints, case, two[0]), strict=False)
    except Exception as error:
        untraced = isinstance(error, (TypeError, NotImplementedError)) or re.search(
            "Data|Dynamic", type(error).__name__
        )
        return "unknown" if untraced else "bad"
    for inputs, sizes in zip((first, second), two, strict=True):
        try:
            answer = program.module()(*inputs)
        except Exception:
            return "bad"
        if not _keeps(answer, promise, sizes, module):
            return "bad"
    return "good"


def _inputs(module: nn.Module, case: Case, sizes: dict[str, int]) -> tuple[Any, ...]:
    """Arguments with values of the first kind that the module takes, or of the very first."""
    trials = Trials(module, {})
    taken = next((kind for kind in KINDS if trials.call(module, case, sizes, kind, None) is None), KINDS[0])
    made: list[tuple[Any, ...]] = []
    trials.call(cast(Any, lambda *inputs: made.append(inputs)), case, sizes, taken, None)
    return made[0]


def _dynamic(hints: Mapping[str, Any], case: Case, least: Mapping[str, int]) -> dict[str, Any]:
    """Each axis as the contract has it, from its size here on: a name, a fixed size, or what is made of names."""
    names = {name: _dimension(name, span, least[name]) for name, span in case.spans().items()}
    return {name: [_axis(dim, names) for dim in hint.dim_str.split()] for name, hint in hints.items()}


def _dimension(name: str, span: Any, least: int) -> Any:
    """A name of the range, or a multiple of one where the range has steps."""
    if span.step == 1:
        return Dim(name, min=least, max=span.last)
    low, rest = divmod(least, span.step)
    root = span.step * Dim(f"{name}_{span.step}", min=low, max=span.last and (span.last - rest) // span.step)
    return root + rest if rest else root


def _axis(dim: str, names: Mapping[str, Any]) -> Any:
    try:
        return int(dim) if dim.isdigit() else eval(dim, {}, dict(names))
    except (TypeError, NotImplementedError):
        return Dim.AUTO


def _keeps(answer: Any, promise: Any, sizes: Mapping[str, int], module: nn.Module) -> bool:
    """Whether a result has the promised shape."""
    if get_origin(promise) is tuple:
        parts = get_args(promise)
        return len(answer) == len(parts) and all(
            _keeps(one, part, sizes, module) for one, part in zip(answer, parts, strict=True)
        )
    dims = [numbered(dim, module) for dim in promise.dim_str.split()]
    return len(dims) == answer.dim() and all(
        dim == "_" or eval(dim, {"min": min, "max": max}, dict(sizes)) == size
        for dim, size in zip(dims, answer.shape, strict=True)
    )


# What reads the source.


def _reading(style: Style, read: Callable[[dict[str, Source], Path], Verdicts]) -> Tool:
    """A tool that reads the samples' source, without bounds: an alarm within them says nothing."""

    def verdicts(places: Sequence[int]) -> Verdicts:
        known = samples(unchecked)
        some = [known[place] for place in places]
        with TemporaryDirectory() as folder:
            sources = {
                file: source(file, [each for each in some if each.file == file], style)
                for file in dict.fromkeys(each.file for each in some)
            }
            for file, written in sources.items():
                Path(folder, f"{file}.py").write_text(written.text, "utf8")
            told = read(sources, Path(folder))
        return {
            each.key: "unknown" if each.bounded and not each.faulty() and told[each.key] == "bad" else told[each.key]
            for each in some
        }

    return verdicts


def _torchtyc(sources: dict[str, Source], folder: Path) -> Verdicts:
    command = [_program("torchtyc"), "check", "--format", "json", "--severity", "warning", "--python", sys.executable]
    told = json.loads(_output([*command, *(f"{file}.py" for file in sources)], folder))["diagnostics"]
    met: dict[Key, set[str]] = {}
    for each in told:
        unread = each["severity"] != "error" or each["rule"] in ("import-error", "worker-error")
        unread |= each["rule"] == "trace-error" and "meta tensor" in each["message"]  # values that it does not have
        key = Path(each["path"]).stem, (each["function"] or "").partition(".")[0]
        met.setdefault(key, set()).add("unknown" if unread else "bad")
    return {key: _worst(met.get(key, set())) for each in sources.values() for key in each.places}


def _pyrefly(sources: dict[str, Source], folder: Path) -> Verdicts:
    (folder / "pyrefly.toml").write_text(f'python-interpreter-path = "{sys.executable}"\n')
    command = [_program("pyrefly"), "check", "--output-format", "json", "--min-severity", "info"]
    told = json.loads(_output([*command, *(f"{file}.py" for file in sources)], folder))["errors"]
    return _by_lines(sources, ((Path(each["path"]).stem, each["line"], _of_pyrefly(each)) for each in told))


def _of_pyrefly(told: Mapping[str, Any]) -> str:
    text = told["description"]
    if told["name"] == "reveal-type":
        return "unknown" if re.search(r"Tensor(?!\[\[)|Any|Unknown|\bint\b|@_", text) else "good"
    two = text.count("[[") >= 2 or "Cannot evaluate type-level shape" in text
    return "bad" if two and "torch._tensor.Tensor" not in text else "unknown"


def _torchshapeflow(sources: dict[str, Source], folder: Path) -> Verdicts:
    files = json.loads(_output([_program("tsf"), "check", "--json", "."], folder))["files"]
    told = [(Path(each["path"]).stem, one["line"], one["severity"]) for each in files for one in each["diagnostics"]]
    shown = [(Path(each["path"]).stem, one) for each in files for one in each["hovers"] if "?" not in one["shape"]]
    results = {(file, one["line"]) for file, one in shown if one["name"] == "<return>"}
    names = {(_at(sources, file, one["line"]), one["name"]) for file, one in shown}
    for file, written in sources.items():
        for line, name in written.returned:
            known = (_at(sources, file, line), name) in names if name else (file, line) in results
            told += [] if known else [(file, line, "its shape is not known")]
    return _by_lines(sources, ((file, line, "bad" if how == "error" else "unknown") for file, line, how in told))


def _by_lines(sources: dict[str, Source], told: Iterable[tuple[str, int, str]]) -> Verdicts:
    """The worst that was told of each sample, from files' lines and what was told there."""
    met: dict[Key | None, set[str]] = {}
    for file, line, verdict in told:
        met.setdefault(_at(sources, file, line), set()).add(verdict)
    return {key: _worst(met.get(key, set())) for each in sources.values() for key in each.places}


def _at(sources: dict[str, Source], file: str, line: int) -> Key | None:
    """The sample that stands at a line of a file."""
    return next((key for key, lines in sources[file].places.items() if line in lines), None)


def _worst(verdicts: set[str]) -> str:
    return next((each for each in ("bad", "unknown") if each in verdicts), "good")


def _output(command: list[str], folder: Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, cwd=folder).stdout


def _program(name: str) -> str:
    """A program beside this Python or in the path; empty if there is none."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name) or ""


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


PYREFLY = Style(
    lambda dtype, dims: f'Shaped[Tensor, "[{", ".join("int" if dim == "_" else dim for dim in dims)}]"]',
    "from typing import reveal_type\nfrom shape_extensions import Shaped, shape_vars",
    lambda names: f'shape_vars("{", ".join(names)}")',
    "reveal_type",
)
JAXTYPING = Style(lambda dtype, dims: f'{dtype}[Tensor, "{" ".join(dims)}"]')
SHAPEFLOW = Style(
    lambda dtype, dims: f"Annotated[Tensor, Shape({', '.join(dim if dim.isdigit() else repr(dim) for dim in dims)})]",
    "from typing import Annotated\nfrom torchshapeflow import Shape",
)
TOOLS: dict[str, tuple[Any, ...]] = {
    "towers.contracts.verify": (_ours,),
    "jaxtyping at run time, 1 size": (_at_run_time(STEPS[:1]),),
    "jaxtyping at run time, 2 sizes": (_at_run_time(STEPS),),
    "torch.export": (_exported,),
    "torchtyc": (_reading(JAXTYPING, _torchtyc), "torchtyc"),
    "pyrefly and its torch stubs": (_reading(PYREFLY, _pyrefly), "pyrefly", "pyrefly-torch-stubs"),
    "torchshapeflow": (_reading(SHAPEFLOW, _torchshapeflow), "torchshapeflow"),
}
"""Each with the packages that it needs beside those of the benchmarks."""
