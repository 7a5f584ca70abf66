"""Lines of a file that must be UTF-8."""


def decode_line(path: str, number: int, line: bytes) -> str:
    """The text of a line; before the first line of a file, a byte order mark is dropped."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} (0x{line[error.start]:02x}) is not UTF-8"
        raise ValueError(f"{path}, line {number}: {problem}") from None
