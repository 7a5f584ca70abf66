"""A file that is mapped into memory, whether it is what was written, and whether somebody has written into it since."""

import os
import threading
import weakref
import zlib
from collections.abc import Collection
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

READ = 1 << 18
"""Bytes that are read at a time for a checksum."""


class Part(NamedTuple):
    """From which byte of a file to which, and the CRC-32 of these."""

    first: int
    last: int
    checksum: int


class MappedFile:
    """The file behind some tensors, as it was when it was mapped.

    A file that was replaced or removed stays as it was for those who have mapped it. One that was written over in place
    gives them the new numbers, or ends the process where it has become shorter.

    Args:
        path: its name.
        file: the file itself, open, whatever has the name now. It is closed when all parts are verified,
            or when this object goes.
    """

    def __init__(self, path: Path, file: BufferedReader) -> None:
        state = os.fstat(file.fileno())
        self.path, self.size = path.absolute(), state.st_size
        self._identity, self._changed = _identity(state), state.st_mtime_ns
        self._file, self._lock = file, threading.Lock()
        weakref.finalize(self, file.close)
        self.parts: dict[str, Part] = {}
        """By name what was not verified yet."""

    def verify(self, *, keep: Collection[str] = ()) -> None:
        """Read what was not verified yet, but for the parts of `keep`.

        It is read into a small buffer: through the map 73 MB took 32 ms in place of 22, and the process grew by them.

        Raises:
            OSError: it cannot be read.
            ValueError: a checksum is another one.
        """
        with self._lock:
            for name in [name for name in self.parts if name not in keep]:
                if self._checksum(*self.parts[name][:2]) != self.parts[name].checksum:
                    problem = f"its {name} {'is' if name == 'header' else 'are'} not what was written"
                    raise ValueError(f"{self.path}: is damaged: {problem}; copy it again, or make it again")
                del self.parts[name]
            if not self.parts:
                self._file.close()

    def _checksum(self, first: int, last: int) -> int:
        self._file.seek(first)
        buffer, checksum = memoryview(bytearray(READ)), 0
        while first < last and (count := self._file.readinto(buffer[: last - first])):
            checksum, first = zlib.crc32(buffer[:count], checksum), first + count
        return checksum

    def check(self, call: str) -> None:
        """Refuse a file that was written over in place.

        Raises:
            ValueError: it was.
        """
        try:
            now = self.path.stat()
        except OSError:  # removed, or out of reach
            return
        if _identity(now) == self._identity and (now.st_size, now.st_mtime_ns) != (self.size, self._changed):
            problem = "was written over since it was loaded"
            raise ValueError(f"Index.{call}: {self.path} {problem}; load it again, and replace files by renaming")

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        self.verify()
        return type(None), ()  # a copy of the tensors lies in memory


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino
