# pyright: reportUnknownMemberType=false
"""A run on disk: the model, its metrics, its curves, in a folder that appears whole."""

import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from os import PathLike
from pathlib import Path
from typing import Any, cast

from towers.checkpoint import replace
from towers.model import TwoTowers
from towers.training.borrow import quiet
from towers.training.extras import require
from towers.training.history import History

DEFAULT_FOLDER = "towers-run"


@contextmanager
def run_folder(folder: str | PathLike[str] | None) -> Generator[Path]:
    """Take a folder for a run before the work begins, and let go of it if the work fails.

    None takes `towers-run` or the next free `towers-run-N` in the current folder. The folder is empty until `save_run`
    puts a run in its place.

    Raises:
        FileExistsError: the folder exists and is not empty.
        OSError: the folder cannot be made.
    """
    path = _next_free() if folder is None else _take(Path(folder))
    try:
        yield path
    except BaseException:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        raise


def save_run(
    folder: str | PathLike[str],
    model: TwoTowers,
    history: History,
    *,
    metrics: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Save config.json, model.safetensors, metrics.json and curves.png: all four, or nothing.

    They are written beside the folder, which must be absent or empty, and then renamed.

    Args:
        folder: where the run will be.
        model: with the weights to keep.
        history: its rows become metrics.json and curves.png.
        metrics: entries for metrics.json beside the history's, such as those of test pairs. NaN is written as null.
        extra: entries for config.json beside the model's.

    Raises:
        ImportError: safetensors or matplotlib is not installed.
        FileExistsError: the folder holds something.
        OSError: it cannot be written.
    """
    folder = _take(Path(folder))
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        partial.chmod(folder.stat().st_mode)  # mkdtemp makes folders that only their owner may open
        model.save(partial, extra=extra)
        text = json.dumps(_without_nan({**history.as_dict(), **(metrics or {})}), indent=2)
        replace(partial / "metrics.json", lambda path: path.write_text(text + "\n", encoding="utf8"))
        with quiet("matplotlib.font_manager", level=logging.ERROR):  # it announces that it is slow the first time
            replace(partial / "curves.png", lambda path: draw_curves(history, path))
        folder.rmdir()
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def draw_curves(history: History, path: Path) -> None:
    """Loss, and accuracy or Pearson's r, by epoch, for the training and the dev pairs, with the best epoch marked."""
    figure = _figure()
    names = list(history.epochs[0].train)[:2]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _draw(axes, history, name)
    title = f"best epoch: {history.best} of {len(history.epochs)}"
    if history.epochs[0].dev:
        value = history.epochs[history.best - 1].dev[history.keep_best]
        title += f" (dev {history.keep_best} {value:.3f})"
    figure.suptitle(title)
    figure.savefig(path, dpi=120, format="png")


def _draw(axes: Any, history: History, name: str) -> None:
    numbers = [epoch.number for epoch in history.epochs]
    best = history.epochs[history.best - 1]
    axes.plot(
        numbers, [epoch.train[name] for epoch in history.epochs], "o--", color="tab:gray", label="train, while learning"
    )
    if best.dev:
        axes.plot(numbers, [epoch.dev[name] for epoch in history.epochs], "o-", color="tab:blue", label="dev")
    axes.axvline(history.best, color="tab:orange", linewidth=1, label="best epoch")
    axes.plot(history.best, (best.dev or best.train)[name], "*", color="tab:orange", markersize=16, zorder=3)
    if name == "accuracy" and history.majority is not None:
        axes.axhline(history.majority, color="black", linewidth=1, linestyle=":", label="majority class")
    axes.set(xlabel="epoch", title={"pearson": "Pearson's r"}.get(name, name))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()


def _figure() -> Any:
    """A figure of its own: matplotlib's global state, and the backend that a notebook chose, stay as they are."""
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _take(folder: Path) -> Path:
    if folder.is_dir() and not any(folder.iterdir()):
        return folder
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        kind = "holds something already" if folder.is_dir() else "is a file"
        raise FileExistsError(f"{folder}: {kind}; name another folder, or remove it first") from None
    return folder


def _next_free() -> Path:
    """Made at once, so that two runs that start together get two folders."""
    for name in chain([DEFAULT_FOLDER], (f"{DEFAULT_FOLDER}-{number}" for number in count(2))):
        try:
            Path(name).mkdir()
        except FileExistsError:
            continue
        return Path(name)
    raise AssertionError("count() has no end")


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return {key: _without_nan(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in cast(list[Any], value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
