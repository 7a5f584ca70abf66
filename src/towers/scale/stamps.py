"""Whether a file is another one than before, without reading it."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

Stamp = tuple[tuple[str, int, int, int, int, int], ...]


def stamp(paths: Iterable[str | Path]) -> Stamp:
    """Of files and folders, those that are there: another stamp is another content.

    The time of the last change of a file's state is a part of it, which tools that keep the time of the content
    (`cp -p`, `rsync -t`) cannot set.
    """
    found = list[tuple[str, int, int, int, int, int]]()
    for path in map(Path, paths):
        with suppress(FileNotFoundError, NotADirectoryError):
            state = path.stat()
            found.append((path.name, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    return tuple(found)
