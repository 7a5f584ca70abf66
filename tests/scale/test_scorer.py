"""Scorer: what the model says of each row alone, whatever the batch, its kind and its process."""

import os
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy
import polars
import pytest
import torch
from tests.test_answers import LEFT, RIGHT, WORDS, save_model
from tests.test_answers import folder as folder

import towers
from towers import Tower, TwoTowers
from towers.data import WordVectors
from towers.data.kept_vectors import save_vectors
from towers.data.memory_rows import MemoryRows
from towers.scale import Encode, Predict, Scorer, Search, arrow, loads
from towers.search import Index

ROWS = {
    "id": [1, 2, 3, 4],
    "sentence1": [LEFT[0], "", "dog", LEFT[3]],
    "sentence2": [RIGHT[0], RIGHT[1], "the cat", None],
}
PROBLEMS = [None, "sentence1 is empty", "sentence1 has 1 word; its tower takes at least 2", "sentence2 is empty"]


def as_polars(columns: dict[str, list[Any]]) -> polars.DataFrame:
    return polars.DataFrame(columns)


def as_table(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("pyarrow").table(columns)


def as_batch(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("pyarrow").RecordBatch.from_pydict(columns)


KINDS = pytest.mark.parametrize("make", [as_polars, as_table, as_batch])


def plain(batch: Any) -> dict[str, list[Any]]:
    return batch.to_dict(as_series=False) if isinstance(batch, polars.DataFrame) else batch.to_pydict()


@KINDS
def test_pairs(folder: Path, make: Callable[..., Any]) -> None:
    batch = make(ROWS)
    scored = Scorer(folder, Predict(threshold=0.4, label_column="good"))(batch)
    assert type(scored) is type(batch)
    columns = plain(scored)
    assert list(columns) == ["id", "sentence1", "sentence2", "probability", "good", "problem"]
    assert {name: columns[name] for name in ROWS} == ROWS
    assert columns["problem"] == PROBLEMS
    alone = towers.load(folder).score(LEFT[0], RIGHT[0])
    assert columns["probability"] == [pytest.approx(alone, abs=1e-6), None, None, None]
    assert columns["good"] == [int(alone >= 0.4), None, None, None]


@KINDS
@pytest.mark.parametrize("rows", [ROWS, {name: cells[1:] for name, cells in ROWS.items()}])
def test_states_and_items(folder: Path, make: Callable[..., Any], rows: dict[str, list[Any]]) -> None:
    """The second batch has one good row, and none of the other column."""
    model = towers.load(folder)
    index = Index(model.network)
    index.add(model.encode(RIGHT, side="right"))
    index.save("corpus.index")
    encoded = plain(Scorer(folder, Encode("sentence2", side="right"))(make(rows)))
    for text, state in zip(rows["sentence2"], encoded["state"], strict=True):
        assert (state is None) == (text is None)
        if state is not None:
            torch.testing.assert_close(torch.tensor(state), model.encode([text], side="right")[0])
    found = plain(Scorer(folder, Search("corpus.index", column="sentence1", k=2))(make(rows)))
    for text, ids, scores in zip(rows["sentence1"], found["ids"], found["scores"], strict=True):
        if text in ("", "dog"):
            assert ids is None
            assert scores is None
        else:
            best, places = model.most_similar(text, RIGHT, 2)
            assert ids == places.tolist()
            torch.testing.assert_close(torch.tensor(scores), best)


@KINDS
def test_batches_without_rows_and_without_a_good_row_have_the_same_types(
    folder: Path, make: Callable[..., Any]
) -> None:
    index = Index(towers.load(folder).network)
    index.add(torch.rand(5, 6))
    index.save("corpus.index")
    columns = {"text": ["the dog runs"], "sentence1": ["the dog"], "sentence2": ["a cat"]}
    for task in (Predict(threshold=0.5), Encode("text"), Search("corpus.index", k=2)):
        some, none = (Scorer(folder, task)(make(rows)) for rows in (columns, {name: [""] for name in columns}))
        empty = Scorer(folder, task)(some[:0].select(list(columns)))
        assert some.schema == none.schema == empty.schema
        assert len(empty) == 0


def test_scorers_over_one_table(folder: Path) -> None:
    encode = Scorer(folder, Encode("sentence1"), problem="why")
    both = encode(Scorer(folder)(polars.DataFrame(ROWS)))
    assert both.columns == [*ROWS, "probability", "problem", "state", "why"]
    assert both["problem"].to_list() == PROBLEMS
    assert both["why"].to_list() == [*PROBLEMS[:3], None]
    with pytest.raises(ValueError, match=r"has a column 'why' already; say Scorer\(…, problem=\"…\"\)"):
        encode(both.drop("state"))
    with pytest.raises(ValueError, match=r"gets a column 'state' already; say Scorer"):
        Scorer(folder, Encode("sentence1"), problem="state")(polars.DataFrame(ROWS))
    assert encode.answer(MemoryRows({"sentence1": [LEFT[0]], "why": ["x"]})).places == [
        0
    ]  # a run writes no such column


def test_classes(folder: Path) -> None:
    network = TwoTowers(Tower(vector_width=7), Tower(vector_width=7), outputs=3)
    save_model("classes", network, classes=["no", "so-so", "yes"])
    scored = Scorer("classes")(polars.DataFrame(ROWS))
    row = towers.load("classes").score(LEFT[0], RIGHT[0])
    assert [scored[name][0] for name in row] == pytest.approx(list(row.values()))
    assert scored["class"].to_list() == [max(row, key=row.__getitem__), None, None, None]
    with pytest.raises(ValueError, match="has a column 'yes' already; a class of the model has this name: rename the"):
        Scorer("classes")(polars.DataFrame(ROWS | {"yes": ROWS["id"]}))


def test_the_model_is_loaded_once_in_a_process(folder: Path) -> None:
    before = loads()
    scorer = Scorer(folder)
    copies = [pickle.loads(pickle.dumps(scorer)) for _ in range(3)]
    assert loads() == before  # not before it is needed
    results = [copy(polars.DataFrame(ROWS)) for copy in (scorer, *copies, Scorer("towers-run")) for _ in range(2)]
    assert loads() == before + 1
    assert all(result.equals(results[0]) for result in results)
    assert [len(batch) for batch in scorer.each(iter([polars.DataFrame(ROWS)] * 2))] == [4, 4]


def replaced(path: Path, other: Path) -> None:
    """As `cp -p` and `rsync -t` replace a file: with the time of the old one."""
    old = path.stat()
    (copied := path.with_name("copied")).write_bytes(other.read_bytes())
    copied.replace(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_size == old.st_size


@pytest.mark.parametrize("name", ["model.safetensors", "vectors.safetensors"])
def test_a_new_model_in_the_same_folder_is_loaded(folder: Path, name: str) -> None:
    first = Scorer(folder)(polars.DataFrame(ROWS))["probability"][0]
    torch.manual_seed(5)
    save_model("other", TwoTowers(Tower(vector_width=7), Tower(vector_width=7)))
    if name == "vectors.safetensors":
        table = torch.randn(len(WORDS), 7).half().float()
        save_vectors("other", WordVectors(WORDS, table))
    replaced(folder / name, Path("other", name))
    assert Scorer(folder)(polars.DataFrame(ROWS))["probability"][0] not in (None, first)


def test_a_new_index_of_the_same_name_is_searched(folder: Path) -> None:
    model, found = towers.load(folder), []
    for number, name in enumerate(("corpus.index", "other.index")):
        index = Index(model.network)
        index.add(torch.rand(5, 6), torch.arange(5) + 5 * number)
        index.save(name)
    for _ in range(2):
        found.append(Scorer(folder, Search("corpus.index", column="sentence1", k=5))(polars.DataFrame(ROWS))["ids"][0])
        replaced(Path("corpus.index"), Path("other.index"))
    assert [sorted(ids) for ids in found] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_unknown_words_are_counted(folder: Path) -> None:
    rows = MemoryRows({"sentence1": [LEFT[0], "blorp zork"], "sentence2": [RIGHT[0], RIGHT[0]]})
    assert Scorer(folder).answer(rows).unknown == 1
    assert Scorer(folder, Encode("sentence1")).answer(rows).unknown == 1


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (5, "sentence1 is 5; expected a string or a list of strings"),
        (["a", 5], "sentence1 is ['a', 5]; expected"),
        ("a\0b c", "sentence1 has a NUL, which no text has"),
        ("a \ud800 b", "sentence1 has half a character"),
        ([], "sentence1 is empty"),
        (["the", "dog"], None),
    ],
)  # fmt: skip
def test_bad_cells(folder: Path, cell: object, problem: str | None) -> None:
    (found,) = Scorer(folder).answer(MemoryRows({"sentence1": [cell], "sentence2": ["the cat"]})).problems
    assert found is None if problem is None else str(found).startswith(problem)


@pytest.mark.parametrize(
    ("task", "batch", "said"),
    [
        (Predict(), {"sentence1": ["a"], "other": ["b"]}, "has no column 'sentence2', only sentence1, other"),
        (Predict(), ROWS | {"probability": [1, 2, 3, 4]}, "has a column 'probability' already"),
        (Encode("text"), {"text": ["a b"], "state": ["c"]}, "has a column 'state' already; rename the column"),
        (Predict(threshold=2), ROWS, r"threshold=\) is 2: the scores go from 0 to 1"),
        (Predict(threshold=1, label_column="probability"), ROWS, "is 'probability', the column of the scores"),
        (Search("corpus.index", column="id", k=9), {"id": ["the dog"]}, r"k \(9\) must be at most 5"),
    ],
)  # fmt: skip
def test_mistakes(folder: Path, task: Any, batch: dict[str, list[Any]], said: str) -> None:
    index = Index(towers.load(folder).network)
    index.add(torch.rand(5, 6))
    index.save("corpus.index")
    with pytest.raises(ValueError, match=said):
        Scorer(folder, task)(polars.DataFrame(batch))


def test_other_mistakes(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"batch \(builtins.dict\) must be a RecordBatch.*batch_format=\"pyarrow\""):
        Scorer(folder)(ROWS)
    with pytest.raises(TypeError, match=r"task \('predict'\) must be Predict\(\)"):
        Scorer(folder, "predict")
    with pytest.raises(ValueError, match=r"side \('top'\) must be"):
        Encode(side="top")
    with pytest.raises(ValueError, match=r"k \(0\) must be at least 1"):
        Search("x", k=0)
    with pytest.raises(FileNotFoundError, match="no-model"):
        Scorer("no-model")(polars.DataFrame(ROWS))
    network = TwoTowers(Tower(vector_width=7), Tower(vector_width=7))
    torch.nn.init.constant_(network.dense.bias, 1e3)
    with torch.no_grad():
        network.logit.weight.copy_(3e38 * torch.tensor([1, -1]).repeat(8))
    save_model("overflows", network)
    with pytest.raises(ValueError, match="the network gives no finite number: its weights"):
        Scorer("overflows")(polars.DataFrame(ROWS))
    torch.nn.init.constant_(network.logit.weight, torch.nan)
    save_model("broken", network)
    with pytest.raises(ValueError, match=r"broken: the weight logit\.weight is not finite"):
        Scorer("broken")(polars.DataFrame(ROWS))


@pytest.mark.slow
def test_a_process_of_its_own(folder: Path) -> None:
    frame, scorer = polars.DataFrame(ROWS), Scorer(folder)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(scorer, frame).result().equals(scorer(frame))
        assert pool.submit(scorer, frame).result().equals(scorer(frame))
        assert pool.submit(loads).result() == 1


def test_more_numbers_than_a_column_of_arrow_holds() -> None:
    """Its offsets have 32 bits."""
    pyarrow = pytest.importorskip("pyarrow")
    cells = numpy.broadcast_to(numpy.float32(1), (1 << 21, 1 << 10))  # one number in memory
    batch = pyarrow.table({"text": pyarrow.nulls(len(cells))})
    with pytest.raises(ValueError, match="state: 2,097,152 rows with 1,024 numbers each are more than a list column"):
        arrow._add_pyarrow(batch, "state", list[float], cells, numpy.ones(len(cells), dtype=bool))


def test_a_list_that_was_written_as_text_is_a_bad_row(folder: Path) -> None:
    rows = {"sentence1": ["['a', 'dog', 'runs']", "a dog runs"], "sentence2": ["an animal moves around outside"] * 2}
    found = Scorer(folder)(polars.DataFrame(rows))
    assert "a list that was written as text" in found["problem"][0]
    assert found["problem"][1] is None
