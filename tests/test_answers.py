"""A model with its words: every answer is that of the network on the same vectors, asked for pair by pair."""

import json
from pathlib import Path

import pytest
import torch

import towers
from towers import Tower, TwoTowers
from towers.answers import Model
from towers.cli import main
from towers.data import SentencePairs, WordVectors
from towers.data.kept_vectors import save_vectors

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
    torch.testing.assert_close(model.score(iter(pairs)), every.flatten(), atol=1e-6, rtol=0)
    words = [(a.split(), b.split()) for a, b in pairs]
    assert torch.equal(model.score(words), model.score(pairs))
    assert model.score([]).shape == (0,)


def test_similarity_of_sentences_and_of_states(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = towers.load(folder)
    torch.testing.assert_close(model.similarity(LEFT, RIGHT), expected(folder), atol=1e-6, rtol=0)
    states = model.encode(LEFT), model.encode(RIGHT, side="right")
    torch.testing.assert_close(model.similarity(*states), expected(folder), atol=1e-6, rtol=0)
    monkeypatch.setattr("towers.answers.BLOCK", 1)  # one row at a time
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
        (lambda model: model.encode("a dog"), "left sentences must be a list of sentences, not one string"),
        (lambda model: model.encode(LEFT, side="up"), r"side \('up'\) must be \"left\" or \"right\""),
        (lambda model: model.most_similar("a dog", LEFT, 0), r"k \(0\) must be at least 1"),
    ],
)
def test_what_is_refused(folder: Path, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(towers.load(folder))


def test_a_sentence_without_a_known_word_is_named(folder: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"1 left sentences have no word with a vector \(the first is sentence 1, 'x y'"
    ):
        towers.load(folder).encode(["the dog", "x y"])


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
    table = torch.randn(len(WORDS), 7, generator=torch.Generator().manual_seed(0)).half().float()
    rows = zip(WORDS, table.tolist(), strict=True)
    Path("v.txt").write_text("".join(f"{word} {' '.join(map(repr, row))}\n" for word, row in rows))
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
    assert "towers score: warning: 1 left sentences have no word with a vector" in capsys.readouterr().err


def test_no_model_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["score", "a dog", "a cat"]) == 2
    assert capsys.readouterr().err == (
        "towers score: there is no finished towers-run* here; name a model with --model DIR\n"
    )
