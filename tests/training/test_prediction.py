"""`Predictor`: the same as predicting all pairs at once, each distinct sentence encoded once, in constant memory."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from towers import Tower, TwoTowers
from towers.answers import Model
from towers.data import SentencePairs, VectorStore, WordVectors, sample_pairs
from towers.data.sample import sample_vectors
from towers.training import Predictor, predict

PAIRS = sample_pairs(300)
WORDS = [f"w{number}" for number in range(12)]


def small_vectors(**options):
    return WordVectors(WORDS[:8], torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), **options)


def small_model(*, shared=False, right=None):
    torch.manual_seed(2)
    left = Tower(vector_width=6)
    return TwoTowers(left, left if shared else Tower(right, vector_width=6))


SENTENCES = st.lists(st.sampled_from(WORDS), min_size=2, max_size=9)


@settings(max_examples=30)
@given(st.lists(st.tuples(SENTENCES, SENTENCES), max_size=30), st.integers(1, 9), st.booleans(), st.integers(1, 5))
def test_the_same_as_all_pairs_at_once(pairs, window, shared, batch_size):
    model, vectors = small_model(shared=shared), small_vectors()
    pairs = SentencePairs([left for left, _ in pairs], [right for _, right in pairs])
    predictor = Predictor(model, vectors, batch_size=batch_size, device="cpu")
    parts = [
        predictor(pairs.select(range(start, min(start + window, len(pairs))))) for start in range(0, len(pairs), window)
    ]
    with torch.no_grad():
        alone = [
            float(model.probability(vectors.look_up(left)[None], vectors.look_up(right)[None]))
            for left, right in zip(pairs.left, pairs.right, strict=True)
        ]
    torch.testing.assert_close(torch.cat([torch.empty(0), *parts]), torch.tensor(alone), rtol=1e-5, atol=1e-6)
    bound = pairs.with_vectors(fresh := small_vectors())
    assert bound.vectors is fresh
    assert predictor.coverage == fresh.coverage
    assert predictor.pairs == len(pairs)


def test_the_same_as_predict_on_the_sample():
    model = TwoTowers()
    predicted = Predictor(model, sample_vectors(), device="cpu")(PAIRS)
    torch.testing.assert_close(predicted, predict(model, PAIRS, device="cpu"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_each_distinct_sentence_is_encoded_once(shared):
    model = small_model(shared=shared)
    predictor = Predictor(model, small_vectors(), device="cpu")
    encoded = []
    for tower in {predictor.model.left, predictor.model.right}:
        tower.register_forward_hook(lambda _, arguments, __: encoded.append(len(arguments[0])))
    left = [("w0", "w1"), ("w2", "w3"), ("w0", "w1"), ("w4", "w5", "w6")] * 5
    right = [("w0", "w1"), ("w7", "w8"), ("w7", "w8"), ("w2", "w3")] * 5
    predictor(SentencePairs(left, right))
    assert sum(encoded) == (4 if shared else 3 + 3)


def test_a_batch_of_long_sentences_is_smaller(monkeypatch):
    monkeypatch.setattr("towers.training.prediction.TOKENS", 100)
    predictor = Predictor(small_model(), small_vectors(), device="cpu")
    batches = []
    predictor.model.left.register_forward_hook(lambda _, arguments, __: batches.append(arguments[0].lengths.tolist()))
    left = [tuple(WORDS[(i + j) % 12] for j in range(2 + 7 * i)) for i in range(30)]
    predictor(SentencePairs(left, [("w0", "w1")] * 30))
    assert sorted(length for batch in batches for length in batch) == [2 + 7 * i for i in range(30)]
    assert all(len(batch) == 1 or len(batch) * max(batch) <= 100 for batch in batches)


@pytest.mark.parametrize(("precision", "tolerance"), [("64-true", 1e-6), ("bf16-true", 0.05), ("bf16-mixed", 0.05)])
def test_precisions(precision, tolerance):
    model = TwoTowers()
    predicted = Predictor(model, sample_vectors(), device="cpu", precision=precision)(PAIRS)
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(predicted, predict(model, PAIRS, device="cpu"), rtol=0, atol=tolerance)


def test_the_model_is_left_alone():
    model = small_model().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    predictor = Predictor(model, small_vectors(), device="cpu", precision="64-true")
    predictor(SentencePairs([("w0", "w1")], [("w2", "w3")]))
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_vectors_of_another_width_are_refused():
    with pytest.raises(ValueError, match="memory has 6 numbers a word; the model takes 300: use the vectors of its"):
        Predictor(TwoTowers(), small_vectors())


@pytest.mark.parametrize("limit", [2048, 3])  # words that are kept: all, or fewer than a pair has
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "two towers"])
def test_one_pair_is_as_among_many_and_counted_alike(shared, limit, monkeypatch):
    monkeypatch.setattr("towers.training.met_words.LIMIT", limit)
    options = {"filters": None, "bidirectional": True, "word_maximum": 3} if shared else {}
    towers = [Tower(vector_width=6, hidden=3, **options) for _ in range(2)]
    model = TwoTowers(*(towers[:1] * 2 if shared else towers), dense=4)
    pairs = SentencePairs(
        [("w0", "w1"), ("w0", "w2", "w2"), ("x", "y"), ("x", "w5", "")],
        [("w3", "x"), ("w4", "w0"), ("w1", "w2"), ("w1", "w2", "")],
    )
    many, each = Predictor(model, small_vectors(), device="cpu"), Predictor(model, small_vectors(), device="cpu")
    wanted = many(pairs)
    for _ in range(2):
        found = torch.cat([each.one(left, right) for left, right in zip(pairs.left, pairs.right, strict=True)])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    many(pairs)
    assert each.coverage == many.coverage
    assert (each.pairs, each.unknown) == (many.pairs, many.unknown) == (8, 2)
    with torch.no_grad():
        for weight in each.model.parameters():
            weight.mul_(1.5)
        for weight in many.model.parameters():
            weight.mul_(1.5)
    found = torch.cat([each.one(left, right) for left, right in zip(pairs.left, pairs.right, strict=True)])
    torch.testing.assert_close(found, many(pairs), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(copy.deepcopy(each).one(pairs.left[0], pairs.right[0]), found[:1])
    each.model.double()  # the words that came have vectors of float32
    torch.testing.assert_close(each.one(pairs.left[0], pairs.right[0]), found[:1], rtol=1e-5, atol=1e-6)


def test_changed_weights_change_a_typed_pair_once_the_network_was_asked_for():
    tower = Tower(vector_width=6, filters=None, hidden=3, bidirectional=True, word_maximum=3)
    network = TwoTowers(tower, tower, features=("product",), dense=4)
    with torch.no_grad():  # no unit of the head is 0, and the score is not at an end
        network.dense.weight.abs_()
        network.dense.bias.fill_(9)
        network.logit.weight.fill_(0.02)
    model = Model(network, small_vectors())
    pair = "w0 w1", "w2 w3"
    before = model.score(*pair)
    for change in (
        lambda weight: weight.data.view(-1)[1].add_(1),  # which torch does not count
        lambda weight: weight.detach().mul_(1.5),
        lambda weight: setattr(weight, "data", weight.data * 2),
    ):
        for weight in model.network.left.parameters():
            change(weight)
        after = model.score(*pair)
        assert after == pytest.approx(Model(model.network, small_vectors()).score(*pair), abs=1e-6)
        assert after != pytest.approx(before, abs=1e-6)
        before = after


def test_what_is_missing_is_counted_within_bounds(monkeypatch):
    monkeypatch.setattr("towers.training.prediction.REMEMBERED", 5)
    predictor = Predictor(small_model(), small_vectors(), device="cpu")
    for number in range(40):
        predictor(SentencePairs([("often", "w0", f"x{number}")], [("w1", f"y{number}")]))
    assert len(predictor.coverage.missing) <= 10
    assert predictor.coverage.missing["often"] == 40
    assert predictor.coverage[:4] == (200, 80, 83, 2)


def test_different_words_are_counted_within_bounds(monkeypatch):
    monkeypatch.setattr("towers.data.distinct_words.EXACT", 50)
    predictor = Predictor(small_model(), small_vectors(), device="cpu")
    for number in range(40):
        predictor(SentencePairs([("often", "w0", f"x{number}")], [("w1", f"y{number}")]))
    assert len(predictor._distinct._found) <= 50
    assert 83 / 2 < predictor.coverage.types < 83 * 2
    assert predictor.coverage.tokens == 200


MEASURE = """
import resource, sys
import torch
from towers import Tower, TwoTowers
from towers.data import SentencePairs, VectorStore
from towers.training import Predictor

torch.set_num_threads(1)
model = TwoTowers(Tower(vector_width=6), Tower(vector_width=6))
with VectorStore("vectors.txt") as vectors:
    predictor = Predictor(model, vectors, device="cpu")
    for number, pairs in enumerate(SentencePairs.stream("pairs.tsv", split="spaces", rows=500), 1):
        assert len(predictor(pairs)) == 500
        if number in (10, 60):
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Of 25,000 pairs, whose sentences alone would take 50 MB, none stays: the peak grows by some MB at most."""
    words = [f"w{number}" for number in range(2000)]
    vectors = "".join(f"{word} 1 2 3 4 5 {number % 7}\n" for number, word in enumerate(words))
    (tmp_path / "vectors.txt").write_text(vectors)
    with (tmp_path / "pairs.tsv").open("w") as file:
        file.write("sentence1\tsentence2\n")
        for number in range(30_000):
            sentence = " ".join(words[(number * 7 + i * i) % 2000] for i in range(12))
            file.write(f"{sentence}\t{sentence} w{number % 2000} end\n")
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    early, late = map(int, run.stdout.split())
    assert late - early < 12 * 1024  # in KB


# VectorStore.


def as_file(folder: Path, format: str) -> Path:
    import struct

    words = ["the", "The", "dog", "dog", "Größe", "a b" if format == "glove" else "ab", "", "cat"]
    if format == "word2vec-binary":
        words[6] = "nothing"
    rows = [[number + 0.5, -number, 0.25] for number in range(len(words))]
    path = folder / "vectors"
    if format == "word2vec-binary":
        body = b"".join(w.encode() + b" " + struct.pack("<3f", *r) + b"\n" for w, r in zip(words, rows, strict=True))
        path.write_bytes(b"8 3\n" + body)
    else:
        text = "".join(f"{w} {' '.join(map(str, r))}\n" for w, r in zip(words, rows, strict=True))
        path.write_text(("" if format == "glove" else "8 3\n") + text, encoding="utf8")
    return path


@pytest.mark.parametrize("format", ["glove", "word2vec", "fasttext", "word2vec-binary"])
@pytest.mark.parametrize("kept", [1, 3, 1000])
def test_the_store_gives_what_loading_gives(tmp_path, monkeypatch, format, kept):
    monkeypatch.setattr("towers.data.vector_store.KEPT", kept)
    path = as_file(tmp_path, format)
    with VectorStore(path, format=format) as store:
        assert store.duplicates == 1
        assert (store.width, store.source) == (3, str(path))
        assert repr(store).startswith("VectorStore(8 words of 3 numbers")
        for vocabulary in (["The", "dog"], ["cat", "dog", "blorp"], ["THE", "GRÖSSE", "größe", "Größe", "", "a b"], []):
            loaded, selected = WordVectors.load(path, vocabulary, format=format), store.select(vocabulary)
            assert set(selected.words) == set(loaded.words)
            assert torch.equal(selected.look_up(vocabulary), loaded.look_up(vocabulary))
            assert selected.coverage == loaded.coverage


def test_a_table_in_memory_selects_the_same():
    vectors = small_vectors(missing="zero")
    vectors.look_up(["new"])
    selected = vectors.select(["W1", "w3", "new", ""])
    assert selected.words == ("w1", "w3")
    words = ["W1", "new", "w3", ""]
    assert torch.equal(selected.look_up(words), vectors.look_up(words))
    assert (vectors.has("W1"), vectors.has("new")) == (True, False)


def test_a_bad_number_is_told_when_its_word_is_wanted(tmp_path):
    good = "".join(f"w{number} 1 2\n" for number in range(2000))
    path = tmp_path / "vectors.txt"
    path.write_text(good + "bad 1 nan\n")
    with VectorStore(path) as store:
        assert store.select(["w7"]).words == ("w7",)
        with pytest.raises(ValueError, match=r"vectors\.txt, line 2001: number 2 of 2 is 'nan'"):
            store.select(["bad"])


def test_a_bad_line_is_told_at_once(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("a 1 2\n" * 2000 + "bad 1\n")
    with pytest.raises(ValueError, match="line 2001: 1 numbers after the word; expected 2"):
        VectorStore(path)


def test_words_with_the_same_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("towers.data.vector_store.hash", lambda word: len(word), raising=False)
    with VectorStore(as_file(tmp_path, "glove")) as store:
        assert store.select(["cat"]).look_up(["cat"])[0, 0] == 7.5
        assert store.select(["cow"]).words == ()
