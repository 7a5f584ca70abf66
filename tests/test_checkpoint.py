"""A model on disk: there and back, and every way in which a folder can be wrong."""

import copy
import inspect
import json
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from towers import PairHead, Tower, TwoTowers, checkpoint

VERSION = re.escape(version("towers"))
GOLDEN = Path(__file__).parent / "golden"
MODELS = {
    "as the original": lambda: TwoTowers(),
    "shared": lambda: (lambda tower: TwoTowers(tower, tower, dense=3))(Tower(vector_width=7)),
    "of other sizes": lambda: TwoTowers(
        Tower(vector_width=4, kernel_words=3, filters=6, pool=2, hidden=5, chunk=2), Tower(words=4, hidden=5), dense=9
    ),
    "of other gates": lambda: TwoTowers(
        Tower(recurrent_activation="hard_sigmoid"), Tower(recurrent_activation="hard_sigmoid_keras2")
    ),
    "float64": lambda: TwoTowers(dtype=torch.float64),
    "of two dtypes": lambda: TwoTowers(Tower(dtype=torch.float64), Tower(), dtype=torch.bfloat16),
}


@pytest.fixture
def folder(tmp_path):
    TwoTowers().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_there_and_back(make, tmp_path):
    model = make()
    model.save(tmp_path / "a" / "model", extra={"vectors": {"source": "sample"}})
    loaded = TwoTowers.load(tmp_path / "a" / "model")
    assert repr(loaded) == repr(model)
    assert (loaded.left is loaded.right) == (model.left is model.right)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
        assert loaded.state_dict()[name].dtype == value.dtype
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert checkpoint.read_config(tmp_path / "a" / "model")["vectors"] == {"source": "sample"}


def test_a_folder_of_format_1_loads():
    """Written by towers before there were formats 2 and recurrent_activation, with the logits that it gave."""
    model = TwoTowers.load(GOLDEN / "format-1")
    left = torch.linspace(-1, 1, 2 * 6 * 4).view(2, 6, 4).sin()
    right = torch.linspace(1, -2, 2 * 5 * 4).view(2, 5, 4).cos()
    logits = model(left, right, torch.tensor([6, 3]))
    torch.testing.assert_close(logits, torch.tensor([0.11089549958705902, 0.04228827357292175]), rtol=1e-5, atol=1e-6)
    assert (model.left.lstm.recurrent_activation, model.right.chunk) == ("sigmoid", 2)
    assert checkpoint.read_config(GOLDEN / "format-1")["data"]["split"] == "rule"


def test_the_config_names_its_format_and_the_version_that_wrote_it(folder):
    config = checkpoint.read_config(folder)
    assert (config["format"], config["towers"]) == (2, version("towers"))
    before = (folder / "config.json").read_bytes()
    with pytest.raises(
        ValueError, match=r"config.json of a saved model has an entry 'format' of its own; choose another"
    ):
        TwoTowers().save(folder, extra={"format": 1})
    assert (folder / "config.json").read_bytes() == before


def test_every_size_of_a_tower_is_a_known_entry():
    """A new argument of Tower raises FORMAT and is added to TOWER_ENTRIES."""
    sizes = set(inspect.signature(Tower).parameters) - {"device", "dtype"}
    assert sizes == checkpoint.TOWER_ENTRIES
    parts = {"bidirectional": True, "reduce": "max", "word_map": 5, "word_maximum": 2, "word_mean": 2}
    assert Tower(recurrent_activation="hard_sigmoid", **parts).config().keys() == sizes


def test_dropout_behind_the_dense_layers_is_kept_in_a_newer_format(tmp_path):
    tower = Tower(vector_width=4)
    second = PairHead(tower.width, dense=64, outputs=2, dense_dropout=0.25)
    model = TwoTowers(tower, tower, dense=64, dense_dropout=0.5, second=second)
    model.save(tmp_path)
    assert checkpoint.read_config(tmp_path)["format"] == 4
    loaded = TwoTowers.load(tmp_path)
    assert (loaded.dense_dropout.p, loaded.second.dense_dropout.p) == (0.5, 0.25)
    left, right = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(loaded(left, right), loaded(left, right), rtol=0, atol=0)
    model.train()
    with torch.no_grad():
        for head in (model, model.second):
            head.dense.bias.fill_(10)  # so that relu lets every unit through
        assert not torch.equal(model(left, right), model(left, right)), "dropout acts without gradients too"
        states = model.states(left, right)
        assert not torch.equal(model.second(*states), model.second(*states))


def test_a_folder_holds_two_files_and_nothing_half_written(folder):
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1, "both may be read by the same people"
    TwoTowers(dense=4).save(folder)
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    assert TwoTowers.load(folder).dense.out_features == 4


def test_a_pointer_of_git_lfs_is_named(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(
        ValueError, match=r"model\.safetensors: .*a pointer of git LFS: git lfs pull gets the file itself"
    ):
        TwoTowers.load(folder)


def test_a_model_without_numbers_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"model\.safetensors: \S+ is on the meta device: it has no numbers"):
        TwoTowers(device="meta").save(tmp_path / "a")
    assert not list(tmp_path.rglob("*.*"))


def test_a_failing_write_leaves_what_was_there(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        TwoTowers().save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def sizes(folder):
    return json.loads((folder / "config.json").read_text())["model"]


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        (lambda f: (f / "config.json").unlink(), FileNotFoundError, r"config.json: there is no such file"),
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, r"model.safetensors: there is no such file"),
        (lambda f: f.rename(f.parent / "other"), FileNotFoundError, r"model: no folder"),
        (lambda f: (f / "config.json").write_text('{"format": 1'), ValueError, r"config.json: is damaged"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), ValueError, r"config.json: is damaged"),
        (lambda f: (f / "config.json").write_text("[]"), ValueError, r"config.json: is no config of a saved model"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), ValueError, r"model.safetensors: is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]), ValueError, r"model.safetensors: is damaged"),
        (lambda f: change(f, format=5, towers="9.9"), ValueError, rf"has format 5, written by towers 9.9; towers {VERSION} reads up to format 4: update towers"),
        (lambda f: change(f, format=5, towers=None), ValueError, rf"has format 5; towers {VERSION} reads up to format 4: update towers"),
        (lambda f: change(f, model=sizes(f) | {"dense": 4}), ValueError, r"do not fit each other[\s\S]*dense.weight"),
        (lambda f: change(f, model=sizes(f) | {"left": {"wings": 2}}), ValueError, rf"config.json: 'wings' in 'left' is unknown to towers {VERSION}, which reads up to format 4: update"),
        (lambda f: change(f, model=sizes(f) | {"attention": 1}), ValueError, r"'attention' in 'model' is unknown to towers"),
        (lambda f: change(f, model={"left": {}}), ValueError, r"do not fit each other: no entry 'right'"),
        (lambda f: change(f, model=sizes(f) | {"left": sizes(f)["left"] | {"pool": 5}}), ValueError, r"pool \(5\) must divide filters \(32\)"),
    ],
)  # fmt: skip
def test_a_folder_that_is_wrong_is_named(folder, damage, error, text):
    damage(folder)
    with pytest.raises(error, match=text):
        TwoTowers.load(folder)


ODD = [None, True, -1, 0, 2.5, 10**30, "", "x", [], [1], {}, {"x": 1}]


def places(value, path=()):
    """The path to every entry of nested objects, the whole first."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))


def test_odd_kinds_of_entries_anywhere_are_an_error_that_names_the_folder(folder):
    """Each entry of config.json replaced by each kind of value: refused, or a model all the same."""
    config = json.loads((folder / "config.json").read_text())
    config["vectors"] = {"source": "sample", "missing": "hash"}
    config["data"] = {"left_column": "a", "right_column": "b", "label_range": [0, 1], "fit_length": None}
    refused = []
    for path in places(config):
        for value in ODD:
            changed = value
            if path:
                changed = copy.deepcopy(config)
                within = changed
                for key in path[:-1]:
                    within = within[key]
                within[path[-1]] = value
            (folder / "config.json").write_text(json.dumps(changed))
            try:
                TwoTowers.load(folder)
            except ValueError as error:
                refused.append(str(error))
            else:
                assert path != (), value
    assert len(refused) > 150
    assert all(message.startswith(str(folder)) for message in refused)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"data": None}, r"config.json: is damaged: 'data' is no object; train the model again, or mend the file"),
        ({"data": {"split": 7}}, r"config.json: is damaged: 'split' in 'data' is 7; mend the file"),
        ({"vectors": {"source": ["x"]}}, r"config.json: is damaged: 'source' in 'vectors' is \['x'\]; mend the file"),
        ({"format": True}, r"config.json: is no config of a saved model: it has no format number"),
    ],
)
def test_what_programs_read_of_a_config_is_looked_at(folder, entries, text):
    change(folder, **entries)
    with pytest.raises(ValueError, match=text):
        checkpoint.read_config(folder)


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    (tmp_path / "resume.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="its training has not ended; go on with: towers fit --resume"):
        TwoTowers.load(tmp_path)


def test_without_safetensors_the_error_is_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r'pip install "towers\[train\]"'):
        TwoTowers().save(tmp_path)
