"""Sentences for the suite `tower`: SICK's with their GloVe vectors, or random ones with the same distributions."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from towers import Ragged
from towers.data import SentencePairs, WordVectors

DATA = Path(os.environ.get("TOWERS_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""The folder with `sick/sick.test.tsv` and `vectors/glove.840B.300d.sick.txt`; it may be missing."""

# The number of SICK's 19,854 sentences that have 3, 4, 5, … tokens.
LENGTHS = (11, 551, 903, 2510, 2616, 2695, 1948, 1690, 1536, 1367, 972, 828, 679, 396, 384, 197, 217, 102, 93, 48, 37,
           17, 25, 7, 6, 15, 0, 2, 0, 0, 0, 0, 0, 2)  # fmt: skip
WORDS = 2403  # of SICK's vocabulary
RIGHT = 5  # words of a right sentence


class Sentences(NamedTuple):
    """Pairs of sentences as word ids with the table of their vectors; a right sentence has five words."""

    left: Ragged
    right: Ragged
    source: str


def sentences(batch: int, device: torch.device) -> Sentences:
    """Pairs from SICK, drawn with the seed 0; without the data, random ones with the same distributions."""
    ids, table, source = _of_sick() if (DATA / "sick").is_dir() else _made_up()
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))[: 2 * batch].tolist()
    left, right = ([ids[i] for i in side] for side in (order[:batch], order[batch:]))
    blank = len(table)  # the last row, zeros: fills right sentences that are too short
    right = [torch.cat([some[:RIGHT], torch.full((max(0, RIGHT - len(some)),), blank)]) for some in right]
    table = torch.cat([table, torch.zeros(1, table.shape[1])])
    of_five = Ragged.from_padded(torch.stack(right))
    parts = [Ragged.from_list(left).with_table(table), of_five.with_table(table)]
    return Sentences(*[part.to(device) for part in parts], source)


def _of_sick() -> tuple[list[Tensor], Tensor, str]:
    pairs = SentencePairs.load(
        DATA / "sick" / "sick.test.tsv",
        left_column="tokens1",
        right_column="tokens2",
        label_column=None,
        split="spaces",
    )
    vectors = WordVectors.load(DATA / "vectors" / "glove.840B.300d.sick.txt")
    ids = [torch.tensor(vectors.ids(sentence)) for side in (pairs.left, pairs.right) for sentence in side]
    return ids, vectors.table, "SICK's sentences, GloVe vectors"


def _made_up() -> tuple[list[Tensor], Tensor, str]:
    generator = torch.Generator().manual_seed(0)
    lengths = 3 + torch.multinomial(torch.tensor(LENGTHS, dtype=torch.float), 10_000, True, generator=generator)
    frequent = 1 / torch.arange(3.0, WORDS + 3)  # Zipf's law
    words = torch.multinomial(frequent, int(lengths.sum()), True, generator=generator)
    table = 0.4 * torch.randn(WORDS, 300, generator=generator)
    return list(words.split(lengths.tolist())), table, "made-up sentences with SICK's lengths (SICK is not here)"
