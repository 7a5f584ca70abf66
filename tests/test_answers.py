"""A model with its words: every answer is that of the network on the same vectors, asked for pair by pair."""

import gzip
import io
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy
import pytest
import torch

import towers
from towers import Tower, TwoTowers
from towers.answers import Model
from towers.cli import main
from towers.cli.sentence_lines import read_lines
from towers.data import SentencePairs, WordVectors
from towers.data.kept_vectors import save_vectors
from towers.search import Index
from towers.search.sentences import scores_of
from towers.training import evaluate, fit
from towers.training.prediction import Predictor
from towers.training.presets import PRESETS, build

WORDS = ["the", "dog", "cat", "runs", "sleeps", "a"]
LEFT = ["the dog runs", "a cat sleeps", "the cat", "a dog runs the dog"]
RIGHT = ["the cat runs", "a dog", "the dog sleeps"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    network = TwoTowers(Tower(vector_width=7), Tower(vector_width=7))
    save_model("towers-run", network)
    return tmp_path / "towers-run"


def save_model(name: str, network: TwoTowers, **data: object) -> None:
    table = torch.randn(len(WORDS), 7, generator=torch.Generator().manual_seed(0)).half().float()
    vectors = {"source": "v.txt", "missing": "zero", "file": "vectors.safetensors"}
    network.save(name, extra={"vectors": vectors, "data": data})
    save_vectors(name, WordVectors(WORDS, table))


def expected(folder: Path) -> torch.Tensor:
    """The probability of every pair, one pair at a time."""
    network = TwoTowers.load(folder)
    table = dict(
        zip(WORDS, torch.randn(len(WORDS), 7, generator=torch.Generator().manual_seed(0)).half().float(), strict=True)
    )

    def vectors(sentence: str) -> torch.Tensor:
        return torch.stack([table[word] for word in sentence.split()])[None]

    with torch.no_grad():
        return torch.tensor([[float(network.probability(vectors(a), vectors(b))) for b in RIGHT] for a in LEFT])


def test_score_of_one_pair_and_of_many(folder: Path) -> None:
    model = towers.load(folder)
    every = expected(folder)
    assert model.score(LEFT[0], RIGHT[1]) == pytest.approx(float(every[0, 1]), abs=1e-6)
    pairs = [(a, b) for a in LEFT for b in RIGHT]
    scores = model.score(iter(pairs))
    assert isinstance(scores, numpy.ndarray)
    numpy.testing.assert_allclose(scores, every.flatten(), atol=1e-6, rtol=0)
    words = [(a.split(), b.split()) for a, b in pairs]
    assert torch.equal(model.score(words, tensor=True), torch.tensor(scores))
    lefts, rights = zip(*pairs, strict=True)
    assert (model.score(lefts, iter(rights)) == scores).all()
    assert model.score([]).shape == (0,)


@pytest.mark.parametrize("set_by", ["training", "autocast", "default device"])
def test_answers_do_not_depend_on_what_the_caller_has_set(set_by: str, tmp_path: Path) -> None:
    tower = Tower(vector_width=7, hidden=4, bidirectional=True)
    network = TwoTowers(tower, tower, features=("absolute difference", "product"), outputs=5, dropout=0.5)
    model = Model(network, WordVectors(WORDS, torch.randn(len(WORDS), 7)))

    def answers() -> list[Any]:
        many = model.score(LEFT[:3], RIGHT, tensor=True), model.encode(LEFT), model.similarity(LEFT, RIGHT)
        return [model.score(LEFT[0], RIGHT[1]), *many, *model.most_similar(LEFT[0], RIGHT, k=2)]

    before = answers()
    try:
        if set_by == "training":
            model.network.train()
            found = answers()
            assert all(module.training for module in model.network.modules()), "it is so again afterwards"
        elif set_by == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                found = answers()
        else:
            torch.set_default_device("meta")
            found = answers()
    finally:
        if set_by == "default device":
            torch.set_default_device(None)  # "cpu" would leave a mode behind
    for one, other in zip(found, before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_threads_that_ask_a_network_in_training_get_its_answers() -> None:
    tower = Tower(vector_width=7, hidden=4)
    model = Model(TwoTowers(tower, tower, dropout=0.5), WordVectors(WORDS, torch.randn(len(WORDS), 7)))
    before = model.score(LEFT[:3], RIGHT, tensor=True)
    model.network.train()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: model.score(LEFT[:3], RIGHT, tensor=True), range(200)))
    assert max(float((scores - before).abs().max()) for scores in found) <= 1e-6
    assert all(module.training for module in model.network.modules())


def test_scores_do_not_depend_on_where_logits_lie(folder: Path) -> None:
    """Those of merged shards are a part of a wider tensor; a block of queries ends where another one goes on."""
    model, logits = towers.load(folder), 3 * torch.randn(64, 8)
    scores = scores_of(model, logits)
    assert torch.equal(scores_of(model, logits[:, :5]), scores[:, :5])
    assert torch.equal(scores_of(model, logits[3:7]), scores[3:7])


@pytest.mark.parametrize("missing", ["zero", "hash"])
def test_one_pair_is_scored_as_among_many(folder: Path, missing: Literal["zero", "hash"]) -> None:
    """One pair goes a shorter way; the same network must see the same vectors, known and unknown, and count them."""
    vectors = WordVectors(WORDS, torch.randn(6, 7, generator=torch.Generator().manual_seed(0)), missing=missing)
    network = TwoTowers.load(folder)
    for pair in [("the dog", "a cat runs"), ("the blorp zork", "A DOG cafe\u0301"), ("a blorp blorp", "the blorp")]:
        alone, many = Model(network, vectors), Model(network, vectors)
        assert alone.score(*pair) == pytest.approx(float(many.score([pair])[0]), abs=1e-6)
        assert alone.coverage == many.coverage
        assert len(vectors.table) == 6


def test_similarity_of_sentences_and_of_states(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = towers.load(folder)
    torch.testing.assert_close(model.similarity(LEFT, RIGHT), expected(folder), atol=1e-6, rtol=0)
    states = model.encode(LEFT).requires_grad_(), model.encode(RIGHT, side="right")
    torch.testing.assert_close(model.similarity(*states), expected(folder), atol=1e-6, rtol=0)
    monkeypatch.setattr("towers.every_pair.BLOCK", 1)  # one row at a time
    torch.testing.assert_close(model.similarity(LEFT, RIGHT), expected(folder), atol=1e-6, rtol=0)
    assert model.similarity([], RIGHT).shape == (0, 3)
    assert model.similarity(LEFT, []).shape == (4, 0)


@pytest.mark.parametrize("k", [1, 2, 3, 99])
def test_most_similar(folder: Path, k: int) -> None:
    model = towers.load(folder)
    every = expected(folder)
    scores, places = model.most_similar(LEFT, RIGHT, k)
    for row in range(len(LEFT)):
        best = sorted(range(len(RIGHT)), key=lambda place: -float(every[row, place]))[:k]
        assert places[row].tolist() == best
        torch.testing.assert_close(scores[row], every[row, best], atol=1e-6, rtol=0)
    one = model.most_similar(LEFT[2], RIGHT, k)
    assert torch.equal(one[1], places[2])
    torch.testing.assert_close(one[0], scores[2])


def test_scores_are_in_the_range_of_the_labels(folder: Path) -> None:
    save_model("degrees", TwoTowers.load(folder), label_range=[1, 5])
    model = towers.load("degrees")
    torch.testing.assert_close(model.similarity(LEFT, RIGHT), 1 + 4 * expected(folder), atol=1e-5, rtol=0)


def test_a_fixed_tower_refuses_other_lengths_unless_it_was_trained_otherwise(folder: Path) -> None:
    network = TwoTowers(Tower(vector_width=7), Tower(3, vector_width=7))
    save_model("three", network)
    model = towers.load("three")
    refused = pytest.raises(ValueError, match=r"right sentence 1 \('a dog'\) has 2 words; its tower takes exactly 3")
    with refused:
        model.encode(RIGHT, side="right")
    with refused:
        model.most_similar("the dog", RIGHT)
    save_model("padded", network, fit_length="pad-or-cut")
    assert towers.load("padded").encode(RIGHT, side="right").shape == (3, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model: model.score("the", "a dog"),
            r"left sentence 0 \('the'\) has 1 word; its tower takes at least 2",
        ),
        (lambda model: model.score("", "a dog"), "has 0 words; its tower takes at least 2"),
        (lambda model: model.score("a dog"), "right is missing: score takes two sentences, or pairs of sentences"),
        (lambda model: model.score(["a dog"], "a dog"), "must both be one sentence, or both be lists of sentences"),
        (lambda model: model.score(["a dog"], LEFT), "there are 1 left and 4 right sentences; each needs its other"),
        (lambda model: model.score(["ab", "cd"]), r"pair 0 \('ab'\) must be two sentences"),
        (
            lambda model: model.score([("a dog", "a cat"), LEFT]),
            r"pair 1 \(\['the dog runs', .*\) must be two sentences",
        ),
        (
            lambda model: model.score([("a dog", None)]),
            "right sentence 0 is None; expected a string, or a list of words",
        ),
        (lambda model: model.score([("a dog", ["a", 1])]), r"right sentence 0 is \['a', 1\]; expected a string, or a"),
        (
            lambda model: model.score({"a": LEFT}, {"a": RIGHT}),
            "left must be a sentence, or one column or list .* dict",
        ),
        (
            lambda model: model.score(LEFT, set(RIGHT)),
            "right must be a sentence, or one column or list of .* whole set",
        ),
        (lambda model: model.score("a \ud800 dog", "a dog"), r"left sentence 0 .* has a NUL, or half a character"),
        (lambda model: model.encode(["a dog", "a\0b dog"]), r"left sentence 1 .* has a NUL, or half a character"),
        (lambda model: model.score([{"a": "a dog"}]), "pair 0 has no 'sentence1', only 'a'"),
        (lambda model: model.score({"a": ["a dog"]}), "the dict has no column 'sentence1', only a; say which"),
        (
            lambda model: model.score({"sentence1": [], "sentence2": LEFT}),
            "its columns must be equally long: sentence1 has",
        ),
        (lambda model: model.encode([float("nan")]), "left sentence 0 is nan; expected a string"),
        (lambda model: model.encode({"a": LEFT}), "left sentences must be one column, not a whole dict"),
        (lambda model: model.encode("a dog"), "left sentences must be a list of sentences, not one string"),
        (lambda model: model.encode(LEFT, side="up"), r"side \('up'\) must be \"left\" or \"right\""),
        (lambda model: model.most_similar("a dog", LEFT, 0), r"k \(0\) must be a whole number of at least 1"),
        (lambda model: model.most_similar("a dog", LEFT, True), r"k \(True\) must be a whole number of at least 1"),
        (lambda model: model.most_similar("a dog", LEFT, 2.0), r"k \(2.0\) must be a whole number"),
        (lambda model: model.most_similar("a dog", LEFT, numpy.array([2])), r"k \(array\(\[2\]\)\) must be a whole"),
        (
            lambda model: model.most_similar("a dog", torch.tensor([[0.0] * 6, [math.nan] * 6])),
            "right state 1 is not f",
        ),
        (lambda model: model.similarity(torch.tensor(1.0), LEFT), r"left states are torch\.float32 \(\), .* of encode"),
        (
            lambda model: model.similarity(torch.ones(2, 6, device="meta"), LEFT),
            "left states are .*, on meta; expected",
        ),
        (
            lambda model: model.encode(numpy.array("a dog runs")),
            r"sentences are array\('a dog runs', .* a list of strings",
        ),
        (lambda model: model.score({"sentence1": "a dog", "sentence2": "a"}), "sentence1 is one string .'a dog'.; a"),
        (lambda model: model.score("a", "a", class_name="x"), r"class_name \('x'\): this model answers with a score"),
    ],
)
def test_what_is_refused(folder: Path, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(towers.load(folder))


def test_its_network_is_asked_for(folder: Path) -> None:
    model: Any = towers.load(folder)
    pairs = SentencePairs([["a"]], [["a"]], [1.0]).with_vectors(WordVectors(["a"], torch.ones(1, 7)))
    for call in (fit, evaluate, Predictor):
        with pytest.raises(TypeError, match="model is Model, not TwoTowers: give its network"):
            call(model, pairs)
    with pytest.raises(TypeError, match=r"model is str, not TwoTowers$"):
        evaluate("towers-run", pairs)  # type: ignore[arg-type]
    told = repr(model)
    assert told.startswith("Model(TwoTowers of ")
    assert told.endswith(" parameters, scores: 0 to 1, vectors=" + repr(model._predictor.vectors) + ")")


def test_what_is_no_folder_says_what_to_give(folder: Path) -> None:
    for load in (towers.load, TwoTowers.load, TwoTowers.from_pretrained):
        with pytest.raises(FileNotFoundError, match=r"~ is no folder for Python: give os.path.expanduser"):
            load("~/no-such-run")
    with pytest.raises(FileNotFoundError, match=r"model.safetensors: is a file; give the folder .*: towers-run$"):
        towers.load("towers-run/model.safetensors")


def test_a_sentence_without_a_known_word_is_named(folder: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"1 left sentence has no word with a vector \(the first is sentence 1, 'x y'\); such"
    ) as caught:
        towers.load(folder).encode(["the dog", "x y"])
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="2 right sentences have no word with a vector") as caught:
        towers.load(folder).most_similar("the dog", ["y y", "x y", "a cat"])
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="1 right sentence has no word with a vector") as caught:
        Index(towers.load(folder)).add(["the dog", "x y"])
    assert caught[0].filename == __file__


def test_of_equal_scores_the_logits_decide(folder: Path) -> None:
    """Far from 0 the sigmoid is 1 for logits that differ."""
    network = TwoTowers.load(folder)
    with torch.no_grad():
        network.logit.weight.mul_(1000)
        network.logit.bias.fill_(1000)
    save_model("sure", network)
    model = towers.load("sure")
    scores, places = model.most_similar(LEFT[0], RIGHT)
    states = model.encode([LEFT[0]]), model.encode(RIGHT, side="right")
    assert scores.tolist() == [1, 1, 1]
    assert places.tolist() == network.compare(*states).argsort(descending=True).tolist()
    assert places.tolist() != [0, 1, 2]


def test_most_similar_in_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = towers.load(folder)
    want = model.most_similar(LEFT, RIGHT, 2)
    monkeypatch.setattr("towers.every_pair.BLOCK", 1)
    got = model.most_similar(LEFT, RIGHT, 2)
    assert torch.equal(got[1], want[1])
    torch.testing.assert_close(got[0], want[0])
    assert [part.shape for part in model.most_similar([], RIGHT, 2)] == [(0, 2), (0, 2)]
    assert [part.shape for part in model.most_similar("the dog", [], 2)] == [(0,), (0,)]


@pytest.mark.parametrize("preset", ["similarity", "small"])
def test_equal_sentences_have_equal_scores(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, wherever they stand, so that of equal ones the first comes first."""
    monkeypatch.setattr("towers.answers.SLICE", 64)
    table = torch.randn(len(WORDS), 20, generator=torch.Generator().manual_seed(0))
    network = build(PRESETS[preset], vector_width=20, outputs=5, seed=1)
    model = Model(network, WordVectors(WORDS, table, missing="zero"), label_range=(1, 5))
    pick = torch.Generator().manual_seed(2)
    lengths = torch.randint(2, 7, (150,), generator=pick).tolist()
    sentences = [" ".join(WORDS[i] for i in torch.randint(6, (n,), generator=pick).tolist()) for n in lengths]
    sentences = [*sentences, *sentences[::-1], *sentences]
    first = {sentence: place for place, sentence in reversed(list(enumerate(sentences)))}
    same = torch.tensor([first[sentence] for sentence in sentences])
    for states in (sentences, model.encode(sentences)):
        scores = model.similarity(states, states)
        assert torch.equal(scores, scores[same][:, same])
    monkeypatch.setattr("towers.every_pair.BLOCK", 1 << 15)
    best, places = model.most_similar(sentences[:160], sentences, k=450)
    assert torch.equal(best, model.similarity(sentences[:160], sentences).gather(1, places))
    alike = same[places].diff(dim=1) == 0
    assert int(alike.sum()) > 160 * 200
    assert bool((places.diff(dim=1)[alike] > 0).all())
    assert torch.equal(places, places[same[:160]])


# Which words decide.


def score_without(model: Model, sides: dict[str, list[str]], side: str, place: int, blank: list[str]) -> float:
    changed = sides | {side: sides[side][:place] + blank + sides[side][place + 1 :]}
    return float(model.score([(changed["left"], changed["right"])])[0])


@pytest.mark.filterwarnings("ignore:.*no word with a vector")
@pytest.mark.parametrize("words", [None, 3])
def test_explain_leaves_each_word_out(folder: Path, words: int | None) -> None:
    if words:
        save_model("towers-run", TwoTowers(Tower(vector_width=7), Tower(words, vector_width=7)))
    model = towers.load(folder)
    sides = {"left": ["the", "dog", "runs", "the"], "right": ["a", "cat", "sleeps"] if words else ["a", "cat"]}
    whole = model.score(" ".join(sides["left"]), " ".join(sides["right"]))
    effects = model.explain(" ".join(sides["left"]), sides["right"])
    assert {(effect.side, effect.place) for effect in effects} == {
        (side, place) for side, sentence in sides.items() for place in range(len(sentence))
    }
    for side, place, word, effect in effects:
        assert word == sides[side][place]
        without = score_without(model, sides, side, place, [""] if side == "right" else [])
        assert effect == pytest.approx(whole - without, abs=2e-6)
    sizes = [abs(effect.effect) for effect in effects]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1e-3


def test_explain_is_in_the_range_of_the_labels_and_leaves_blanks_alone(folder: Path) -> None:
    network = TwoTowers(Tower(vector_width=7), Tower(4, vector_width=7))
    save_model("one", network, fit_length="pad-or-cut")
    save_model("five", network, fit_length="pad-or-cut", label_range=[1, 6])
    one, five = (towers.load(name).explain("the dog", "a cat") for name in ("one", "five"))
    assert [effect[:3] for effect in five] == [effect[:3] for effect in one]
    assert len(one) == 4
    assert [effect.effect for effect in five] == pytest.approx([5 * effect.effect for effect in one], abs=1e-5)


# Tables and columns of other libraries.


def table_of(library: str) -> Any:
    columns = {"sentence1": LEFT[:3], "sentence2": RIGHT, "other": [1, 2, 3]}
    if library == "dict":
        return columns
    module = pytest.importorskip(library)
    if library == "pyarrow":
        return module.table(columns)
    if library == "datasets":
        return module.Dataset.from_dict(columns)
    return module.DataFrame(columns)


@pytest.mark.parametrize("library", ["dict", "pandas", "polars", "pyarrow", "datasets"])
def test_tables_and_their_columns(folder: Path, library: str) -> None:
    model, table, want = towers.load(folder), table_of(library), expected(folder)
    scores = [float(want[place, place]) for place in range(3)]
    assert model.score(table).tolist() == pytest.approx(scores, abs=1e-6)
    assert model.score(table["sentence1"], table["sentence2"]).tolist() == pytest.approx(scores, abs=1e-6)
    torch.testing.assert_close(model.similarity(table["sentence1"], table["sentence2"]), want[:3], atol=1e-6, rtol=0)
    assert model.most_similar("the dog runs", table["sentence2"], 1)[1].tolist() == [int(want[0].argmax())]
    with pytest.raises(ValueError, match="left sentence 0 is 1; expected a string"):
        model.encode(table["other"])
    with pytest.raises(ValueError, match="must be one column, not a whole "):
        model.encode(table)


def test_rows_of_datasets_lazy_frames_arrays_and_other_names(folder: Path) -> None:
    polars = pytest.importorskip("polars")
    model, want = towers.load(folder), expected(folder)
    scores = pytest.approx([float(want[place, place]) for place in range(3)], abs=1e-6)
    frame = polars.DataFrame(table_of("dict"))
    assert model.score(frame.iter_rows(named=True)).tolist() == scores
    assert model.score(frame.lazy()).tolist() == scores
    assert model.score(numpy.array([LEFT[:3], RIGHT]).T).tolist() == scores
    assert model.score(numpy.array(LEFT[:3]), numpy.array(RIGHT)).tolist() == scores
    words = frame.with_columns(polars.col("sentence1").str.split(" "))
    assert model.score(words).tolist() == scores
    save_model("named", TwoTowers.load(folder), left_column="a", right_column="b")
    renamed = frame.rename({"sentence1": "a", "sentence2": "b"})
    assert towers.load("named").score(renamed).tolist() == scores
    with pytest.raises(ValueError, match=r"the DataFrame, row 2: sentence1 is empty"):
        model.score(polars.DataFrame({"sentence1": ["a dog", ""], "sentence2": ["a dog", "a cat"]}))


def test_pairs_of_a_table_in_memory(folder: Path) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": LEFT, "b": LEFT, "y": [1.0, 2.5, 5.0, 1.0]})
    pairs = SentencePairs.from_table(frame, left_column="a", right_column="b", label_column="y", label_range=(1, 5))
    assert pairs.left == [tuple(sentence.split()) for sentence in LEFT]
    assert pairs.labels is not None
    assert pairs.labels.tolist() == [0, 0.375, 1, 0]
    for table, message in [
        (
            {"sentence1": ["a"], "sentence2": ["b"], "label": [None]},
            "the dict, row 1: label is None, a missing label",
        ),
        ({"sentence1": [None], "sentence2": ["b"], "label": [1]}, "the dict, row 1: sentence1 is empty"),
        ({"sentence1": ["a"], "sentence2": [3], "label": [1]}, "the dict, row 1: sentence2 is 3; expected a string or"),
        ({"sentence1": ["a"], "sentence2": ["b"]}, "the dict has no column 'label', only sentence1, sentence2"),
        ([("a", "b", 1)], r"table \(list\) has no named columns; give a frame, or a dict of columns"),
    ]:
        with pytest.raises(ValueError, match=message):
            SentencePairs.from_table(table)


def test_columns_of_one_name_in_a_frame(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([["a dog", "a cat", "the dog"]], columns=["sentence1", "sentence2", "sentence2"])
    with pytest.raises(ValueError, match="two columns are named 'sentence2'; rename one of them"):
        towers.load(folder).score(frame)


def test_a_bar_for_long_work_on_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    model = towers.load(folder)
    monkeypatch.setattr("towers.answers.SLICE", 2)
    want = model.score(LEFT, LEFT)
    assert capsys.readouterr().err == ""
    assert (model.score(LEFT, LEFT, progress=True) == want).all()
    assert "/4.00 [" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    model.encode(LEFT)
    assert "? sentences/s" in capsys.readouterr().err
    model.encode(LEFT, progress=False)
    model.encode(LEFT[:2])
    assert capsys.readouterr().err == ""


def test_more_words_from_a_file_of_the_same_vectors(folder: Path) -> None:
    table = torch.randn(len(WORDS), 7, generator=torch.Generator().manual_seed(0))
    rows = [*zip(WORDS, table.tolist(), strict=True), ("bird", [0.5] * 7)]
    Path("v.txt").write_text("".join(f"{word} {' '.join(map(repr, row))}\n" for word, row in rows))
    more, without = towers.load(folder, vectors="v.txt"), towers.load(folder)
    assert more.score("the bird", "the cat") != without.score("the bird", "the cat")
    assert more.score("the dog", "the cat") == without.score("the dog", "the cat")
    Path("other.txt").write_text(Path("v.txt").read_text().replace("0.", "0.9"))
    with pytest.raises(ValueError, match="these are not the vectors that the model learned with"):
        towers.load(folder, vectors="other.txt")


def test_a_folder_of_0_1_0(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vectors"] = {"source": "/gone/v.txt", "missing": "zero"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not carry its word vectors; give vectors="):
        towers.load(folder)
    config["vectors"] = {"source": "sample"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="sample has 300 numbers a word; the model takes 7"):
        towers.load(folder, vectors="v.txt")
    config["vectors"] = {"source": "/gone/v.txt", "missing": "zero"}
    (folder / "config.json").write_text(json.dumps(config))
    table = torch.randn(len(WORDS), 7, generator=torch.Generator().manual_seed(0)).half().float()
    rows = zip(WORDS, table.tolist(), strict=True)
    Path("v.txt").write_text("".join(f"{word} {' '.join(map(repr, row))}\n" for word, row in rows))
    with pytest.warns(
        UserWarning, match=r"whether those of v\.txt are the ones that it learned with cannot be checked"
    ):
        model = towers.load(folder, vectors="v.txt")
    torch.testing.assert_close(model.similarity(LEFT, RIGHT), expected(folder), atol=1e-6, rtol=0)
    config["data"] = {"label_range": ["a", 1]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'"label_range" in "data" is \["a", 1\]; expected two numbers'):
        towers.load(folder, vectors="v.txt")


def test_the_model_in_memory_is_that_of_the_folder(folder: Path) -> None:
    pairs = SentencePairs([LEFT[0].split()], [RIGHT[0].split()])
    vectors = WordVectors(WORDS, torch.randn(6, 7))
    model = Model(TwoTowers.load(folder), vectors)
    want = towers.training.predict(TwoTowers.load(folder), pairs.with_vectors(vectors), device="cpu")
    assert model.score(LEFT[0], RIGHT[0]) == pytest.approx(float(want[0]), abs=1e-6)


def test_the_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = expected(folder)
    assert main(["score", LEFT[0], RIGHT[0]]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"{every[0, 0]:.4f}\n", "towers score: the model is towers-run\n")
    Path("sentences.txt").write_text("\n".join([RIGHT[0], "", *RIGHT[1:]]) + "\n")
    assert main(["similar", "--model", "towers-run", "--query", LEFT[1], "--in", "sentences.txt", "-k", "2"]) == 0
    best = sorted(range(3), key=lambda place: -float(every[1, place]))[:2]
    assert capsys.readouterr().out == "".join(f"{every[1, place]:.4f}\t{RIGHT[place]}\n" for place in best)
    assert main(["score", "--model", "towers-run", "x y", RIGHT[0]]) == 0
    assert capsys.readouterr().err.startswith(
        "towers score: 2 of 5 different words have no vector: 'x', 'y'\n"
        "towers score: warning: 1 left sentence has no word with a vector (the first is sentence 0, 'x y'); such scores"
    )
    assert main(["score", "--model", "towers-run", "the 我喜欢狗", RIGHT[0]]) == 0
    assert "no vector: '我喜欢狗'; text without spaces between words must be divided into" in capsys.readouterr().err
    assert main(["score", "--model", "towers-run", LEFT[0], RIGHT[0], "--explain"]) == 0
    said = capsys.readouterr().out.splitlines()
    effects = towers.load("towers-run").explain(LEFT[0], RIGHT[0])
    assert said[1:] == [f"{effect:+.4f}\t{side}\t{word}" for side, _, word, effect in effects]
    Path("more.txt").write_text("the blorp\nblorp blorp the\na zork\n")
    assert main(["similar", "--query", LEFT[1], "--in", "more.txt", "-k", "1"]) == 0
    told = "towers similar: 2 of 6 different words have no vector: 'blorp', 'zork'\n"
    assert capsys.readouterr().err == "towers similar: the model is towers-run\n" + told


@pytest.mark.parametrize("command", ["similar", "search", "index"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", "in.txt: there is no sentence in it"),
        (b"the dog\ra cat\r", "in.txt, line 1: lines end in carriage returns alone, as on old Macs; save"),
        ("the dog\na cat\n".encode("utf-16"), "in.txt, line 1: byte 1 (0xff) is not UTF-8; it is UTF-16: save"),
        (b"the dog\na caf\xe9\n", "in.txt, line 2: byte 6 (0xe9) is not UTF-8; save the file as UTF-8"),
        (gzip.compress(b"the dog\n" * 9, mtime=0)[:-9], "in.txt: is no gzip file, or damaged: "),
        (b"the dog\ndog\n", "sentence 1 ('dog') has 1 word; its tower takes at least 2"),
    ],
)
def test_a_file_of_sentences_that_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, content: bytes, message: str
) -> None:
    Path("in.txt").write_bytes(content)
    Path("queries.txt").write_text("the dog\n")
    files = {
        "similar": "--query the_dog --in in.txt",
        "search": "--corpus in.txt --queries queries.txt --out out.tsv",
        "index": "--corpus in.txt --out out.index",
    }[command]
    options = [option.replace("_", " ") for option in files.split()]
    assert main([command, "--model", "towers-run", *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(folder.parent.glob("out*"))


def test_sentences_of_standard_input(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in.txt").write_text("\n".join(RIGHT))
    said: list[str] = []
    for name in ("in.txt", "-"):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(Path("in.txt").read_bytes())))
        assert main(["similar", "--query", LEFT[0], "--in", name]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    assert main(["similar", "--query", LEFT[0], "--in", "-"]) == 2
    assert "standard input: there is no sentence in it" in capsys.readouterr().err


def test_a_gzip_file_of_sentences(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.txt.gz").write_bytes(gzip.compress("\n".join(RIGHT).encode(), mtime=0))
    assert main(["similar", "--query", LEFT[0], "--in", "in.txt.gz"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no paths of pipes here")
def test_a_pipe_in_place_of_a_file_is_named() -> None:
    read, write = os.pipe()
    try:
        for call in (read_lines, WordVectors.load):
            with pytest.raises(ValueError, match=f"/dev/fd/{read}: is a pipe, and is read more than once; write it to"):
                call(Path(f"/dev/fd/{read}"))
    finally:
        os.close(read)
        os.close(write)


def test_no_model_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["score", "a dog", "a cat"]) == 2
    assert capsys.readouterr().err == (
        "towers score: there is no finished towers-run* here; name a model with --model DIR\n"
    )


def test_a_weight_that_is_not_finite_is_named_and_what_overflows_is_no_answer() -> None:
    vectors = WordVectors(["a", "b"], torch.eye(2), missing="zero")
    tower = Tower(vector_width=2, filters=None, hidden=2)
    network = TwoTowers(tower, tower, outputs=3, features=("product",))
    with torch.no_grad():
        network.logit.weight[0, 0] = 3e38  # finite: what overflows is seen when it answers
        network.logit.weight[1, 0] = -3e38
        network.dense.weight.fill_(3e38)
        network.dense.bias.fill_(3e38)
    model = Model(network, vectors, classes=["x", "y", "z"])
    states = model.encode(["a b"])
    for call in (
        lambda: model.score("a b", "a b"),
        lambda: model.score([("a b", "a b")]),
        lambda: model.similarity(states, states, class_name="x"),
        lambda: model.most_similar("a b", states, class_name="x"),
    ):
        with pytest.raises(ValueError, match="the network gives no finite number: its weights"):
            call()
    with torch.no_grad():
        network.dense.weight[0, 1] = math.nan
    with pytest.raises(ValueError, match=r"the weight dense\.weight is not finite, and the network gives"):
        Model(network, vectors, classes=["x", "y", "z"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_similarity_is_float32_whatever_the_default_dtype_is(dtype: torch.dtype) -> None:
    model = Model(TwoTowers(*[Tower(vector_width=2)] * 2), WordVectors(["a", "b"], torch.eye(2), missing="zero"))
    sentences = ["a b b", "b a a", "a a a a"]
    states = model.encode(sentences, side="right").requires_grad_()  # as those of network.encode_right
    wanted = model.similarity(sentences, states), *model.most_similar("a b", states)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = model.similarity(sentences, states), *model.most_similar("a b", states)
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True))


def test_a_list_that_was_written_as_text_is_refused_as_in_a_table() -> None:
    model = Model(TwoTowers(*[Tower(vector_width=2)] * 2), WordVectors(["a", "b"], torch.eye(2), missing="zero"))
    for call in (
        lambda: model.score("['a', 'b']", "a b b"),
        lambda: model.score(["a b"], ["['a', 'b']"]),
        lambda: model.encode(["a b", '["a", "b"]']),
    ):
        with pytest.raises(ValueError, match=r"is a list that was written as text; give lists of words"):
            call()
