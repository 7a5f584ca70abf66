# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUntypedBaseClass=false
"""word2vec's binary format, through gensim."""

from collections.abc import Collection
from typing import Any

import torch

from towers.data.vector_files import HEAD, VectorFile, read_header, root_mean_square


def read_binary(path: str, wanted: Collection[str] | None) -> VectorFile:
    """Read the `wanted` words of a word2vec binary file (absent: all); the others take no memory."""
    with open(path, "rb") as file:
        count, width = read_header(path, file.readline(1 << 20))
    sieve = _sieve(path, None if wanted is None else set(wanted))
    try:  # "replace", since word2vec cuts a long word in the middle of a character
        read = sieve.load_word2vec_format(path, binary=True, unicode_errors="replace")
    except EOFError:
        raise ValueError(f"{path} ends before the {count} words that its header says") from None
    rows = [torch.from_numpy(row) for row in read.rows.values()]
    table = torch.stack(rows) if rows else torch.empty(0, width)
    head = torch.stack([torch.from_numpy(row) for row in read.head]) if read.head else torch.empty(0, width)
    return VectorFile(list(read.rows), table, root_mean_square(head), read.duplicates)


def _sieve(path: str, wanted: set[str] | None) -> Any:
    """Gensim's table of vectors, but one that keeps only the wanted, and only its first vector of a word."""
    try:
        from gensim.models import KeyedVectors
    except ImportError:
        raise ImportError('word2vec binary is read by gensim: pip install "towers[train]"') from None
    import numpy

    class Sieve(KeyedVectors):
        def __init__(self, vector_size: int, count: int = 0, dtype: Any = numpy.float32) -> None:
            super().__init__(vector_size, 0, dtype)  # gensim would make room for all `count` words
            self.rows: dict[str, Any] = {}
            self.head: list[Any] = []
            self.duplicates = 0

        def add_vector(self, key: str, vector: Any) -> int:
            if len(self.head) < HEAD:
                self.head.append(vector)
            if key and (wanted is None or key in wanted):
                if not numpy.isfinite(vector).all():
                    raise ValueError(f"{path}: the vector of {key!r} has a number that is not finite")
                self.duplicates += key in self.rows
                self.rows.setdefault(key, vector)
            return 0

        def set_vecattr(self, key: str, attr: str, val: Any) -> None:
            """Gensim's made-up word counts: not needed."""

    return Sieve
