"""What the first bytes of a file tell: compression, other kinds of file, and the encoding of its lines."""

import gzip
import re
import shutil
import tempfile
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_LE
from collections.abc import Generator
from contextlib import contextmanager
from typing import BinaryIO, cast

SAVE = "save the file as UTF-8"
RETURNS = "lines end in carriage returns alone, as on old Macs; save the file with other line ends"
GZIP = b"\x1f\x8b"
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f]")
_UNPACK = "the file is compressed: unpack it first"
_PICKLE = "it is a pickle, such as gensim's .kv or .model: save it with save_word2vec_format"
_KINDS = {
    GZIP: _UNPACK,
    b"BZh91AY&SY": _UNPACK,
    b"\x28\xb5\x2f\xfd": _UNPACK,
    b"\xfd7zXZ": _UNPACK,
    b"PK\x03\x04": "it is a zip archive (such as .zip, .npz of NumPy or .xlsx of Excel), compressed or not: unpack it, "
    "or save the data as text",
    b"\x93NUMPY": "it is an array of NumPy, which has no words: save words and vectors as text",
    b"PAR1": "the file is Parquet",
    b"\xd0\xcf\x11\xe0": "it is a file of an old Excel or Word: save its sheet as CSV",
    b"SQLite format 3": "it is a database of SQLite: save the data as text",
    b"version https://git-lfs": "it is a pointer of Git LFS to a file that is not here: fetch it with git lfs pull",
    b"%PDF-": "it is a PDF: save the data as text",
    b"\x89HDF": "it is an HDF5 file: save the data as text",
    b"\xba\x16\x4f\x2f": "it is a model of fastText (.bin): save its vectors as text (.vec)",
    **dict.fromkeys([b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"], _PICKLE),
    BOM_UTF32_LE: f"it is UTF-32: {SAVE}",  # begins as UTF-16 does
    BOM_UTF16_LE: f"it is UTF-16: {SAVE}",
    BOM_UTF16_BE: f"it is UTF-16: {SAVE}",
}


def other_kind(head: bytes) -> str | None:
    """What a file is that begins with these bytes, and what to do, if it is neither text nor vectors of word2vec."""
    known = (advice for mark, advice in _KINDS.items() if head.startswith(mark))
    if head[2:9] == b"\0\0\0\0\0\0{":  # the length of its header, and the header
        return "it is a safetensors file: save the data as text"
    # UTF-16 without a mark: every second byte of Latin letters is zero.
    unmarked = len(head) >= 6 and any(not any(head[place:8:2]) for place in (0, 1))
    return next(known, f"it looks like UTF-16: {SAVE}" if unmarked else None)


def decode_line(path: str, number: int, line: bytes) -> str:
    """The text of a line; before the first line of a file, a byte order mark is dropped.

    Raises:
        ValueError: it is not UTF-8, has a NUL, or the first line has control characters; the message names file, line
            and byte, and what else the file may be.
    """
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} (0x{line[error.start]:02x}) is not UTF-8"
        advice = (other_kind(line) if number == 1 else None) or SAVE
        raise ValueError(f"{path}, line {number}: {problem}; {advice}") from None
    if number == 1 and (advice := other_kind(line) or (_CONTROL.search(text) and SAVE)):
        raise ValueError(f"{path}, line 1: is no text; {advice}")
    if "\0" in text:
        problem = f"byte {line.index(0) + 1} is NUL, which no text has"
        raise ValueError(f"{path}, line {number}: {problem}; the file is damaged, or not UTF-8: {SAVE}")
    return text


@contextmanager
def unpacked(path: str) -> Generator[BinaryIO]:
    """An open file that can be read from any position: of a gzip file, a temporary copy of its content.

    Raises:
        ValueError: a gzip file is damaged, or the path is that of a pipe.
    """
    with open(path, "rb", buffering=1 << 14) as file:
        if not file.seekable():
            raise ValueError(f"{path}: is a pipe, and is read more than once; write it to a file, and name that")
        packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with tempfile.TemporaryFile() as copy, gunzip(path, file) as source:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.seek(0)
            yield cast(BinaryIO, copy)


@contextmanager
def gunzip(path: str, file: BinaryIO) -> Generator[BinaryIO]:
    """The content of a gzip file.

    Raises:
        ValueError: it is damaged or no gzip file; the message names it.
    """
    try:
        with gzip.open(file) as source:
            yield cast(BinaryIO, source)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: is no gzip file, or damaged: {error}") from None
