"""A file that is mapped into memory, whether it is what was written, and whether somebody has written into it since."""

import os
import zlib
from collections.abc import Collection
from pathlib import Path


class MappedFile:
    """The file behind some tensors, as it was when it was mapped.

    A file that was replaced or removed stays as it was for those who have mapped it. One that was written over in place
    gives them the new numbers, or ends the process where it has become shorter.

    Args:
        path: its name.
        state: of the file itself, whatever has the name now.
    """

    def __init__(self, path: Path, state: os.stat_result) -> None:
        self.path, self.size = path.absolute(), state.st_size
        self._file, self._changed = _file(state), state.st_mtime_ns
        self.parts: dict[str, tuple[memoryview, int]] = {}
        """By name the bytes that were not verified yet, and their CRC-32."""

    def verify(self, *, keep: Collection[str] = ()) -> None:
        """Read what was not verified yet, but for the parts of `keep`, once.

        Raises:
            ValueError: its checksum is another one.
        """
        for name, (part, checksum) in list(self.parts.items()):
            if name in keep:
                continue
            if zlib.crc32(part) != checksum:
                problem = f"its {name} {'is' if name == 'header' else 'are'} not what was written"
                raise ValueError(f"{self.path}: is damaged: {problem}; copy it again, or make it again")
            self.parts.pop(name, None)

    def check(self, call: str) -> None:
        """Refuse a file that was written over in place.

        Raises:
            ValueError: it was.
        """
        try:
            now = self.path.stat()
        except OSError:  # removed, or out of reach
            return
        if _file(now) == self._file and (now.st_size, now.st_mtime_ns) != (self.size, self._changed):
            problem = "was written over since it was loaded"
            raise ValueError(f"Index.{call}: {self.path} {problem}; load it again, and replace files by renaming")

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        self.verify()
        return type(None), ()  # a copy of the tensors lies in memory


def _file(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino
