"""Shards of an index give what one index gives: the same ids and the same bits."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from towers import TwoTowers
from towers.scale import Shards, merge
from towers.search import Index


@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    values=st.sampled_from([2, 5, 1000]),
    data=st.data(),
)
@settings(max_examples=40)
def test_as_one_index(seed: int, sizes: list[int], values: int, data: st.DataObject) -> None:
    """With few values of the states there are many ties, within shards and between them."""
    numbers = torch.Generator().manual_seed(seed)
    network, total = TwoTowers(), sum(sizes)
    states = torch.randint(values, (total, 6), generator=numbers) / values
    queries = torch.randint(values, (3, 6), generator=numbers) / values
    ids = torch.randperm(total, generator=numbers)
    k = data.draw(st.integers(1, total))
    whole = Index(network)
    whole.add(states, ids)
    shards = []
    for own, some in zip(states.split(sizes), ids.split(sizes), strict=True):
        shards.append(Index(network))
        shards[-1].add(own, some)
    scores, found = Shards(shards, threads=2).search(queries, k)
    wanted, best = whole.search(queries, k)
    assert torch.equal(found, best)
    assert torch.equal(scores, wanted)


def write(folder: Path, network: TwoTowers, sizes: tuple[int, ...] = (5, 7)) -> None:
    folder.mkdir()
    first = 0
    for size in sizes:
        index = Index(network)
        index.add(torch.rand(size, 6), torch.arange(first, first + size))
        index.save(folder / f"{first}.index")
        first += size
    Shards.write_list(folder, {f"{sum(sizes[:place])}.index": size for place, size in enumerate(sizes)})


def test_a_folder_of_shards(tmp_path: Path) -> None:
    network = TwoTowers()
    write(tmp_path / "corpus", network)
    shards = Shards.load(tmp_path / "corpus", network)
    assert len(shards) == 12
    scores, ids = shards.search(torch.rand(2, 6), 12)
    assert [sorted(row) for row in ids.tolist()] == [list(range(12))] * 2
    assert bool((scores.diff(dim=1) <= 0).all())
    alone = Shards.load(tmp_path / "corpus" / "0.index", network)
    assert len(alone) == 5


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: cut(folder / "5.index"), "5.index: is damaged or cut off"),
        (lambda folder: (folder / "5.index").unlink(), "the shard 5.index is missing; remove the folder and run towers index again"),
        (lambda folder: (folder / "shards.json").unlink(), "is no index, or not a whole one: it has no shards.json"),
        (lambda folder: (folder / "shards.json").write_text("{"), "shards.json: is damaged"),
        (lambda folder: (folder / "0.index").replace(folder / "5.index"), "the shard 0.index is missing"),
        (lambda folder: (folder / "5.index").write_bytes((folder / "0.index").read_bytes()), "has 5 items, not 7"),
    ],
)  # fmt: skip
def test_a_folder_that_is_damaged(tmp_path: Path, harm: Callable[[Path], object], said: str) -> None:
    network = TwoTowers()
    write(tmp_path / "corpus", network)
    harm(tmp_path / "corpus")
    with pytest.raises(ValueError, match=said):
        Shards.load(tmp_path / "corpus", network)


def test_mistakes(tmp_path: Path) -> None:
    network = TwoTowers()
    write(tmp_path / "corpus", network)
    with pytest.raises(ValueError, match="is an index of another model"):
        Shards.load(tmp_path / "corpus", TwoTowers())
    shards = Shards.load(tmp_path / "corpus", network)
    with pytest.raises(ValueError, match=r"k \(13\) must be at most 12"):
        shards.search(torch.rand(1, 6), 13)
    with pytest.raises(ValueError, match=r"k \(0\) must be at least 1"):
        shards.search(torch.rand(1, 6), 0)
    with pytest.raises(TypeError, match="queries"):
        shards.search(torch.rand(1, 5), 1)
    with pytest.raises(ValueError, match="is not finite"):
        shards.search(torch.full((1, 6), torch.nan), 1)
    with pytest.raises(ValueError, match="there is no index"):
        Shards([])
    with pytest.raises(ValueError, match="some indexes have left items, others right ones"):
        Shards([Index(network), Index(network, side="left")])
    with pytest.raises(ValueError, match="of several models, weights or outputs, whose scores differ"):
        Shards([Index(network), Index(TwoTowers())])
    with pytest.raises(ValueError, match="two parts have found the same id"):
        Shards([shards.indexes[0], shards.indexes[0]]).search(torch.rand(1, 6), 2)
    part = torch.rand(2, 3), torch.arange(6).view(2, 3)
    with pytest.raises(ValueError, match=r"k \(4\) must be from 1 to 3"):
        merge([part], 4)


def test_indexes_that_are_filled_or_emptied_later() -> None:
    network, states, queries = TwoTowers(), torch.rand(20, 6), torch.rand(2, 6)
    indexes = [Index(network), Index(network)]
    shards, whole = Shards(indexes), Index(network)
    with pytest.raises(ValueError, match=r"k \(1\) must be at most 0"):
        shards.search(queries, 1)
    whole.add(states)
    for number, index in enumerate(indexes):
        index.add(states[10 * number : 10 * number + 10], torch.arange(10) + 10 * number)
        index.search(queries, 1)
    assert all(map(torch.equal, shards.search(queries, 20), whole.search(queries, 20)))
    indexes[0].remove(torch.arange(10))
    whole.remove(torch.arange(10))
    assert all(map(torch.equal, shards.search(queries, 10), whole.search(queries, 10)))
