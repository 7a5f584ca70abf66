"""The newcomer's day, by the commands and calls that a person types: fit, score, search, predict, share, evaluate.

The folder of the run is then moved to another machine: another HOME, another place, no file of vectors.
"""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import polars
import pytest
import torch

from towers import load
from towers.cli import main
from towers.data import SentencePairs, WordVectors, sample_pairs
from towers.training import evaluate

from ..helpers.forked import Forks

QUERY = "yesterday the happy ram was spotted by the lass"
SENTENCES = 10_000


def write_pairs(path: Path, pairs: SentencePairs) -> None:
    assert pairs.labels is not None
    rows = zip(pairs.left, pairs.right, pairs.labels.tolist(), strict=True)
    lines = [f"{' '.join(left)}\t{' '.join(right)}\t{label:g}\n" for left, right, label in rows]
    path.write_text("sentence1\tsentence2\tlabel\n" + "".join(lines))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newcomer's folder: pairs of their own, a file of vectors, and a model of one epoch, by the command."""
    folder = tmp_path_factory.mktemp("home")
    train, dev, test = sample_pairs(1000).split(0.8, 0.1, 0.1)
    for name, pairs in (("train", train), ("dev", dev), ("test", test)):
        write_pairs(folder / f"{name}.tsv", pairs)
    vectors = train.vectors
    assert vectors is not None
    rows = zip(vectors.words, vectors.table.tolist(), strict=True)
    (folder / "vectors.txt").write_text("".join(f"{word} {' '.join(map(repr, row))}\n" for word, row in rows))
    options = "--train train.tsv --dev dev.tsv --test test.tsv --vectors vectors.txt --epochs 1 --batch-size 32"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", *options.split(), "--device", "cpu"]) == 0
    return folder


@pytest.fixture(scope="module")
def elsewhere(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another machine: the folder of the run under another name, the pairs of the test, and nothing else."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(home / "towers-run", folder / "received")
    for name in ("resume.json", *(path.name for path in (home / "towers-run").glob("resume-*"))):
        (folder / "received" / name).unlink()  # README: they may be deleted at the end
    shutil.copy(home / "test.tsv", folder)
    return folder


Command = Callable[..., str]


@pytest.fixture
def towers(forks: Forks) -> Command:
    """Run the command in a folder, with a HOME in which nothing is; what it prints."""

    def run(folder: Path, *options: str) -> str:
        empty = folder / "HOME"
        empty.mkdir(exist_ok=True)
        done = forks.towers([*options], folder, HOME=str(empty), XDG_CACHE_HOME=str(empty))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_folder_names_no_path_and_carries_its_words(home: Path, elsewhere: Path) -> None:
    received = elsewhere / "received"
    assert {path.name for path in received.iterdir()} == {
        "config.json", "model.safetensors", "vectors.safetensors", "metrics.json", "curves.png",
    }  # fmt: skip
    for path in received.glob("*.json"):
        assert str(home) not in path.read_text()
        assert "/" not in json.dumps(json.loads(path.read_text()).get("data", {}))


def test_the_folder_says_how_it_came_to_be(home: Path, elsewhere: Path) -> None:
    origin = json.loads((elsewhere / "received" / "metrics.json").read_text())["origin"]
    assert origin["command"] == {
        "train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv", "vectors": "vectors.txt", "epochs": 1,
        "batch_size": 32, "device": "cpu",
    }  # fmt: skip
    assert origin["settings"]["seed"] == 0
    for name, file in origin["files"].items():
        assert file == {
            "name": origin["command"][name],
            "sha256": sha256((home / file["name"]).read_bytes()).hexdigest(),
        }
    assert set(origin["files"]) == {"train", "dev", "test", "vectors"}
    assert len({*origin["pairs"].values()}) == 3
    assert origin["versions"]["torch"] == version("torch")
    assert {"towers", "python", "numpy", "lightning"} < set(origin["versions"])


def test_answers_are_the_same_on_another_machine(
    home: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, towers: Command
) -> None:
    pair = QUERY, "the lass spotted a ram"
    monkeypatch.chdir(home)
    here = load("towers-run")
    typed = towers(elsewhere, "score", "--model", "received", *pair)
    assert typed == f"{here.score(*pair):.4f}\n"
    shutil.rmtree(elsewhere / "HOME")

    sentences = [" ".join(words) for words in sample_pairs(SENTENCES, seed=1).right]
    (elsewhere / "sentences.txt").write_text("\n".join(sentences) + "\n")
    found = towers(elsewhere, "similar", "--model", "received", "--query", QUERY, "--in", "sentences.txt", "-k", "5")
    scores, places = here.most_similar(QUERY, sentences, 5)
    lines = zip(scores.tolist(), places.tolist(), strict=True)
    assert found == "".join(f"{score:.4f}\t{sentences[place]}\n" for score, place in lines)


def test_a_frame_a_file_and_the_command_agree(
    home: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, towers: Command
) -> None:
    monkeypatch.chdir(elsewhere)
    model = load("received")
    frame = polars.read_csv("test.tsv", separator="\t")
    scores = torch.tensor(model.score(frame))
    towers(elsewhere, "predict", "--model", "received", "--pairs", "test.tsv", "--out", "predicted.tsv")
    predicted = polars.read_csv("predicted.tsv", separator="\t")
    assert predicted.drop("probability").equals(frame)
    torch.testing.assert_close(torch.tensor(predicted["probability"].to_list()), scores, atol=1e-6, rtol=0)

    pairs = SentencePairs.from_table(frame)
    measured = evaluate(model.network, pairs.with_vectors(WordVectors.load(home / "vectors.txt")), device="cpu")
    reported = json.loads(Path("received/metrics.json").read_text())["test"]
    assert measured["auc"] == pytest.approx(reported["auc"], abs=1e-3)
    assert measured["loss"] == pytest.approx(reported["loss"], abs=1e-3)  # vectors of float16 in the folder
