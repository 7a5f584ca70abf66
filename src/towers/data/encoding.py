"""Lines of a file that must be UTF-8."""

from codecs import BOM_UTF16_BE, BOM_UTF16_LE

SAVE = "save the file as UTF-8"


def decode_line(path: str, number: int, line: bytes) -> str:
    """The text of a line; before the first line of a file, a byte order mark is dropped."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} (0x{line[error.start]:02x}) is not UTF-8"
        advice = _advice(line) if number == 1 else SAVE
        raise ValueError(f"{path}, line {number}: {problem}; {advice}") from None


def _advice(line: bytes) -> str:
    """What to do, judged by the first line of the file."""
    if line.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")):
        return "the file is compressed: unpack it first"
    if line.startswith(b"PAR1"):
        return "the file is Parquet"
    return f"it is UTF-16: {SAVE}" if line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else SAVE
