"""A model on disk: a folder of config.json and model.safetensors. No pickle is written or read."""

import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, cast

from torch import Tensor

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write(folder: str | PathLike[str], config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write both files, each whole and then renamed: weights first, so that a folder with a config is complete.

    Raises:
        ImportError: safetensors is not installed.
        OSError: the folder cannot be written.
    """
    as_bytes = _safetensors().save  # its save_file makes files that only their owner can read
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    replace(folder / WEIGHTS, lambda path: path.write_bytes(as_bytes(contiguous)))
    text = json.dumps({"format": FORMAT, **config}, indent=2) + "\n"
    replace(folder / CONFIG, lambda path: path.write_text(text, encoding="utf8"))


def read(folder: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the weights that `write` wrote.

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file is damaged or of a newer format.
    """
    load_file = _safetensors().load_file
    config = read_config(folder)
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; a saved model has it beside {CONFIG}")
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors has an exception type of its own, which tells no more
        raise ValueError(f"{path}: is damaged or no safetensors file ({error})") from None
    return config, weights


def read_config(folder: str | PathLike[str]) -> dict[str, Any]:
    """What config.json of a saved model says.

    Raises:
        FileNotFoundError: the folder or the file is missing.
        ValueError: the file is damaged or of a newer format.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        kind = f"there is no such file; a saved model has it beside {WEIGHTS}" if path.parent.is_dir() else "no folder"
        raise FileNotFoundError(f"{path if path.parent.is_dir() else path.parent}: {kind}")
    try:
        config: object = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{path}: is damaged: {error}") from None
    entries = cast(dict[str, Any], config) if isinstance(config, dict) else {}
    if not isinstance(found := entries.get("format"), int):
        raise ValueError(f"{path}: is no config of a saved model: it has no format number")
    if found > FORMAT:
        raise ValueError(f"{path}: has format {found}; this version of towers reads up to {FORMAT}: update towers")
    return entries


@contextmanager
def explained(folder: str | PathLike[str]) -> Generator[None]:
    """Turn what goes wrong while a model is built from a config into an error that names the folder.

    Raises:
        ValueError: for a missing or unknown entry, sizes that do not fit, or weights of other names or shapes.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{folder}: {CONFIG} and {WEIGHTS} do not fit each other: {reason}") from None


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole beside its place, then rename it: nobody ever sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError('models are saved with safetensors: pip install "towers[train]"') from None
    return safetensors.torch
