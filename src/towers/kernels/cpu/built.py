"""The C library beside this file: its name, what its build said, the hash of its sources. The build reads it too."""

import hashlib
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / {"win32": "native.dll", "darwin": "native.dylib"}.get(sys.platform, "native.so")
REPORT = FOLDER / "native.txt"
"""One line: by what the library was compiled, or why it was left out."""


def digest() -> str | None:
    """The hash of the C sources beside this file; None where there are none, as in an installed wheel."""
    sources = sorted((*FOLDER.glob("*.c"), *FOLDER.glob("*.h")))
    if not sources:
        return None
    whole = hashlib.sha256()
    for source in sources:  # read as text: a checkout on Windows may have other ends of lines
        whole.update(f"{source.name}\n{source.read_text(encoding='utf8')}\n".encode())
    return whole.hexdigest()[:16]
