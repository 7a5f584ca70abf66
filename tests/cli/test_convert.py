"""`towers convert`: in, out, back, and nothing left where it refuses."""

import zipfile
from pathlib import Path

import h5py
import pytest
import torch

import towers.keras
from towers import Tower, TwoTowers
from towers.cli import main
from towers.ensemble import Ensemble

VARIANTS = Path(__file__).parent.parent / "keras" / "variants.zip"


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    with zipfile.ZipFile(VARIANTS) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def same(one: TwoTowers, other: TwoTowers) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5"])
def test_in_and_out_again(variants, capsys, ending):
    assert main(["convert", str(variants / "sizes.keras"), "model"]) == 0
    told = capsys.readouterr().out
    assert "right: 6 words of 12 numbers, phrases of 3 words, 10 filters, maximum of 5, LSTM of 4 (sigmoid)" in told
    assert "right.lstm.weight_hh_l0  (16, 4)" in told
    assert "transposed" not in told
    assert "logits differ by at most" in told
    assert main(["convert", "model", f"back{ending}"]) == 0
    model = TwoTowers.load("model")
    like = model if ending == ".weights.h5" else None
    assert same(model, towers.keras.load(f"back{ending}", like=like))
    assert same(model, towers.keras.load(variants / "sizes.keras"))
    assert sorted(path.name for path in Path().iterdir()) == [f"back{ending}", "model"]


def test_explain_says_how_each_array_is_turned(variants, capsys):
    assert main(["convert", str(variants / "sizes.h5"), "model", "--explain"]) == 0
    told = capsys.readouterr().out
    assert "(k, width, 1, filters) -> (k, filters, width): for each word an (out, in) matrix" in told
    assert told.count("transposed: Keras multiplies inputs by it from the right (in, out), torch keeps (out, in)") == 6
    assert told.count("gates in Keras's order, which is torch's: i, f, c, o") == 4


def test_what_is_not_carried_over_is_said(variants, capsys):
    assert main(["convert", str(variants / "logits.keras"), "a"]) == 0
    told = capsys.readouterr().out
    assert "note: layer 'lstm' (LSTM): dropout: acts in training only" in told
    assert "note: TwoTowers.probability adds a sigmoid" in told
    assert main(["convert", str(variants / "embedding.keras"), "b"]) == 0
    assert "towers.keras.convert_layer(PATH, 'embedding')" in capsys.readouterr().out
    assert main(["convert", str(variants / "shared_model.h5"), "c"]) == 0
    assert "both towers are one" in capsys.readouterr().out


def test_an_optimizer_is_not_carried_over_in_silence(shared, capsys):
    assert main(["convert", str(shared / "keras" / "model_after_training.keras"), "a"]) == 0
    assert (
        "note: the optimizer is not carried over: towers.keras.load_optimizer(PATH, model) reads"
        in capsys.readouterr().out
    )
    assert main(["convert", str(shared / "keras" / "model.keras"), "b"]) == 0
    assert "optimizer" not in capsys.readouterr().out


def test_lambdas_and_like(variants, capsys):
    assert main(["convert", str(variants / "lambdas.keras"), "a", "--lambda", "sqNone=squeeze"]) == 0
    assert main(["convert", str(variants / "lambdas.weights.h5"), "b", "--like", "a"]) == 0
    assert same(TwoTowers.load("a"), TwoTowers.load("b"))
    assert "weights alone: conv2d and lstm were taken for the left tower" in capsys.readouterr().out


@pytest.mark.parametrize("gates", ["hard_sigmoid", "hard_sigmoid_keras2"])
def test_gates_out(capsys, gates):
    TwoTowers(Tower(recurrent_activation=gates), Tower(5, recurrent_activation=gates)).save("model")
    code = main(["convert", "model", "a.keras"])
    if gates == "hard_sigmoid":
        assert code == 0
        assert towers.keras.load("a.keras").left.lstm.recurrent_activation == gates
    else:
        assert code == 2
        assert "hard sigmoid of Keras 2, which Keras 3 does not have" in capsys.readouterr().err
        assert [path.name for path in Path().iterdir()] == ["model"]


def test_float16_comes_through():
    TwoTowers(dtype=torch.float16).save("model")
    assert main(["convert", "model", "a.keras"]) == 0
    assert main(["convert", "a.keras", "back"]) == 0
    assert TwoTowers.load("back").dense.weight.dtype == torch.float16


def refused(capsys, *arguments: object) -> str:
    before = sorted(Path().rglob("*"))
    assert main(["convert", *map(str, arguments)]) == 2
    assert sorted(Path().rglob("*")) == before
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_refusals_leave_nothing(variants, capsys):
    Path("there").mkdir()
    Path("bad.keras").write_bytes(b"PK nothing")
    with h5py.File("other.h5", "w") as file:
        file["x"] = 1.0
    assert "there: exists" in refused(capsys, variants / "sizes.keras", "there")
    assert "no folder; make it first" in refused(capsys, variants / "sizes.keras", "none/model")
    assert "both are folders by their names" in refused(capsys, "there", "model")
    Path("pairs.tsv").write_text("a\tb\n")
    for target in ("model", "model.keras"):
        told = "pairs.tsv: is neither a folder of towers nor a file of Keras (.keras, .h5, .weights.h5)"
        assert told in refused(capsys, "pairs.tsv", target)
    assert "both are files of Keras by their names" in refused(capsys, "bad.keras", "good.keras")
    assert "bad.keras: is a damaged zip" in refused(capsys, "bad.keras", "model")
    assert "other.h5: is HDF5, but not of Keras" in refused(capsys, "other.h5", "model")
    assert "No such file" in refused(capsys, "none.keras", "model")
    assert "there is no such file" in refused(capsys, "there", "a.keras")
    assert "LAYER=WHAT belongs there" in refused(capsys, variants / "lambdas.keras", "model", "--lambda", "squeeze")
    told = refused(capsys, variants / "lambdas.keras", "model", "--lambda", "sqNone=squeeze", "--lambda", "no=squeeze")
    assert "lambdas.keras: lambdas: 'no' is no Lambda layer of the file; its Lambda layers: sqNone" in told
    TwoTowers().save("plain")
    assert "--lambda goes with a file of Keras that is read" in refused(
        capsys, "plain", "a.keras", "--lambda", "a=squeeze"
    )
    assert "--like goes with a file of Keras that is read" in refused(capsys, "plain", "a.keras", "--like", "plain")
    TwoTowers(outputs=2).save("other")
    Ensemble([TwoTowers(), TwoTowers()]).save("several")
    told = refused(capsys, "other", "a.keras")
    assert "towers convert: a.keras: the model has parts that the network of Keras has not: outputs=2; only" in told
    assert "several: holds an ensemble" in refused(capsys, "several", "a.keras")
    assert "Give --like DIR, a folder with" in refused(capsys, variants / "sizes.weights.h5", "model")
    assert "say so: --lambda sqNone=squeeze (or" in refused(capsys, variants / "lambdas.keras", "model")


def test_a_conversion_that_is_wrong_is_noticed(variants, capsys, monkeypatch):
    from towers.keras import layer_arrays

    right = layer_arrays.conv_weight
    monkeypatch.setattr(layer_arrays, "conv_weight", lambda kernel: right(kernel[::-1].copy()))
    assert "and Keras's equations differ by" in refused(capsys, variants / "sizes.keras", "model")
