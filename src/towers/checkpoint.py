"""A model on disk: a folder of config.json and model.safetensors. No pickle is written or read."""

import json
import math
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from io import IOBase
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, cast

from torch import Tensor

FORMAT = 4
"""The newest format of config.json and resume.json; all formats up to it are read.

1: the first. 2: a tower's "recurrent_activation", and "towers", the version that wrote the file. 3: the entries of
NEW_IN_3; without them a file has the format 2, which older versions read. 4: "dense_dropout" of a head. Whoever adds an
entry that towers itself reads raises the number: an older version then refuses the file, and does not misread it.
"""
CONFIG, WEIGHTS, VECTORS = "config.json", "model.safetensors", "vectors.safetensors"
RESUME = "resume.json"
"""What a training needs to go on; it is beside the two other files during and after the training."""


def write(folder: str | PathLike[str], config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write both files, each whole and then renamed; the weights first, so that a folder with a config is complete.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the config has an entry "format" or "towers", which are written here.
        OSError: the folder cannot be written.
    """
    about = {"format": format_of(config.get("model")), "towers": own_version()}
    if taken := sorted(about.keys() & config.keys()):
        raise ValueError(f"{CONFIG} of a saved model has an entry {taken[0]!r} of its own; choose another name")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, weights)
    text = json.dumps({**about, **config}, indent=2) + "\n"
    replace(folder / CONFIG, lambda path: path.write_text(text, encoding="utf8"))


def format_of(model: object) -> int:
    """The lowest format that has all entries of a model."""
    entries = cast(dict[str, Any], model) if isinstance(model, dict) else {}
    sides: list[Any] = [entries.get("left"), entries.get("right")]
    towers = [cast(dict[str, Any], side) for side in sides if isinstance(side, dict)]
    heads: list[Any] = [entries, entries.get("second")]
    if any(isinstance(head, dict) and "dense_dropout" in head for head in heads):
        return 4
    plain = entries.keys() <= {"left", "right", "dense"} and not any(NEW_IN_3 & tower.keys() for tower in towers)
    absent = any(tower.get(part, 1) is None for tower in towers for part in ("filters", "hidden"))
    return 2 if plain and not absent else 3


_LFS = b"version https://git-lfs"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whole, then rename it.

    Raises:
        ImportError: safetensors is not installed.
        OSError: it cannot be written.
        ValueError: a tensor is on the meta device.
    """
    if absent := [name for name, tensor in tensors.items() if tensor.is_meta]:
        raise ValueError(f"{path}: {absent[0]} is on the meta device: it has no numbers; load them first")
    as_bytes = _safetensors().save  # files of its save_file can be read by their owner only
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    replace(path, lambda partial: partial.write_bytes(as_bytes(contiguous)))


def read(folder: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the weights that `write` wrote.

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file is damaged, of a newer format, or has an unknown entry in "model".
    """
    config = read_config(folder)
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; a saved model has it beside {CONFIG}")
    return config, read_tensors(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the file is missing or damaged.
    """
    load_file = _safetensors().load_file
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own exception type, with the same message
        reason = "it is a pointer of git LFS: git lfs pull gets the file itself" if _is_pointer(path) else str(error)
        raise ValueError(f"{path}: is damaged or no safetensors file ({reason})") from None


def _is_pointer(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS


def read_config(folder: str | PathLike[str], name: str = CONFIG) -> dict[str, Any]:
    """The entries of config.json of a saved model, or of another file of that kind.

    Raises:
        FileNotFoundError: the folder or the file is missing.
        ValueError: the file is damaged, of a newer format, or has an unknown entry in "model".
    """
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(_missing(path))
    try:
        config: object = json.loads(path.read_text(encoding="utf8"))
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8
        raise ValueError(f"{path}: is damaged: {error}") from None
    entries = cast(dict[str, Any], config) if isinstance(config, dict) else {}
    if type(found := entries.get("format")) is not int:
        raise ValueError(f"{path}: is no config of a saved model: it has no format number")
    if found > FORMAT:
        writer = f", written by towers {entries['towers']}" if isinstance(entries.get("towers"), str) else ""
        known = f"towers {own_version()} reads up to format {FORMAT}"
        raise ValueError(f"{path}: has format {found}{writer}; {known}: update towers")
    for section, values in SECTIONS.items():
        _check_section(path, section, entries.get(section, {}), values)
    model: Any = entries.get("model")
    if not (isinstance(model, dict) and "members" in model):
        _check_model(path, cast(object, model))
        return entries
    _check_names(path, "model", cast(object, model), frozenset({"members"}))
    for member in cast(list[object], entries["model"]["members"]):
        _check_model(path, member)
    return entries


def _check_model(path: Path, model: object) -> None:
    _check_names(path, "model", model, MODEL_ENTRIES)
    for side in ("left", "right"):
        tower = cast(dict[str, Any], model).get(side) if isinstance(model, dict) else None
        _check_names(path, side, tower, TOWER_ENTRIES)


NEW_IN_3 = frozenset({"bidirectional", "reduce", "word_map", "word_maximum", "word_mean"})
MODEL_ENTRIES = frozenset(
    {"left", "right", "dense", "features", "outputs", "dropout", "dense_dropout", "word_dropout", "second"}
)
TOWER_ENTRIES = NEW_IN_3 | {
    "words", "vector_width", "kernel_words", "filters", "pool", "hidden", "chunk", "recurrent_activation",
}  # fmt: skip


def _check_names(path: Path, name: str, section: object, known: frozenset[str]) -> None:
    """Refuse an entry that this version would have to leave out: the model would be another one."""
    unknown = sorted(cast(dict[str, Any], section).keys() - known) if isinstance(section, dict) else []
    if unknown:
        newest = f"towers {own_version()}, which reads up to format {FORMAT}"
        raise ValueError(f"{path}: {unknown[0]!r} in {name!r} is unknown to {newest}: update towers, or mend the file")


SECTIONS: Mapping[str, tuple[type, ...]] = {"vectors": (str, NoneType), "data": (str, NoneType, list)}
"""The sections of config.json that programs read, and the types that their values may have."""


def _check_section(path: Path, name: str, section: object, allowed: tuple[type, ...]) -> None:
    if not isinstance(section, dict):
        raise ValueError(f"{path}: is damaged: {name!r} is no object; train the model again, or mend the file")
    for key, value in cast(dict[str, Any], section).items():
        if not isinstance(value, allowed):
            raise ValueError(f"{path}: is damaged: {key!r} in {name!r} is {value!r}; mend the file")


def home_hint(path: str) -> str:
    """What to do about a path that begins with ~, which shells read, and Python does not."""
    return f"; ~ is no folder for Python: give os.path.expanduser({path!r})" if path.startswith("~") else ""


def _missing(path: Path) -> str:
    if path.parent.name.endswith((".keras", ".h5")) and path.parent.exists():
        return f"{path.parent}: is a file of Keras; carry it over first: towers convert {path.parent} FOLDER"
    if path.parent.is_file():
        return f"{path.parent}: is a file; give the folder that it is in: {path.parent.parent}"
    if not path.parent.is_dir():
        return f"{path.parent}: no folder{home_hint(str(path.parent))}"
    if path.name == CONFIG and (path.parent / RESUME).is_file():
        return f"{path.parent}: its training has not ended; go on with: towers fit --resume {path.parent}"
    return f"{path}: there is no such file; a saved model has it beside {WEIGHTS}"


@contextmanager
def explained(folder: str | PathLike[str]) -> Generator[None]:
    """Turn an error while a model is built from a config into one that names the folder.

    Raises:
        ValueError: an entry is missing or unknown, sizes do not fit, or weights have other names or shapes.
    """
    with _as_value_error(f"{folder}: {CONFIG} and {WEIGHTS} do not fit each other"):
        yield


@contextmanager
def undamaged(path: Path) -> Generator[None]:
    """Turn an error while the entries of a file are used into one that names the file.

    Raises:
        ValueError: an entry is missing, or has another type than was written.
    """
    with _as_value_error(f"{path}: is damaged"):
        yield


@contextmanager
def _as_value_error(problem: str) -> Generator[None]:
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError) as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{problem}: {reason}") from None


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole under another name beside it, then rename it: half a file is never seen.

    Raises:
        OSError: it cannot be written, or the disk is full. The error names the file, and an older file is unchanged.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def lock(file: IOBase, *, without_locks: bool) -> bool:
    """Lock an open file until it is closed. False: another process has locked it.

    `without_locks` is the answer where the system has no locks, as on Windows.
    """
    try:
        import fcntl
    except ImportError:
        return without_locks
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return {key: without_nan(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in cast(list[Any], value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def own_version() -> str:
    """The version of towers, as its metadata has it."""
    try:
        return version("towers")
    except PackageNotFoundError:
        return "(not installed)"


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError('models are saved with safetensors: pip install "towers[train]"') from None
    return safetensors.torch
