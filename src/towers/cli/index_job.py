"""The work of `towers index`."""

import argparse
import sys
from itertools import count
from pathlib import Path

import torch

from towers.answers import Model
from towers.cli.common import answering
from towers.cli.prediction_files import file_to_write
from towers.cli.sentence_lines import CORPUS, ENCODED, Digest, blocks, encoded, paced, states_of
from towers.scale import Shards
from towers.search import Index
from towers.search.sentences import VECTORS, check_vectors

UP_TO_HERE = "corpus_up_to_here"
"""The name, in what a shard says about itself, of the digest of the corpus up to the shard's last sentence."""


def index(arguments: argparse.Namespace) -> None:
    """Do what `towers index` does."""
    if arguments.shard is not None:
        _index_in_shards(arguments)
        return
    place = file_to_write(arguments.out, {"corpus": arguments.corpus}, standard=False)
    with answering(arguments) as model:
        made = Index(model.network)
        digest = Digest()
        for part, states in encoded(model, arguments.corpus, "right"):
            made.add(states, torch.tensor(part.numbers))
            digest.add(part)
        made.save(place, about={CORPUS: digest.text(), **_vectors(model)})
    print(f"{len(made)} sentences are in {arguments.out}")


def _index_in_shards(arguments: argparse.Namespace) -> None:
    """A folder with an index for every `--shard` sentences. The list of the shards, without which they are no index, is
    written last. Shards that an interrupted command has written stay, if they are those that this one would write."""
    folder: Path = arguments.out
    if not folder.parent.is_dir():
        raise ValueError(f"--out {folder}: there is no folder {folder.parent}")
    left = list(folder.iterdir()) if folder.is_dir() else []
    if folder.exists() and (not folder.is_dir() or any(path.suffix not in (".index", ".partial") for path in left)):
        raise ValueError(f"--out {folder}: is there already; name another folder, or remove it")
    with answering(arguments) as model:
        kept = _kept(folder, model)
        if kept:
            print(f"towers index: going on: {len(kept)} of the shards are done", file=sys.stderr, flush=True)
        shard, items, digest, counts = Index(model.network), 0, Digest(), dict[str, int]()

        def end_shard() -> None:
            name = f"{len(counts):05}.index"
            if len(counts) >= len(kept):
                shard.save(folder / name, about={UP_TO_HERE: digest.text(), **_vectors(model)})
            elif kept[len(counts)] != (items, digest.text()):
                problem = f"{name} there is of another corpus, or of another --shard"
                raise ValueError(f"--out {folder}: {problem}; name another folder, or remove it")
            counts[name] = items

        for part in paced(arguments.corpus, blocks(arguments.corpus, min(ENCODED, arguments.shard))):
            if items + len(part.numbers) > arguments.shard:
                end_shard()
                shard, items = Index(model.network), 0
            if len(counts) >= len(kept):
                states = states_of(model, arguments.corpus, part, "right")
                folder.mkdir(exist_ok=True)
                shard.add(states, torch.tensor(part.numbers))
            digest.add(part)
            items += len(part.numbers)
        end_shard()
        for old in left:
            if old.name not in counts:
                old.unlink(missing_ok=True)
        Shards.write_list(folder, counts, {CORPUS: digest.text(), **_vectors(model)})
    shards = "1 shard" if len(counts) == 1 else f"{len(counts)} shards"
    print(f"{sum(counts.values())} sentences are in {shards} in {folder}")


def _vectors(model: Model) -> dict[str, str]:
    return {} if model.vectors_digest is None else {VECTORS: model.vectors_digest}


def _kept(folder: Path, model: Model) -> list[tuple[int, str]]:
    """Of the shards of an interrupted command, without a gap from the first on: the items and the digest.

    Raises:
        OSError: one cannot be read.
        ValueError: one is damaged, or of another model.
    """
    kept: list[tuple[int, str]] = []
    for number in count():
        path = folder / f"{number:05}.index"
        if not path.is_file():
            break
        shard = Index.load(path, model.network, verify=True)
        check_vectors(shard.about, model, path)
        if UP_TO_HERE not in shard.about:  # of an older towers
            break
        kept.append((len(shard), shard.about[UP_TO_HERE]))
    return kept
