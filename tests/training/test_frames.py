"""`fit` with tables in memory, and the folder that it leaves: all that `towers.load` and the command need."""

import functools
import json
from pathlib import Path

import polars
import pytest
import torch

import towers
from towers import Tower, TwoTowers
from towers.cli import main
from towers.data import SentencePairs, WordVectors
from towers.training import fit

ROWS = {
    "a": ["a dog runs", "a cat sits", "the dog sits", "a cat runs"] * 3,
    "b": ["dog runs", "the cat", "a dog", "not a dog"] * 3,
    "degree": [5.0, 4.0, 2.5, 1.0] * 3,
    "kind": ["near", "near", "far", "far"] * 3,
}
COLUMNS = {"left_column": "a", "right_column": "b", "label_column": "degree", "label_range": (1, 5)}
HOW = {"epochs": 1, "device": "cpu", "progress": False}


def hugging_face(rows):
    return pytest.importorskip("datasets").Dataset.from_dict(rows)


def pandas(rows):
    return pytest.importorskip("pandas").DataFrame(rows)


def arrow(rows):
    return pytest.importorskip("pyarrow").table(rows)


KINDS = {
    "a dict": dict,
    "pandas": pandas,
    "polars": polars.DataFrame,
    "lazy polars": polars.LazyFrame,
    "Arrow": arrow,
    "a Hugging Face dataset": hugging_face,
}


def model(outputs=1):
    torch.manual_seed(0)
    tower = Tower(vector_width=3, filters=4, pool=2, hidden=2)
    return TwoTowers(tower, tower, outputs=outputs)


def vectors():
    words = ["a", "the", "dog", "cat", "runs", "sits", "animal"]
    return WordVectors(words, torch.randn(len(words), 3, generator=torch.Generator().manual_seed(1)), missing="zero")


@functools.cache
def expected():
    pairs = SentencePairs.from_table(ROWS, **COLUMNS).with_vectors(vectors())
    fit(same := model(), pairs, pairs, **HOW)
    return same.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_every_table_trains_as_its_pairs(kind):
    table = KINDS[kind](ROWS)
    fit(own := model(), table, table, vectors=vectors(), columns=COLUMNS, **HOW)
    assert all(torch.equal(value, expected()[name]) for name, value in own.state_dict().items())


def test_the_folder_of_a_frame_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    known = vectors()
    lines = (
        f"{word} {' '.join(map(repr, row))}\n" for word, row in zip(known.words, known.table.tolist(), strict=True)
    )
    Path("vectors.txt").write_text("".join(lines))
    fit(own := model(), polars.DataFrame(ROWS), vectors="vectors.txt", columns=COLUMNS, out="run", **HOW)
    Path("vectors.txt").rename("elsewhere.txt")
    loaded = towers.load("run")
    assert "animal" in loaded._predictor.vectors.known, "words of the vectors that no pair has are kept too"
    assert (loaded.label_range, loaded.columns) == ((1, 5), ("a", "b"))
    scores = loaded.score(polars.DataFrame(ROWS))
    pairs = SentencePairs.from_table(ROWS, **COLUMNS).with_vectors(WordVectors.load("elsewhere.txt"))
    for batch in pairs.batches(12):
        answers = 1 + 4 * own.probability(batch.left, batch.right)
        torch.testing.assert_close(torch.tensor(scores)[batch.index], answers, atol=2e-3, rtol=0)  # of float16
    polars.DataFrame(ROWS).write_csv("pairs.csv")
    assert main(["evaluate", "--model", "run", "--pairs", "pairs.csv", "--json"]) == 0
    assert "pearson" in json.loads(capsys.readouterr().out)
    config = json.loads(Path("run/config.json").read_text())
    assert str(tmp_path) not in json.dumps(config)


def test_classes_are_found_and_those_of_dev_are_trains():
    names = COLUMNS | {"label_column": "kind"}
    del names["label_range"]
    one_class = {name: values[:2] for name, values in ROWS.items()}
    history = fit(model(2), ROWS, one_class, vectors=vectors(), columns=names, **HOW)
    assert "accuracy" in history.epochs[0].dev
    unknown = one_class | {"kind": ["near", "nearer"]}
    with pytest.raises(ValueError, match=r"dev: the dict, row 2: kind is 'nearer', none of the classes 'far', 'near'"):
        fit(model(2), ROWS, unknown, vectors=vectors(), columns=names, **HOW)


def test_pairs_keep_their_words_in_the_folder_too(tmp_path):
    pairs = SentencePairs([["a", "dog"]], [["the", "cat"]], [1.0]).with_vectors(vectors())
    fit(model(), pairs, out=tmp_path / "run", **HOW)
    assert 0 <= towers.load(tmp_path / "run").score("a dog", "the cat") <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"train": ROWS}, ValueError, "train is a table; give vectors= too"),
        ({"train": ROWS, "vectors": vectors()}, ValueError, "the dict has no column 'sentence1', only a, b, degree"),
        ({"train": [1], "vectors": vectors()}, TypeError, "train must be towers.data.SentencePairs, or a table"),
        ({"train": ROWS, "vectors": vectors(), "columns": {"lable": 1}}, TypeError, "lable"),
        ({"train": ROWS | {"degree": [9.0] * 12}, "vectors": vectors(), "columns": COLUMNS}, ValueError, "train: the dict, row 1: degree is 9"),
        ({"train": SentencePairs([["a"]], [["b"]], [1.0]), "vectors": vectors()}, ValueError, "vectors goes with tables"),
        ({"train": ROWS, "vectors": "none.txt", "columns": COLUMNS}, FileNotFoundError, "none.txt"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(arguments, error, text, tmp_path):
    with pytest.raises(error, match=text):
        fit(model(), out=tmp_path / "run", **arguments, **HOW)
    assert not (tmp_path / "run").exists()
