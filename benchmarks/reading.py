"""Reading the word vectors of a vocabulary, beside gensim (if installed), which has to read all vectors."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from report import Row
from timing import interleaved

from towers.data import WordVectors

try:
    from gensim.models import KeyedVectors
except ImportError:
    KeyedVectors = None

TITLE = "Word vectors from a text file, of which one word in 100 is kept"
WIDTH = 300


def cases(quick: bool) -> list[int]:
    return [2_000] if quick else [20_000]


def measure(case: int, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of both readers, after a check that both read the same numbers."""
    with text_file(case) as path:
        kept = [f"word{number}" for number in range(0, case, 100)]
        readers = {"towers.data.WordVectors": lambda: WordVectors.load(path, kept)}
        if KeyedVectors is not None:
            theirs = KeyedVectors.load_word2vec_format(path, binary=False)
            torch.testing.assert_close(WordVectors.load(path, kept).look_up(kept), torch.from_numpy(theirs[kept]))
            readers["gensim KeyedVectors"] = lambda: KeyedVectors.load_word2vec_format(path, binary=False)
        timings = interleaved(readers, torch.device("cpu"), seconds=1)
    return [
        Row(
            "reading", f"{case:,} words", name, "reading", timing.milliseconds, timing.time_ratio,
            case / timing.milliseconds * 1e3, {"width": WIDTH, "spread": timing.spread, "rounds": timing.rounds},
        )
        for name, timing in timings.items()
    ]  # fmt: skip


@contextmanager
def text_file(words: int) -> Iterator[Path]:
    rows = torch.randn(100, WIDTH, generator=torch.Generator().manual_seed(0)).tolist()
    texts = [" ".join(f"{number:.5f}" for number in row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.txt"
        with path.open("w", encoding="utf8") as file:
            file.write(f"{words} {WIDTH}\n")
            file.writelines(f"word{number} {texts[number % 100]}\n" for number in range(words))
        yield path
