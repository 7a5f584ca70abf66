"""How a run came to be: its command, settings and seed, hashes of its data, and versions, for its metrics.json."""

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from towers.checkpoint import own_version
from towers.data import SentencePairs

PACKAGES = ("torch", "numpy", "lightning")
FILES = ("train", "dev", "test", "vectors")
"""Options of the command that are files. The folder of a run may go to others: it has their names, and no path."""


def origin(
    settings: Mapping[str, Any], parts: Mapping[str, SentencePairs], command: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What repeats a run, and tells whether it was one of these data.

    Args:
        settings: of the training, with its seed.
        parts: the pairs by the name of their part. The hash of each is of its words' vectors and its labels.
        command: the options of `towers fit`, with files as paths that exist; they are hashed with SHA-256.
    """
    files = {} if command is None else {name: Path(command[name]) for name in FILES if name in command}
    options = {name: files[name].name if name in files else value for name, value in (command or {}).items()}
    return {
        "command": None if command is None else {name: value for name, value in options.items() if value is not None},
        "settings": dict(settings),
        "pairs": {part: pairs.fingerprint() for part, pairs in parts.items()},
        "files": {name: {"name": path.name, "sha256": _digest(path)} for name, path in files.items() if path.is_file()},
        "versions": {"towers": own_version(), "python": platform.python_version(), **_versions()},
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # installed without metadata
            continue
    return found
