"""A file of Keras, opened: its version, its config as plain JSON, its HDF5 part. Nothing in it is run or imported."""

import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, cast

from towers.keras.hdf5_reader import Hdf5

WEIGHTS_MEMBER = "model.weights.h5"
_MIB = 1 << 20
_CONFIG_BYTES = 64 * _MIB
_START = 64
"""Bytes that tell one kind of file from another."""
_LARGEST_RATIO = 100
"""How far a compressed member may expand; below 64 MiB it may always. Keras itself stores members as they are."""

_OF_TENSORFLOW = ' is read by Keras only: save the network from there with model.save("NAME.keras")'

Json = dict[str, Any]


@dataclass(frozen=True)
class KerasFile:
    """What a file says.

    Attributes:
        name: its path, for messages.
        version: of the Keras that wrote it, such as (2, 2, 4); None where the file does not say.
        config: the network's class and config; None in a file of weights alone.
        optimizer: its optimizer's class and config; None where there is none.
        hdf5: the numbers.
        legacy: whether weights lie under each layer's own name (Keras 1 and 2, and Keras 3 for `.h5`), or under names
            that follow from classes (Keras 3).
    """

    name: str
    version: tuple[int, ...] | None
    config: Json | None
    optimizer: Json | None
    hdf5: Hdf5
    legacy: bool

    @property
    def major(self) -> int | None:
        """1, 2 or 3: the version of Keras whose functions the file means; None where it does not say."""
        return None if self.version is None else self.version[0]

    @property
    def has_optimizer(self) -> bool:
        """Whether it holds the state of an optimizer that has made a step: more than its count and its rate."""
        if self.legacy:
            return len(self.hdf5.texts("optimizer_weights", "weight_names") or ()) > 2
        return len(self.hdf5.names("optimizer/vars")) > 2

    @property
    def legacy_root(self) -> str:
        """Where the layers of a legacy file lie."""
        return "model_weights" if self.hdf5.names("model_weights") else "/"


def open_keras(path: str | PathLike[str]) -> KerasFile:
    """Read `.keras` (a zip or a folder), `.weights.h5` of Keras 3, or `.h5` of Keras 1, 2 or 3, by its content.

    Raises:
        ImportError: pyfive is not installed.
        OSError: the file cannot be read.
        ValueError: it is none of these, damaged, or holds what Keras does not write.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise ValueError(f"{path}: is a SavedModel of TensorFlow, which{_OF_TENSORFLOW}")
        return _archive(fspath(path), lambda member, limit: _from_folder(path, member, limit))
    if not path.exists() and path.with_name(f"{path.name}.index").is_file():
        raise ValueError(
            f"{path}: is the name of a checkpoint of TensorFlow ({path.name}.index), which{_OF_TENSORFLOW}"
        )
    with path.open("rb") as file:
        start = file.read(_START)
    if start[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                return _archive(fspath(path), lambda member, limit: _from_zip(archive, path, member, limit))
        except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
            raise ValueError(
                f"{path}: is a damaged zip ({str(error)[:200]}); save the network again with Keras"
            ) from None
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(fspath(path), path.read_bytes())
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path}: is a pointer of Git LFS, not the file itself; fetch that with: git lfs pull")
    if start.lstrip()[:1] == b"<":
        raise ValueError(
            f"{path}: is a web page (HTML or XML), not the file itself; download it again, by its raw link"
        )
    if start[:1] == b"{":
        raise ValueError(
            f"{path}: is JSON: a network without its weights (to_json), or the list of files of weights in several "
            'parts (max_shard_size); save it in one file with model.save("NAME.keras")'
        )
    raise ValueError(
        f"{path}: is neither a .keras file (a zip) nor HDF5 (.h5); a checkpoint of TensorFlow{_OF_TENSORFLOW}"
    )


def _archive(name: str, member: Callable[[str, int], bytes | None]) -> KerasFile:
    """A `.keras`, whose members are read by their exact names."""
    config = _json(name, "config.json", member("config.json", _CONFIG_BYTES))
    metadata = _json(name, "metadata.json", member("metadata.json", _MIB))
    weights = member(WEIGHTS_MEMBER, 1 << 40)
    if weights is None:
        if member("model.weights.npz", 1 << 40) is not None:
            raise ValueError(
                f"{name}: its weights are model.weights.npz, pickled arrays, which run code when they are read; in "
                f'Keras, load it and save it with model.save("NAME.keras", zipped=True), whose weights are HDF5'
            )
        raise ValueError(f"{name}: has no member {WEIGHTS_MEMBER}; a .keras file has it beside config.json")
    if config is None:
        raise ValueError(f"{name}: has no member config.json; a .keras file has it beside {WEIGHTS_MEMBER}")
    compiled: object = config.get("compile_config")
    optimizer = cast("Json", compiled).get("optimizer") if isinstance(compiled, dict) else None
    version = _version(name, (metadata or {}).get("keras_version"))
    return KerasFile(
        name,
        version,
        config,
        cast("Json", optimizer) if isinstance(optimizer, dict) else None,
        Hdf5(weights, f"{name}: {WEIGHTS_MEMBER}"),
        legacy=False,
    )


def _hdf5(name: str, content: bytes) -> KerasFile:
    """A `.h5`, of a whole network or of weights alone, in the layout that it turns out to have."""
    hdf5 = Hdf5(content, name)
    config = _json(name, "attribute model_config", _encoded(hdf5.text("/", "model_config")))
    training = _json(name, "attribute training_config", _encoded(hdf5.text("/", "training_config")))
    names = hdf5.names("/")
    legacy = config is not None or hdf5.texts("/", "layer_names") is not None or "model_weights" in names
    if not legacy and not {"layers", "_layer_checkpoint_dependencies"} & set(names):
        raise ValueError(f"{name}: is HDF5, but not of Keras: it has neither layer_names nor a group 'layers'")
    root = "model_weights" if "model_weights" in names else "/"
    version = hdf5.text("/", "keras_version") or hdf5.text(root, "keras_version")
    optimizer = (training or {}).get("optimizer_config")
    return KerasFile(
        name,
        _version(name, version) if version is not None else ((1,) if config is not None else None),
        config,
        cast("Json", optimizer) if isinstance(optimizer, dict) else None,
        hdf5,
        legacy,
    )


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf8")


def _json(name: str, what: str, content: bytes | None) -> Json | None:
    if content is None:
        return None
    try:
        found: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise ValueError(f"{name}: {what}: is damaged JSON ({reason})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name}: {what}: is {type(found).__name__}; an object belongs there")
    return cast("Json", found)


def _version(name: str, text: object) -> tuple[int, ...] | None:
    """(2, 2, 4) of "2.2.4-tf"."""
    if text is None:
        return None
    first = str(text).split("-")[0].split(".")
    numbers = tuple(int(part) for part in first if part.isascii() and part.isdigit() and len(part) < 6)
    if not numbers or numbers[0] not in (1, 2, 3):
        raise ValueError(f"{name}: was written by Keras {str(text)[:40]!r}; files of Keras 1, 2 and 3 are read")
    return numbers


def _from_folder(folder: Path, member: str, limit: int) -> bytes | None:
    path = folder / member
    if path.is_symlink():
        raise ValueError(f"{path}: is a link; Keras writes none")
    if not path.is_file():
        return None
    if path.stat().st_size > limit:
        raise ValueError(f"{path}: has {path.stat().st_size:,} bytes; at most {limit:,} belong there")
    return path.read_bytes()


def _from_zip(archive: zipfile.ZipFile, path: Path, member: str, limit: int) -> bytes | None:
    entries = [entry for entry in archive.infolist() if entry.filename == member]
    if not entries:
        return None
    if len(entries) > 1:
        raise ValueError(f"{path}: has {len(entries)} members {member}; one belongs there")
    (entry,) = entries
    limit = min(limit, max(64 * _MIB, _LARGEST_RATIO * min(entry.compress_size, path.stat().st_size)))
    if entry.file_size > limit:
        raise ValueError(f"{path}: {member} expands to {entry.file_size:,} bytes; at most {limit:,} belong there")
    try:
        with archive.open(entry) as file:
            content = file.read(limit + 1)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, NotImplementedError, zlib.error) as bad:
        raise ValueError(f"{path}: {member} is damaged ({str(bad)[:200]}); save the network again with Keras") from None
    if len(content) > limit:
        raise ValueError(f"{path}: {member} expands to more than {limit:,} bytes")
    return content
