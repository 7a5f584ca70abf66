"""TwoTowers beside the files that `towers.export` writes of it: onnxruntime, torch.export, AOTInductor.

All take padded vectors of SICK's sentences and their lengths, and must give the same logits before they are timed.
AOTInductor's file takes a C++ compiler and a minute; `--quick` leaves it out.
"""

import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from report import Row
from sick import sentences
from timing import interleaved
from torch import Tensor

from towers import TwoTowers
from towers.export import export as write

TITLE = "Exported files: time of a batch of pairs, from vectors"

Batch = dict[str, Tensor]
Runner = Callable[[Batch], Tensor]


class Case(NamedTuple):
    batch: int

    @property
    def name(self) -> str:
        return f"batch {self.batch:,}"


def cases(quick: bool) -> list[Case]:
    return [Case(batch) for batch in ((1, 32) if quick else (1, 32, 256, 1024))]


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of the model itself and of each kind of file that can be written here."""
    del device  # files run on the CPU
    given = sentences(case.batch, torch.device("cpu"))
    left, lengths = given.left.vectors().to_padded()
    batch = {"left": left, "right": given.right.vectors().to_padded()[0], "left_lengths": lengths}
    runners = _runners(quick)
    wanted = next(iter(runners.values()))(batch)
    for name, run in runners.items():
        torch.testing.assert_close(run(batch), wanted, rtol=0, atol=1e-5, msg=f"{name} gives other logits")
    candidates = {name: lambda run=run: run(batch) for name, run in runners.items()}
    words, rows = int(lengths.sum()) + batch["right"].shape[:2].numel(), list[Row]()
    for name, timing in interleaved(candidates, torch.device("cpu"), seconds=0.5 if quick else 6).items():
        details = case._asdict() | {"spread": timing.spread, "sentences": given.source}
        speed = words / timing.milliseconds * 1e3
        rows.append(Row("export", case.name, name, "forward", timing.milliseconds, timing.time_ratio, speed, details))
    return rows


@lru_cache(1)
def _runners(quick: bool) -> dict[str, Runner]:
    torch.manual_seed(0)
    model = TwoTowers().eval()

    @torch.inference_mode()
    def eager(batch: Batch) -> Tensor:
        return model(**batch)

    found: dict[str, Runner] = {"towers, eager": eager}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            found["onnxruntime"] = _onnx(write(model, Path(folder) / "a.onnx").path)
        except ImportError:
            print("onnx or onnxruntime is not installed: no row of it")
        path = write(model, Path(folder) / "a.pt2", format="torch").path
        found["torch.export"] = _quiet(torch.export.load(path).module())
        path = write(model, Path(folder) / "c.pt2", format="torch", with_towers=True).path
        found["torch.export, with towers"] = _quiet(torch.export.load(path).module())
        if not quick and any(map(shutil.which, ("g++", "clang++"))):
            path = write(model, Path(folder) / "b.pt2", format="aoti").path
            found["AOTInductor"] = _quiet(torch._inductor.aoti_load_package(str(path)))
    return found


def _onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # waiting threads slow down others
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(batch: Batch) -> Tensor:
        return torch.from_numpy(session.run(["logit"], {name: value.numpy() for name, value in batch.items()})[0])

    return run


def _quiet(module: Any) -> Runner:
    @torch.inference_mode()
    def run(batch: Batch) -> Tensor:
        return module(**batch)

    return run
