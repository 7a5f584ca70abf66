"""The work of `towers fit`: begin a run or resume one, train, measure, save."""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from towers import training
from towers.checkpoint import RESUME, undamaged
from towers.cli import common
from towers.cli.report import Report, report
from towers.data import SentencePairs
from towers.data.packaged_vectors import is_packaged
from towers.ensemble import Ensemble
from towers.model import Tower, TwoTowers
from towers.training import presets
from towers.training.doubts import check_values, doubts
from towers.training.fitting import learn, resumed_settings
from towers.training.folders import DEFAULT_FOLDER
from towers.training.history import History
from towers.training.metrics import are_soft, majority
from towers.training.options import PACKAGES, Settings, require
from towers.training.origin import origin
from towers.training.presets import PRESETS, Preset, bins_of
from towers.training.processes import is_main
from towers.training.progress import Progress
from towers.training.run import Run

SETTINGS = tuple(field.name for field in fields(Settings))
SIZES = ("kernel_words", "filters", "pool", "hidden", "chunk")
FILES = ("train", "dev", "test", "vectors")
OF_PRESET = ("preset", "second_label_column", "second_label_range", "yes")
OF_PAIRS = (
    *FILES,
    *OF_PRESET,
    "missing",
    "keep_words",
    "skip_bad",
    "fit_length",
    *common.COLUMNS,
    *common.LABELS,
    *common.READING,
)
DEFAULTS: dict[str, Any] = {name: signature(Tower).parameters[name].default for name in SIZES} | {
    "dense": signature(TwoTowers).parameters["dense"].default,
    "missing": "hash",
    **common.COLUMNS,
    **common.LABELS,
    "label_range": list(common.LABELS["label_range"]),
}
"""The value of each option that was not given. The number of words and the training settings have theirs elsewhere."""
NOT_KEPT = ("command", "run", "out", "overwrite", "resume", "json")
"""Options of one call of the command; they are not kept with the run."""


def fit(arguments: argparse.Namespace) -> None:
    """Begin a run, or resume one."""
    require(*PACKAGES)
    given = {name: value for name, value in vars(arguments).items() if name not in NOT_KEPT}
    as_json = "json" in arguments
    if "resume" in arguments:
        for name in ("out", "overwrite"):
            if name in arguments:
                raise ValueError(f"--{name} and --resume exclude each other: a run goes on in its own folder")
        _resume(arguments.resume, given, as_json=as_json)
    else:
        if "overwrite" in arguments and "out" not in arguments:
            raise ValueError("--overwrite goes with --out: say which run is to be replaced")
        _begin(given, arguments, as_json=as_json)


def _begin(given: Mapping[str, Any], arguments: argparse.Namespace, *, as_json: bool) -> None:
    # Options that contradict each other are refused before any file is read.
    preset = _preset(given)
    if "ensemble" in given and given.get("tensorboard"):
        raise ValueError("--tensorboard is for one network; leave out --ensemble")
    settings = Settings(**({} if preset is None else dict(preset.settings)) | _settings(given))
    build(given, settings, vector_width=1)
    out, overwrite = getattr(arguments, "out", None), "overwrite" in arguments
    about = {"command": _as_json(given, out or Path(DEFAULT_FOLDER)), "settings": settings.as_dict()}
    writes = is_main(settings.alone)
    with Run.new(out, about, overwrite=overwrite, writes=writes) as run:
        _work(run, given, settings, report(writes=writes, as_json=as_json))


def _resume(folder: Path, given: Mapping[str, Any], *, as_json: bool) -> None:
    record = Run.read(folder)
    if record.get("command") is None:
        problem = "was begun from Python, which has its pairs and its model"
        raise ValueError(f"{folder}: the run {problem}; go on there, with fit(..., resume={str(folder)!r})")
    with undamaged(folder / RESUME):
        kept: dict[str, Any] = dict(record["command"])
        began = DEFAULTS | dict(zip(("left_words", "right_words"), _words(kept), strict=True)) | kept
        command = kept | {name: value for name, value in _as_json(given, folder).items() if name in FILES}
        options = command | {name: _file_of(command[name], folder) for name in FILES if name in command}
    if "ensemble" in kept:
        raise ValueError(f"{folder}: an ensemble is trained in one go and cannot be resumed; start another run")
    settings = resumed_settings(folder, _settings(given))
    _check_same(folder, began, given)
    writes = is_main(settings.alone)
    with Run.reopened(folder, writes=writes) as run:
        tell = report(writes=writes, as_json=as_json)
        if run.finished:
            with undamaged(folder / RESUME):
                where = Progress.from_dict(run.record, {})
            if where.over(settings.epochs, settings.patience):
                tell.finished(where.history, run, _way_on(where, settings))
                return
        for name in FILES:
            if name in options and not (options[name].exists() or is_packaged(str(options[name]))):
                raise ValueError(f"{options[name]}, of the run in {folder}, is gone; say where with --{name} FILE")
        run.record["command"] = command
        _work(run, options, settings, tell)


def _check_same(folder: Path, began: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse options that differ from those of the run. Its files may have moved: their contents are compared later."""
    for name, value in _as_json(given, folder).items():
        before = began.get(name)
        if name in SETTINGS or value == before or (name in FILES and name in began):
            continue
        shown, had = ("none" if side is None else side for side in (value, before))
        problem = f"contradicts the run in {folder}, which has {had}"
        raise ValueError(f"--{name.replace('_', '-')} {shown} {problem}; leave it out, or start another run")


def _way_on(where: Progress, settings: Settings) -> str:
    if where.epoch < settings.epochs:
        return f"a --patience above {where.history.stale} would train longer"
    return f"--epochs {2 * where.epoch} would train longer"


def _work(run: Run, given: Mapping[str, Any], settings: Settings, tell: Report) -> None:
    """Load, train, measure, save."""
    data = common.load(_of_pairs(given), build(given, settings, vector_width=1), _preset(given))
    check_values(data.parts["train"])
    model = build(given, settings, data.vectors.width, data.parts["train"])
    tell.start(data, model, run)
    if run.writes:
        for warning in doubts(data.parts):
            print(f"towers fit: warning: {warning}", file=sys.stderr, flush=True)
        common.warn_of_missing("fit", data.vectors.coverage, data.vectors.source)
    train, dev = data.parts["train"], data.parts.get("dev")
    members: list[dict[str, Any]] = []
    if "ensemble" in given:
        model, histories = _learn_together(given, settings, data, tell)
        history, members = histories[0], [one.as_dict() for one in histories]
    else:
        history = learn(model, train, dev, run, settings, on_epoch=lambda epoch: tell.epoch(epoch, settings.epochs))
    if run.writes:
        with run.going_on():
            metrics = _measure_test(settings, data, model)
            metrics |= _measure_together(settings, data, model, members)
            metrics["origin"] = origin(settings.as_dict(), data.parts, given)
            common.keep_vectors(run.path, _of_pairs(given), data)
        run.finish(model, history, metrics=metrics, extra=data.extra)
        tell.end(history, metrics, run)


def _learn_together(
    given: Mapping[str, Any], settings: Settings, data: common.Data, tell: Report
) -> tuple[TwoTowers, list[History]]:
    """Train the members of an ensemble one after the other, in memory."""
    models: list[TwoTowers] = []
    histories: list[History] = []
    for number in range(given["ensemble"]):
        own = replace(settings, seed=settings.seed + number)
        model = build(given, own, data.vectors.width, data.parts["train"])
        parts = data.parts["train"], data.parts.get("dev")
        tell.member(number + 1, given["ensemble"])
        histories.append(learn(model, *parts, None, own, on_epoch=lambda epoch: tell.epoch(epoch, settings.epochs)))
        models.append(model)
    return Ensemble(models), histories


def _measure_together(
    settings: Settings, data: common.Data, model: TwoTowers, members: list[dict[str, Any]]
) -> dict[str, Any]:
    """For metrics.json, the histories of the members and what they reach together on dev."""
    if not members:
        return {}
    dev = data.parts.get("dev")
    measured = {} if dev is None else training.evaluate(model, dev, device=settings.place, precision=settings.precision)
    return {"members": members, "together": {"dev": measured}}


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in SETTINGS if name in given}


def _of_pairs(given: Mapping[str, Any]) -> argparse.Namespace:
    return argparse.Namespace(**{name: given.get(name) for name in OF_PAIRS})


def _as_json(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options as resume.json keeps them, with paths from the run's folder: it may be resumed from anywhere."""
    return {name: _path_of(value, folder) if isinstance(value, Path) else value for name, value in given.items()}


def _path_of(file: Path, folder: Path) -> str:
    if is_packaged(str(file)):
        return str(file)
    try:
        return Path(os.path.relpath(file.absolute(), os.path.realpath(folder))).as_posix()
    except ValueError:  # on another drive of Windows
        return str(file.absolute())


def _file_of(path: str, folder: Path) -> Path:
    """The file of an entry; those of older runs are absolute."""
    if is_packaged(path):
        return Path(path)
    return Path(os.path.normpath(os.path.join(os.path.realpath(folder), path)))


def _preset(given: Mapping[str, Any]) -> Preset | None:
    """The preset that the options name; None for the seed's network.

    Raises:
        ValueError: an option of the seed's network is beside it, or one of presets without it.
    """
    name = given.get("preset", "seed")
    if "second_label_range" in given and "second_label_column" not in given:
        raise ValueError("--second-label-range goes with --second-label-column")
    if name == "seed":
        if "second_label_column" in given:
            raise ValueError(f"--second-label-column goes with --preset {', '.join(PRESETS)}")
        return None
    for option in (*SIZES, "left_words", "right_words", "shared", "dense", "fit_length"):
        if option in given:
            own = "has one tower of its own sizes, for any number of words"
            raise ValueError(f"--{option.replace('_', '-')} belongs to --preset seed; {name} {own}")
    return PRESETS[name]


def build(
    given: Mapping[str, Any], settings: Settings, vector_width: int, pairs: SentencePairs | None = None
) -> TwoTowers:
    """The network that the options describe, with the initial weights of the seed, for the labels of these pairs."""
    preset = _preset(given)
    outputs = 1 if pairs is None or pairs.classes is None else len(pairs.classes)
    if preset is not None:
        if outputs == 1 and pairs is not None and pairs.labels is not None and are_soft(pairs.labels):
            outputs = bins_of(tuple(given.get("label_range", (0.0, 1.0))))
        second = None
        if pairs is not None and pairs.second is not None:
            second = len(pairs.second_classes or range(bins_of(tuple(given.get("second_label_range", (0.0, 1.0))))))
        how: dict[str, Any] = {"outputs": outputs, "second_outputs": second, "seed": settings.seed}
        return presets.build(preset, vector_width=vector_width, **how)
    sizes = {name: given[name] for name in SIZES if name in given}
    head = {"dense": given["dense"]} if "dense" in given else {}
    left_words, right_words = _words(given)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        left = Tower(left_words, vector_width=vector_width, **sizes)
        right = left if "shared" in given else Tower(right_words, vector_width=vector_width, **sizes)
        return TwoTowers(left, right, **head, outputs=outputs)


def _words(given: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Words of a left and of a right sentence."""
    if "shared" not in given:
        return given.get("left_words"), given.get("right_words", 5)
    sides = {given[name] for name in ("left_words", "right_words") if name in given} or {None}
    if len(sides) > 1:
        raise ValueError("--shared is one tower for both sides; --left-words and --right-words must be the same then")
    return (words := sides.pop()), words


def _measure_test(settings: Settings, data: common.Data, model: TwoTowers) -> dict[str, Any]:
    test = data.parts.get("test")
    if test is None or test.labels is None:
        return {}
    measured = training.evaluate(model, test, device=settings.place, precision=settings.precision)
    degrees = test.labels.is_floating_point() and are_soft(test.labels)
    share = {} if degrees else {"majority": majority(test.labels)}
    return {"test": {"pairs": len(test), **measured, **share}}
