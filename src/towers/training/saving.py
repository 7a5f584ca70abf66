# pyright: reportUnknownMemberType=false
"""A run on disk: the model, its metrics, its curves, in a new folder that appears whole, or in an empty one."""

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

from towers.checkpoint import CONFIG, replace
from towers.model import TwoTowers
from towers.training.borrow import quiet
from towers.training.extras import require
from towers.training.history import History

DEFAULT_FOLDER = "towers-run"

_reserved: set[Path] = set()
"""What an open `run_folder` made: nobody uses these folders yet, so that a finished one may take their place."""


@contextmanager
def run_folder(folder: str | PathLike[str] | None) -> Generator[Path]:
    """Take a folder for a run before the work begins, and let go of it if the work fails.

    None takes `towers-run` or the next free `towers-run-N` in the current folder. The folder is empty until `save_run`
    puts a run in its place. One that was there before stays there if the work fails.

    Raises:
        FileExistsError: the folder exists and is not empty.
        OSError: the folder cannot be made, or nothing can be written to it.
    """
    path = _next_free() if folder is None else Path(folder)
    place = path.resolve()  # a link stays a link: the run goes to where it points
    made = folder is None or _take(place, path)
    if made:
        _reserved.add(place)
    try:
        yield path
    except BaseException:
        if made and place.is_dir() and not any(place.iterdir()):
            place.rmdir()
        raise
    finally:
        if made:
            _reserved.discard(place)


def save_run(
    folder: str | PathLike[str],
    model: TwoTowers,
    history: History,
    *,
    metrics: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Save config.json, model.safetensors, metrics.json and curves.png: all four, or nothing.

    A new folder is written beside its place and then renamed. Into an empty one, which may be the current folder or a
    mount point, the files are moved one by one, config.json last: a folder with a config is complete.

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
    with run_folder(folder) as path:
        place = path.resolve()
        new = place in _reserved
        beside = place.parent if new else place
        partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=beside))
        try:
            partial.chmod(place.stat().st_mode)  # mkdtemp makes folders that only their owner may open
            model.save(partial, extra=extra)
            text = json.dumps(_without_nan({**history.as_dict(), **(metrics or {})}), indent=2)
            replace(partial / "metrics.json", lambda path: path.write_text(text + "\n", encoding="utf8"))
            with quiet("matplotlib.font_manager", level=logging.ERROR):  # it announces that it is slow the first time
                replace(partial / "curves.png", lambda path: draw_curves(history, path))
            if new:
                place.rmdir()
                os.rename(partial, place)
            else:
                _move_files(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


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


def _take(place: Path, path: Path) -> bool:
    """Whether the folder had to be made. Errors call it `path`, as the caller does."""
    if place.is_dir() and not any(place.iterdir()):
        _check_writable(place, path)
        return False
    try:
        place.mkdir(parents=True)
    except FileExistsError:
        kind = "holds something already" if place.is_dir() else "is a file"
        raise FileExistsError(f"{path}: {kind}; name another folder, or remove it first") from None
    return True


def _check_writable(place: Path, path: Path) -> None:
    """Try it out: the permissions alone do not tell (access lists, read-only mounts)."""
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=place))
    except OSError as error:
        raise type(error)(f"{path}: nothing can be written there ({error.strerror}); name another folder") from None


def _move_files(partial: Path, place: Path) -> None:
    """All files, or none; the config last."""
    moved: list[Path] = []
    try:
        for file in sorted(partial.iterdir(), key=lambda file: file.name == CONFIG):
            moved.append(file.replace(place / file.name))
    except BaseException:
        for file in moved:
            file.unlink(missing_ok=True)
        raise


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
