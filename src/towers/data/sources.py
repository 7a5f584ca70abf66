"""Where a table is read from: a file by its path, or an open stream such as standard input."""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from os import PathLike, fspath
from stat import S_ISREG
from typing import BinaryIO, NamedTuple, cast

from towers.data.encoding import GZIP


class Stream(NamedTuple):
    """An open binary file, such as standard input.

    Attributes:
        name: what errors call it.
        file: the file.
        left_out: of a part of a file, (first, count): behind its first lines this number of lines is left out. Errors
            and rows count them.

    >>> import io
    >>> from towers.data import SentencePairs, Stream
    >>> lines = Stream("two lines", io.BytesIO(b"sentence1,sentence2\\na dog runs,an animal moves\\n"))
    >>> [pairs.left for pairs in SentencePairs.stream(lines, format="csv", label_column=None)]
    [[('a', 'dog', 'runs')]]
    """

    name: str
    file: BinaryIO
    left_out: tuple[int, int] = (0, 0)


Source = str | PathLike[str] | Stream


def size_of(file: BinaryIO) -> int | None:
    """The size of a regular file."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # there is no file behind it
        return None
    return status.st_size if S_ISREG(status.st_mode) else None


def first_bytes(file: BinaryIO) -> bytes:
    """The first bytes of a file, where they can be seen without being taken from it."""
    peek = getattr(file, "peek", None)
    return b"" if peek is None else cast(bytes, peek(len(GZIP)))


@contextmanager
def as_file(source: Source) -> Generator[str]:
    """The path of a seekable file with the source's content: a stream is copied into a temporary file."""
    if isinstance(source, Stream):
        with tempfile.NamedTemporaryFile(suffix=".parquet") as spool:
            shutil.copyfileobj(source.file, spool)
            spool.flush()
            yield spool.name
    else:
        with open(source, "rb") as file:  # polars does not name the file in its errors
            if size_of(file) is not None:
                yield fspath(source)
                return
            with as_file(Stream(fspath(source), file)) as path:
                yield path
