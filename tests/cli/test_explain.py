"""`towers explain` tells what is true of the model at hand."""

import json
from pathlib import Path

import pytest
import torch

from towers import Tower, TwoTowers
from towers.cli import main
from towers.cli.explanation import answers
from towers.ensemble import Ensemble
from towers.training.presets import PRESETS, build


def explain(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["explain", *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_of_the_original_network(capsys: pytest.CaptureFixture[str]):
    out = explain(capsys)
    for line in (
        "left: sentences of any number of words from 2",
        "    leaves   (batch, words-1, 32)  here (3, 8, 32)",
        "    weights  19,232 = 32 filters x (2 words x 300 + 1 bias)",
        "right: sentences of exactly 5 words",
        "    arrives  (batch, 4, 8)  here (3, 4, 8)",
        "    weights  360 = 4 gates x 6 units x (8 features + 6 states + 1 bias)",
        "39,313 weights in all",
        "What would 1, 2 and 4 mean?",
    ):
        assert line in out.splitlines(), line
    assert max(map(len, out.splitlines())) <= 100


def test_the_picture_in_the_readme_is_the_one_it_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str], repository):
    assert "weights in all" in explain(capsys, "--picture", str(tmp_path / "towers.svg"))
    assert (tmp_path / "towers.svg").read_text("utf8") == (repository / ".github" / "towers.svg").read_text("utf8")
    assert "(.github/towers.svg)" in (repository / "README.md").read_text("utf8")


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", "--picture", str(tmp_path / "none" / "towers.svg")]) == 2
    assert capsys.readouterr().err == f"towers explain: {tmp_path / 'none' / 'towers.svg'}: No such file or directory\n"
    with pytest.raises(SystemExit):
        main(["explain", "--picture", "towers.png"])
    assert "'towers.png' must end in .svg" in capsys.readouterr().err


def test_what_is_tried_is_really_tried():
    model = TwoTowers()
    with pytest.raises(TypeError) as refused:
        model.left.lstm(torch.zeros(3, 16, 32))
    last = list(answers(model))[-1]
    assert last.tried[1:] == str(refused.value).splitlines()
    with pytest.raises(ValueError, match="chunk") as chunk:
        Tower(words=5, chunk=3)
    assert f"chunk=3: {chunk.value}" in list(answers(model))[-2].tried


def test_of_other_sizes_and_of_a_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tower = Tower(vector_width=10, kernel_words=3, filters=12, pool=2, hidden=4)
    TwoTowers(tower, tower, dense=5).save(tmp_path / "model")
    out = explain(capsys, "--model", str(tmp_path / "model"), "--words", "7")
    assert "    leaves   (batch, words-2, 12)  here (3, 5, 12)" in out
    assert "right: sentences of any number of words from 3 (one tower reads both sides)" in out
    assert "Where does the width of 6 come from?" in out
    told = json.loads(explain(capsys, "--model", str(tmp_path / "model"), "--json"))
    counted = sum(stage["weights"] for stage in told["left"] + told["head"])
    assert counted == told["weights"] == sum(p.numel() for p in tower.parameters()) + 5 * 5 + 6


def test_weights_are_counted(capsys: pytest.CaptureFixture[str]):
    told = json.loads(explain(capsys, "--json"))
    stages = told["left"] + told["right"] + told["head"]
    assert sum(stage["weights"] for stage in stages) == told["weights"] == 39_313
    for stage in stages:
        if stage["weights"]:
            why = stage["why"]
            for word in ("filters", "words", "gates", "units", "features", "states", "bias"):
                why = why.replace(word, "")
            assert eval(why.replace("x", "*")) == stage["weights"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--words", "1"),
            "towers explain: --words 1: Tower.forward: sentences: words is 1; this tower needs at least 2",
        ),
        (("--model", "nowhere"), "towers explain: nowhere: no folder"),
    ],
)
def test_what_it_refuses(options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(said)


def test_fixed_towers_take_no_other_number_of_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    TwoTowers(Tower(words=4), Tower(words=5)).save(tmp_path)
    assert main(["explain", "--model", str(tmp_path), "--words", "6"]) == 2
    assert "--words 6: the towers take sentences of exactly 4 and 5 words" in capsys.readouterr().err
    assert "here (3, 3, 32)" in explain(capsys, "--model", str(tmp_path), "--words", "5")


@pytest.mark.parametrize("name", [*PRESETS, "two together"])
def test_presets_are_explained(name, tmp_path, capsys):
    """Every weight is counted in a stage, every layer is named, and each stage takes what the one before it leaves."""
    preset = PRESETS["seed-with-words" if name == "two together" else name]
    members = [build(preset, vector_width=8, outputs=5, second_outputs=3, seed=seed) for seed in range(2)]
    model = Ensemble(members) if name == "two together" else members[0]
    model.save(tmp_path)
    assert main(["explain", "--model", str(tmp_path), "--json", "--words", "6"]) == 0
    told = json.loads(capsys.readouterr().out)
    counted = sum(stage["weights"] for part in ("left", "head", "second head") for stage in told[part])
    assert told["networks"] * counted == told["weights"] == sum(weight.numel() for weight in model.parameters())
    named = [stage["name"].partition(":")[0] for stage in told["left"]]
    assert named == [
        layer for layer, module in members[0].left.named_children() if list(module.parameters()) or layer == "pool"
    ]
    widths = [
        int(stage["leaves"].split(", ")[-1].rstrip(")"))
        for stage in told["left"]
        if stage["name"][:4] not in ("conv", "pool")
    ]
    assert sum(widths) == members[0].hidden
    assert main(["explain", "--model", str(tmp_path), "--picture", str(tmp_path / "x.svg")]) == 0
    said = capsys.readouterr().out
    assert ("2 networks answer together" in said) == (name == "two together")
    assert "5 numbers, for bins or classes" in said
    assert ("Why does an LSTM" in said) == ("lstm" in named)
