"""`towers fit --preset`, and what its models answer on the command line and in Python."""

import json
from pathlib import Path

import numpy as np
import polars
import pytest
import torch

import towers
from towers.cli import main
from towers.model import TwoTowers
from towers.training.presets import PRESETS, bins_of, build

WORDS = ["cat", "dog", "sits", "runs", "not", "a", "sleeps", "house"]
FILES = ["--train", "pairs.tsv", "--dev", "pairs.tsv", "--vectors", "vectors.txt", "--epochs", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs with a degree from 1 to 5 and a class, and vectors of their words."""
    place = tmp_path_factory.mktemp("pairs")
    generator = torch.Generator().manual_seed(1)
    rows = ["sentence1\tsentence2\tdegree\tkind"]
    for left, right in torch.randint(len(WORDS), (48, 2, 4), generator=generator).tolist():
        same = len(set(left) & set(right))
        kind = ["OTHER", "NEAR", "SAME"][min(same, 2)]
        rows.append(
            "\t".join([*(" ".join(WORDS[word] for word in side) for side in (left, right)), f"{1 + same}", kind])
        )
    (place / "pairs.tsv").write_text("\n".join(rows) + "\n")
    vectors = torch.randn(len(WORDS), 6, generator=generator)
    lines = [" ".join([word, *(f"{x:.4f}" for x in row)]) for word, row in zip(WORDS, vectors.tolist(), strict=True)]
    (place / "vectors.txt").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        degrees = ["--label-column", "degree", "--label-range", "1", "5", "--second-label-column", "kind"]
        assert main(["fit", "--preset", "small", *FILES, *degrees, "--out", "alike"]) == 0
        assert main(["fit", "--preset", "entailment", *FILES, "--label-column", "kind", "--out", "classes"]) == 0
    return place


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_degrees_are_answered_in_their_range_and_either_way_round(folder):
    model = towers.load("alike")
    assert (model.network.outputs, model.network.second.outputs) == (5, 3)
    score = model.score("a cat sits", "a dog sits")
    assert 1 <= score <= 5
    assert score == pytest.approx(model.score("a dog sits", "a cat sits"), abs=1e-5)
    assert score == pytest.approx(model.score("sits a cat", "sits dog a"), abs=1e-5), "word order plays no part"
    matrix = model.similarity(["a cat sits", "a dog runs"], ["a dog sits", "not a house"])
    assert matrix[0, 0].item() == pytest.approx(score, abs=1e-5)
    scores, places = model.most_similar("a cat sits", ["not a house", "a cat sits", "a dog sits"], k=3)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert sorted(places.tolist()) == [0, 1, 2]
    config = json.loads((folder / "alike" / "config.json").read_text())
    assert (config["format"], config["vectors"]["missing"], config["data"]["preset"]) == (3, "zero", "small")


def test_classes_are_answered_by_name():
    model = towers.load("classes")
    one = model.score("a cat sits", "a dog sits")
    assert set(one) == {"OTHER", "NEAR", "SAME"}
    assert sum(one.values()) == pytest.approx(1, abs=1e-5)
    many = model.score([("a cat sits", "a dog sits"), ("a house", "not a dog")])
    assert many.shape == (2, 3)
    assert many[0].tolist() == pytest.approx([one[name] for name in model.classes], abs=1e-5)
    assert model.score([]).shape == (0, 3)
    assert model.score("a cat sits", "a dog sits", class_name="SAME") == pytest.approx(one["SAME"], abs=1e-6)
    pairs = [("a cat sits", "a dog sits"), ("a house", "not a dog")]
    assert model.score(pairs, class_name="SAME").tolist() == many[:, model.classes.index("SAME")].tolist()
    with pytest.raises(ValueError, match=r"class_name \('same'\) is none of them"):
        model.score("a", "a", class_name="same")
    with pytest.raises(ValueError, match=r"answers with classes \(NEAR, OTHER, SAME\); class_name is missing"):
        model.similarity(["a"], ["a"])
    with pytest.raises(ValueError, match=r"class_name \('same'\) is none of them"):
        model.explain("a", "a", class_name="same")
    with pytest.raises(ValueError, match=r"class_name \('SAME'\): this model answers with a score"):
        towers.load("alike").most_similar("a", ["a"], class_name="SAME")


SENTENCES = ["not a house", "a cat sits", "a dog sits", "house sleeps a dog", "runs"]


@pytest.mark.parametrize(("folder_name", "class_name"), [("alike", None), ("classes", "SAME"), ("classes", "OTHER")])
def test_search_and_explanations_agree_with_scores(folder_name, class_name, capsys):
    """Every way to the best sentences, and what a word does, beside `score` of each pair alone."""
    model = towers.load(folder_name)

    def score(left, right):
        answer = model.score(left, right)
        return answer if class_name is None else answer[class_name]

    scores = [score("a cat runs", sentence) for sentence in SENTENCES]
    order = sorted(range(len(SENTENCES)), key=lambda place: -scores[place])
    found, places = model.most_similar("a cat runs", SENTENCES, 3, class_name=class_name)
    assert places.tolist() == order[:3]
    assert found.tolist() == pytest.approx([scores[place] for place in order[:3]], abs=1e-5)
    matrix = model.similarity(["a cat runs", "dog"], SENTENCES, class_name=class_name)
    assert matrix[0].tolist() == pytest.approx(scores, abs=1e-5)

    Path("in.txt").write_text("\n".join(SENTENCES) + "\n")
    Path("query.txt").write_text("a cat runs\n")
    option = [] if class_name is None else ["--class", class_name]
    named = ["--model", folder_name, *option]
    assert main(["similar", *named, "--query", "a cat runs", "--in", "in.txt"]) == 0
    lines = [f"{scores[place]:.4f}\t{SENTENCES[place]}" for place in order]
    assert capsys.readouterr().out.splitlines() == lines
    assert main(["index", "--model", folder_name, "--corpus", "in.txt", "--out", "in.index"]) == 0
    for corpus in (["--corpus", "in.txt"], ["--index", "in.index"]):
        assert main(["search", *named, *corpus, "--queries", "query.txt", "-k", "5", "--out", "found.jsonl"]) == 0
        rows = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
        assert [row["id"] - 1 for row in rows] == order
        assert [row["score"] for row in rows] == pytest.approx([scores[place] for place in order], abs=1e-5)

    effects = model.explain("a cat runs", "a dog", class_name=class_name)
    without = {("left", 1): ("a runs", "a dog"), ("right", 0): ("a cat runs", "dog")}
    for side, place, _, effect in effects:
        if pair := without.get((side, place)):
            assert effect == pytest.approx(score("a cat runs", "a dog") - score(*pair), abs=1e-5)
    capsys.readouterr()
    assert main(["score", *named, "a cat runs", "a dog", "--explain"]) == 0
    first, *told = capsys.readouterr().out.splitlines()
    assert first.split("\t")[0] == f"{score('a cat runs', 'a dog'):.4f}"
    assert told == [f"{effect:+.4f}\t{side}\t{word}" for side, _, word, effect in effects]


def test_a_class_is_named_where_a_score_is_needed(capsys):
    Path("in.txt").write_text("a cat\n")
    similar = ["similar", "--query", "a dog", "--in", "in.txt", "--model"]
    assert main([*similar, "classes"]) == 2
    assert "answers with classes (NEAR, OTHER, SAME); class_name is missing (--class NAME)" in capsys.readouterr().err
    assert main([*similar, "alike", "--class", "SAME"]) == 2
    assert "this model answers with a score, and has no classes" in capsys.readouterr().err
    most_probable = max((effects := towers.load("classes")).score("a cat", "a dog").items(), key=lambda item: item[1])
    assert effects.explain("a cat", "a dog") == effects.explain("a cat", "a dog", class_name=most_probable[0])


def test_predict_writes_a_column_for_each_class(capsys):
    assert main(["predict", "--model", "classes", "--pairs", "pairs.tsv", "--out", "p.tsv"]) == 0
    header, *rows = [line.split("\t") for line in Path("p.tsv").read_text().splitlines()]
    assert header[-4:] == ["NEAR", "OTHER", "SAME", "class"]
    numbers = np.array([row[-4:-1] for row in rows], dtype=float)
    assert [header[-4 + place] for place in numbers.argmax(1)] == [row[-1] for row in rows]
    np.testing.assert_allclose(numbers.sum(1), 1, atol=1e-5)
    assert main(["predict", "--model", "classes", "--pairs", "pairs.tsv", "--out", "p.parquet"]) == 0
    assert polars.read_parquet("p.parquet")["class"].to_list() == [row[-1] for row in rows]
    assert main(["score", "--model", "classes", "a cat sits", "a dog sits"]) == 0
    told = capsys.readouterr().out.splitlines()[-3:]
    assert sorted(line.split("\t")[1] for line in told) == ["NEAR", "OTHER", "SAME"]


def test_the_column_of_the_most_probable_class_has_the_name_that_is_said(capsys):
    lines = Path("pairs.tsv").read_text().splitlines()
    Path("more.tsv").write_text("\n".join([lines[0] + "\tclass", *(line + "\told" for line in lines[1:])]) + "\n")
    command = ["predict", "more.tsv", "--model", "classes"]
    assert main(command) == 2
    assert (
        "more.tsv has a column 'class' already; call the new one otherwise with --score-column"
        in capsys.readouterr().err
    )
    assert main([*command, "--score-column", "SAME"]) == 2
    assert "a class of the model is named 'SAME', as the column of the most probable one" in capsys.readouterr().err
    assert main([*command, "--score-column", "best"]) == 0  # --out is standard output
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header[-5:] == ["class", "NEAR", "OTHER", "SAME", "best"]
    assert {row[-1] for row in rows} <= {"NEAR", "OTHER", "SAME"}
    assert {row[-5] for row in rows} == {"old"}
    parts = [*command, "--engine", "local", "--out", "parts"]
    assert main(parts) == 2
    assert main([*parts, "--score-column", "best"]) == 0
    assert polars.read_csv(next(Path("parts").glob("*.tsv")), separator="\t").columns[-1] == "best"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "name the pairs once: FILE or --pairs FILE, where - is standard input"),
        (["predict", "a.tsv", "--pairs", "b.tsv"], "name the pairs once: FILE or --pairs FILE"),
        (["predict", "a.tsv", "--engine", "local"], "--engine needs --out DIR"),
        (["fit", "--preset", "small", "--shared"], "--shared belongs to --preset seed; small has one tower of its own"),
        (["fit", "--preset", "small", "--hidden", "3"], "--hidden belongs to --preset seed"),
        (["fit", "--second-label-column", "kind"], "--second-label-column goes with --preset similarity"),
        (["fit", "--yes", "SAME"], "--yes goes with --train"),
        (["predict", "--model", "classes", "--pairs", "pairs.tsv", "--out", "-", "--threshold", "0.5"], "--threshold (threshold=) is for models of degrees"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_one_value_is_yes_and_names_are_classes(capsys):
    files = [*FILES, "--right-words", "any"]
    assert main(["fit", *files, "--label-column", "kind", "--yes", "SAME", "--out", "yes"]) == 0
    assert TwoTowers.load("yes").outputs == 1
    capsys.readouterr()
    assert main(["fit", *files, "--label-column", "kind", "--out", "named"]) == 0
    rows = [line.split("\t")[3] for line in Path("pairs.tsv").read_text().splitlines()[1:]]
    told = ", ".join(f"{name} {rows.count(name)}" for name in ("NEAR", "OTHER", "SAME"))
    assert capsys.readouterr().out.splitlines()[1] == f"classes: {told}"
    assert TwoTowers.load("named").outputs == 3
    assert main(["fit", *files, "--label-column", "kind", "--yes", "sam", "--out", "no"]) == 2
    assert "pairs.tsv: no kind is 'sam'; there are 'NEAR', 'OTHER', 'SAME'" in capsys.readouterr().err


def test_the_networks_of_an_ensemble_are_told_apart(capsys):
    degrees = ["--label-column", "degree", "--label-range", "1", "5"]
    assert main(["fit", "--preset", "small", *FILES, *degrees, "--ensemble", "2", "--out", "two"]) == 0
    told = [line.split("   ")[0] for line in capsys.readouterr().out.splitlines()[-8:-1]]
    metrics = json.loads(Path("two/metrics.json").read_text())
    dev = [member["epochs"][0]["dev"]["pearson"] for member in metrics["members"]]
    assert told[:4] == ["network 1 of 2", "epoch 1/1", "network 2 of 2", "epoch 1/1"]
    for number in (1, 2):
        assert told[3 + number].startswith(f"network {number}: kept epoch 1, best dev Pearson's r: loss ")
        assert told[3 + number].endswith(f"Pearson's r {dev[number - 1]:.4f}")
    assert told[6].startswith("2 networks together: dev loss ")
    assert told[6].endswith(f"{metrics['together']['dev']['pearson']:.4f}")


def test_evaluate_leaves_bad_pairs_out(capsys):
    text = Path("pairs.tsv").read_text()
    Path("bad.tsv").write_text(text + "a cat\t\t3\tSAME\na cat\ta dog\t\tSAME\n")
    results = []
    for options in (["pairs.tsv"], ["bad.tsv", "--skip-bad"]):
        assert main(["evaluate", "--model", "alike", "--pairs", *options]) == 0
        results.append(capsys.readouterr())
    assert results[0].out == results[1].out
    assert "bad.tsv: 2 pairs left out: a sentence is empty or too short, or the label is missing" in results[1].err
    assert main(["evaluate", "--model", "alike", "--pairs", "bad.tsv"]) == 2


def test_sizes_of_presets():
    sizes = {
        name: sum(x.numel() for x in build(PRESETS[name], vector_width=300, outputs=5).parameters()) for name in PRESETS
    }
    assert sizes["small"] < 40_000
    assert [bins_of(limits) for limits in ((1, 5), (0, 5), (0, 1), (0.0, 2.5), (0, 100))] == [5, 6, 5, 5, 5]
    one, same, other = (build(PRESETS["small"], vector_width=6, seed=seed).dense.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_classes_with_degrees_beside_them(capsys):
    second = ["--second-label-column", "degree", "--second-label-range", "1", "5"]
    assert main(["fit", "--preset", "small", *FILES, "--label-column", "kind", *second, "--out", "both"]) == 0
    model = TwoTowers.load("both")
    assert (model.outputs, model.second.outputs) == (3, 5)
    assert main(["evaluate", "--model", "both", "--pairs", "pairs.tsv", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    dev = json.loads(Path("both/metrics.json").read_text())["epochs"][0]["dev"]
    assert told["second_pearson"] == pytest.approx(dev["second_pearson"], abs=0.01)  # vectors of float16
    assert 0 < told["second_mse"] < 16
    assert main(["fit", "--preset", "small", *FILES, *second[2:], "--out", "no"]) == 2
    assert "--second-label-range goes with --second-label-column" in capsys.readouterr().err
    assert (
        main(
            [
                "fit",
                "--preset",
                "small",
                *FILES,
                *second[:2],
                "--second-label-range",
                "1",
                "2",
                "--label-column",
                "kind",
                "--out",
                "no",
            ]
        )
        == 2
    )
    assert "degree is 3; the label range is 1 to 2" in capsys.readouterr().err


def test_evaluate_measures_both_labels(capsys):
    assert main(["evaluate", "--model", "alike", "--pairs", "pairs.tsv", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    labelled = [line.split("\t") for line in Path("pairs.tsv").read_text().splitlines()[1:]]
    model = towers.load("alike")
    scores = model.score([row[:2] for row in labelled])
    degrees = np.array([float(row[2]) for row in labelled])
    assert told["pairs"] == 48
    assert told["pearson"] == pytest.approx(np.corrcoef(scores, degrees)[0, 1], abs=1e-4)
    assert told["mse"] == pytest.approx(np.mean((scores - degrees) ** 2), rel=1e-4)
    assert {"spearman", "cosine_pearson", "second_accuracy", "second_f1", "second_majority"} <= set(told)


def test_evaluate_classes_and_says_what_is_not_better(capsys):
    assert main(["evaluate", "--model", "classes", "--pairs", "pairs.tsv"]) == 0
    out, err = capsys.readouterr()
    lines = dict(line.split("\t")[::-1] for line in out.splitlines()[1:])
    probabilities = towers.load("classes").score(
        [line.split("\t")[:2] for line in Path("pairs.tsv").read_text().splitlines()[1:]]
    )
    kinds = [
        ["NEAR", "OTHER", "SAME"].index(line.split("\t")[3]) for line in Path("pairs.tsv").read_text().splitlines()[1:]
    ]
    assert float(lines["accuracy"]) == pytest.approx(np.mean(probabilities.argmax(1) == kinds), abs=1e-4)
    below = float(lines["accuracy"]) <= float(lines["majority class"])
    assert ("is not above the majority class" in err) == below
    assert main(["evaluate", "--model", "classes", "--pairs", "pairs.tsv", "--label-column", "degree"]) == 2
    assert "pairs.tsv, line 2: degree is '" in (err := capsys.readouterr().err)
    assert "none of the classes 'NEAR', 'OTHER', 'SAME'" in err
