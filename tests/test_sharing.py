"""Models given to others: the folder, its model card, and the hub, which here is a server of the test's own."""

import inspect
import json
import os
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from towers import Tower, TwoTowers, model_card, training
from towers.ensemble import Ensemble

from .helpers.local_hub import local_hub
from .helpers.small import small_model, some_pairs


def small(**sizes):
    left = Tower(vector_width=4, filters=4, pool=2, hidden=3, **sizes)
    return TwoTowers(left, Tower(words=5, vector_width=4, filters=4, pool=2, hidden=3, chunk=2), dense=4)


def epoch(number, loss):
    row = {"loss": loss, "accuracy": 0.75, "auc": 0.875}
    return {"epoch": number, "train": {**row, "loss": 2 * loss}, "dev": row, "seconds": 1.5}


METRICS = {
    "best_epoch": 2,
    "keep_best": "loss",
    "majority": 0.5,
    "epochs": [epoch(1, 0.5), epoch(2, 0.25), epoch(3, 0.125)],
    "test": {"pairs": 20, "loss": 0.3125, "accuracy": 0.8, "auc": None, "majority": 0.55},
}
OF_RUN = ["config.json", "curves.png", "metrics.json", "model.safetensors", "vectors.safetensors"]
DATA = {"left_column": "a", "right_column": "b", "split": "rule", "fit_length": None, "train": "first.tsv"}


@pytest.fixture
def quick(monkeypatch):
    """Without the proof, which takes seconds."""
    monkeypatch.setattr(model_card, "_contracts", lambda _: ["## Shape contracts"])


@pytest.fixture
def model():
    return small()


@pytest.fixture
def run(model, tmp_path):
    """What a training leaves: beside the model its metrics, its curves, and the state from which it goes on."""
    folder = tmp_path / "run"
    vectors = {"source": "/home/me/secret/vectors.txt", "missing": "hash", "file": "vectors.safetensors"}
    model.save(folder, extra={"vectors": vectors, "data": DATA, "mine": [1]})
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "curves.png").write_bytes(b"a picture")
    (folder / "vectors.safetensors").write_bytes(b"vectors")
    (folder / "resume.json").write_text('{"format": 2, "command": {"train": "/home/me/secret/first.tsv"}}')
    return folder


def equal(one, other):
    states = one.state_dict(), other.state_dict()
    return repr(one) == repr(other) and all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else None


# The folder.


def test_an_ensemble_is_shared_like_a_model(tmp_path, quick):
    ensemble = Ensemble([small(), small()])
    ensemble.save_pretrained(tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "from towers.ensemble import Ensemble\n\nmodel = Ensemble.from_pretrained(" in card
    assert equal(Ensemble.from_pretrained(tmp_path / "shared"), ensemble)


def test_the_folder_is_what_save_writes_and_a_card(model, tmp_path, quick):
    model.save(tmp_path / "saved")
    assert model.save_pretrained(tmp_path / "a" / "shared") is None
    shared = contents(tmp_path / "a" / "shared")
    assert sorted(shared) == ["README.md", "config.json", "model.safetensors"]
    assert {name: shared[name] for name in ("config.json", "model.safetensors")} == contents(tmp_path / "saved")
    assert equal(TwoTowers.from_pretrained(tmp_path / "a" / "shared"), model)
    assert equal(TwoTowers.load(tmp_path / "a" / "shared"), model)


def test_the_card_of_a_model_alone(model, tmp_path):
    model.save_pretrained(tmp_path / "shared", license="cc-by-4.0", repo_id="me/pairs")
    text = (tmp_path / "shared" / "README.md").read_text("utf8")
    assert text.startswith("---\nlicense: cc-by-4.0\nlibrary_name: towers\n")
    assert 'TwoTowers.from_pretrained("me/pairs")' in text
    assert "towers.load" not in text
    assert "| words | any number | 5 |" in text
    assert "| chunk | all steps at once | 2 |" in text
    assert "237 parameters; a dense layer of 4 units." in text
    assert "**proven** for all `batch >= 0`, `left_words >= 2`, `right_words == 5`." in text
    assert "| `(batch, left_words, 4) -> (batch, left_words-1, 4)` | proven |" in text
    contracts = [line.split(" | ")[:2] for line in text.splitlines() if line.endswith("| proven |")]
    assert ["| left.lstm", "RaggedLSTM.forward"] in contracts
    assert ["| (itself)", "TwoTowers.compare"] in contracts
    assert len(contracts) == 13
    assert "## Results" not in text
    assert "## Data" not in text


def test_the_card_says_what_has_no_contract(tmp_path):
    class NoContract(TwoTowers):
        def forward(self, left, right):
            return super().forward(left, right)

    NoContract(Tower(vector_width=4), Tower(vector_width=4)).save_pretrained(tmp_path)
    assert "Not tried: NoContract.forward has no contract" in (tmp_path / "README.md").read_text("utf8")


def test_the_card_of_one_tower_for_both_sentences(tmp_path, quick):
    tower = Tower(vector_width=4, hidden=3)
    TwoTowers(tower, tower).save_pretrained(tmp_path)
    assert "|  | both towers, one set of weights |" in (tmp_path / "README.md").read_text("utf8")


def test_the_card_of_a_run_has_its_metrics_and_its_data(model, run, tmp_path, quick):
    model.save_pretrained(tmp_path / "shared", run=run)
    shared = contents(tmp_path / "shared")
    text = shared["README.md"].decode()
    assert sorted(shared) == sorted(["README.md", *OF_RUN])
    assert 'model = towers.load(snapshot_download("shared"))  # for sentences' in text
    assert "| pairs | loss | accuracy | auc | majority |" in text
    assert "| train, epoch 2 of 3 | 0.5000 | 0.7500 | 0.8750 |  |" in text
    assert "| dev, epoch 2 of 3 | 0.2500 | 0.7500 | 0.8750 |  |" in text
    assert "| test, 20 pairs | 0.3125 | 0.8000 |  | 0.5500 |" in text
    assert "| train pairs | first.tsv |\n| word vectors | vectors.txt |\n| words without a vector | hash |" in text
    assert "| columns | a, b |" in text
    config = json.loads(shared["config.json"])
    assert (config["data"], config["mine"]) == (DATA, [1])
    assert config["vectors"] == {"source": "vectors.txt", "missing": "hash", "file": "vectors.safetensors"}
    assert not any(b"secret" in content for content in shared.values())


def test_a_run_of_python_is_shared(tmp_path, quick):
    trained = small_model()
    training.fit(trained, some_pairs(), some_pairs(20, seed=1), out=tmp_path / "run", epochs=2, progress=False)
    trained.save_pretrained(tmp_path / "shared", run=tmp_path / "run")
    text = (tmp_path / "shared" / "README.md").read_text("utf8")
    assert re.search(r"\| train, epoch \d of 2 \| \d\.\d{4} \|", text)
    assert "| train pairs | memory |\n| dev pairs | memory |" in text
    assert equal(TwoTowers.from_pretrained(tmp_path / "shared"), trained)


def test_a_run_is_shared_where_it_is(model, run, quick):
    before = contents(run)
    model.save_pretrained(run, license="mit")
    after = contents(run)
    assert "| test, 20 pairs |" in after.pop("README.md").decode()
    assert {name: after[name] for name in before if name != "config.json"} == {
        name: before[name] for name in before if name != "config.json"
    }
    assert json.loads(after["config.json"])["data"] == DATA


def test_a_card_that_is_there_is_kept(model, tmp_path, quick):
    (tmp_path / "README.md").write_text("my own words")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own words"
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match=r"license: .*README.md is kept as it is; write the licence into it, or remove"
    ):
        small().save_pretrained(tmp_path, license="mit")
    assert contents(tmp_path) == before


def test_a_model_replaces_another_that_has_no_metrics(tmp_path, quick):
    small().save_pretrained(tmp_path)
    other = small()
    other.save_pretrained(tmp_path)
    assert equal(TwoTowers.load(tmp_path), other)


def test_a_card_of_towers_is_written_again(model, tmp_path, quick):
    card = tmp_path / "README.md"
    model.save_pretrained(tmp_path, license="mit")
    first = card.read_text("utf8")
    other = TwoTowers(
        Tower(vector_width=4, filters=6, pool=2, hidden=3), Tower(vector_width=4, filters=6, pool=2, hidden=3)
    )
    other.save_pretrained(tmp_path)
    text = card.read_text("utf8")
    assert "| filters | 6 | 6 |" in text
    assert text.startswith("---\nlicense: mit\n")
    model.save_pretrained(tmp_path)
    assert card.read_text("utf8") == first
    model.save_pretrained(tmp_path, license="cc-by-4.0")
    assert "license: cc-by-4.0\n" in card.read_text("utf8")
    card.write_text(first.replace("Two towers read", "My two towers read"), "utf8")
    other.save_pretrained(tmp_path)
    assert "My two towers read" in card.read_text("utf8")


def test_arguments_of_the_mixin_that_are_not_taken_say_what_to_do(model, tmp_path):
    for name, hint in (
        ("map_location", "say device"),
        ("strict", "weights that"),
        ("config", "config.json is written"),
    ):
        with pytest.raises(TypeError, match=rf"^from_pretrained takes no {name}: {hint}"):
            TwoTowers.from_pretrained(tmp_path, **{name: None})
    with pytest.raises(TypeError, match=r"^save_pretrained takes no model_card_kwargs: README\.md can be"):
        model.save_pretrained(tmp_path, model_card_kwargs={})
    with pytest.raises(TypeError, match=r"^push_to_hub takes no allow_patterns: all files"):
        model.push_to_hub("me/pairs", allow_patterns="*")
    with pytest.raises(TypeError, match=r"^from_pretrained takes no sizes$"):
        TwoTowers.from_pretrained(tmp_path, sizes=3)
    assert not list(tmp_path.iterdir())


def test_a_class_that_could_not_be_loaded_is_not_saved(tmp_path):
    class Own(TwoTowers):
        def __init__(self, width):
            super().__init__(Tower(vector_width=width), Tower(vector_width=width))

    class Other(TwoTowers):
        def __init__(self, *towers, **head):
            super().__init__(*towers, **head)

    for save in (Own(4).save, Own(4).save_pretrained):
        with pytest.raises(ValueError, match=r"^Own has an __init__ of its own, .* \(too many positional arguments\)"):
            save(tmp_path / "own")
    assert not (tmp_path / "own").exists()
    Other(Tower(vector_width=4), Tower(vector_width=4)).save(tmp_path / "other")
    assert isinstance(Other.load(tmp_path / "other"), Other)


def test_what_is_loaded_is_in_evaluation(tmp_path, quick):
    sizes = {"vector_width": 4, "filters": 4, "pool": 2, "hidden": 3}
    one, other = (TwoTowers(Tower(**sizes), Tower(**sizes), dropout=0.5, word_dropout=0.5) for _ in range(2))
    for kind, model in ((TwoTowers, one), (Ensemble, Ensemble([one, other]))):
        model.save_pretrained(tmp_path)
        for loaded in (kind.from_pretrained(tmp_path), kind.load(tmp_path)):
            assert not any(part.training for part in loaded.modules())


def test_metrics_of_other_weights_are_refused(run, tmp_path, quick):
    before = contents(run)
    other = small()
    with pytest.raises(ValueError, match=r"run: has other weights than this model, so its metrics.json would be wrong"):
        other.save_pretrained(run)
    with pytest.raises(ValueError, match="has other weights than this model"):
        other.save_pretrained(tmp_path / "shared", run=run)
    assert contents(run) == before
    assert not (tmp_path / "shared").exists()


def test_the_same_weights_in_another_network_are_another_model(run, tmp_path, quick):
    hard = small(recurrent_activation="hard_sigmoid")
    hard.load_state_dict(TwoTowers.load(run).state_dict())
    with pytest.raises(ValueError, match="has other weights than this model"):
        hard.save_pretrained(tmp_path / "shared", run=run)


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        (lambda f: (f / "metrics.json").write_text("{"), ValueError, "metrics.json: is damaged: Expecting"),
        (lambda f: (f / "metrics.json").write_text("[" * 100_000), ValueError, "metrics.json: is damaged: "),
        (lambda f: (f / "metrics.json").write_text("[]"), ValueError, "metrics.json: is damaged: it is no object"),
        (lambda f: (f / "metrics.json").write_text('{"epochs": [7]}'), ValueError, "metrics.json: is damaged: no entry 'best"),
        (lambda f: (f / "metrics.json").write_text('{"epochs": [1], "best_epoch": 9}'), ValueError, "metrics.json: is damaged"),
        (lambda f: (f / "metrics.json").write_text('{"test": {"pairs": 1, "loss": "x"}}'), ValueError, "metrics.json: is damaged"),
        (lambda f: (f / "vectors.safetensors").unlink(), FileNotFoundError, "vectors.safetensors: there is no such file, and config"),
        (lambda f: (f / "config.json").unlink(), FileNotFoundError, "run: its training has not ended; go on with"),
        (lambda f: f.rename(f.parent / "moved"), FileNotFoundError, "run: no folder"),
    ],
)  # fmt: skip
def test_a_run_that_is_wrong_is_named_and_nothing_is_written(model, run, tmp_path, quick, damage, error, text):
    damage(run)
    with pytest.raises(error, match=text) as raised:
        model.save_pretrained(tmp_path / "shared", run=run)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize("license", ["MIT", "", "mit\nfoo: bar", "Apache 2.0", "mit "])
def test_a_license_is_an_identifier(model, tmp_path, license):
    with pytest.raises(ValueError, match=r"is no identifier of a licence, such as 'mit', 'apache-2.0'"):
        model.save_pretrained(tmp_path / "shared", license=license)
    assert not (tmp_path / "shared").exists()


def test_names_that_are_no_names(model, tmp_path):
    with pytest.raises(TypeError, match="private goes with push_to_hub=True"):
        model.save_pretrained(tmp_path / "shared", private=True)
    for name in ("a/b/c", "a b", "", "../x", "/nowhere/at/all"):
        with pytest.raises(FileNotFoundError, match="no folder, and no name of a model on the hub"):
            TwoTowers.from_pretrained(name)
        with pytest.raises(ValueError, match=r"repo_id \(.*\) must be the name of a model on the hub: owner/name"):
            model.push_to_hub(name)
    (tmp_path / "shared").write_text("a file")
    with pytest.raises(FileExistsError, match="shared: is a file; name a folder as save_directory"):
        model.save_pretrained(tmp_path / "shared")


def test_without_huggingface_hub_the_error_is_the_install_line(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for ask in (
        lambda: TwoTowers.from_pretrained("me/pairs"),
        lambda: model.push_to_hub("me/pairs"),
        lambda: model.save_pretrained(tmp_path / "shared", push_to_hub=True),
    ):
        with pytest.raises(ImportError, match=r'pip install "towers\[hub\]"'):
            ask()
    assert not (tmp_path / "shared").exists()


# The hub.

if_installed = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """huggingface_hub's own client, whose hub is a server on this machine."""
    from huggingface_hub import constants

    with local_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its servers have a protocol of their own
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
        (tmp_path / "scratch").mkdir()
        yield hub
        assert os.listdir(tmp_path / "scratch") == [], "something is left"


@if_installed
def test_pushed_and_loaded_again(model, run, hub, quick):
    address = model.push_to_hub(
        "me/pairs", run=run, license="mit", private=True, token="hf_mine", commit_message="The first"
    )
    found = hub.repositories["me/pairs"]
    assert address == f"{hub.address}/me/pairs/commit/{found.branches['main']}"
    assert found.private
    assert found.messages == ["initial commit", "The first"]
    assert hub.tokens <= {"Bearer hf_mine", "none"}
    assert "Bearer hf_mine" in hub.tokens
    files = found.files()
    assert sorted(files) == sorted(["README.md", *OF_RUN])
    assert not any(b"secret" in content for content in files.values())
    assert 'TwoTowers.from_pretrained("me/pairs")' in files["README.md"].decode()
    assert equal(TwoTowers.from_pretrained("me/pairs"), model)


@if_installed
def test_a_push_of_other_weights_takes_the_metrics_away(model, run, hub, quick):
    model.push_to_hub("me/pairs", run=run)
    first = hub.repositories["me/pairs"].branches["main"]
    other = small()
    other.push_to_hub("me/pairs")
    assert sorted(hub.repositories["me/pairs"].files()) == ["README.md", "config.json", "model.safetensors"]
    assert equal(TwoTowers.from_pretrained("me/pairs"), other)
    assert equal(TwoTowers.from_pretrained("me/pairs", revision=first), model)


@if_installed
def test_saved_and_pushed_in_one_call(model, tmp_path, hub, quick):
    folder = tmp_path / "pairs"
    address = model.save_pretrained(folder, push_to_hub=True, repo_id="me/pairs", commit_message="Both")
    assert address.startswith(f"{hub.address}/me/pairs/commit/")
    assert hub.repositories["me/pairs"].files() == contents(folder)


@if_installed
def test_what_was_downloaded_is_there_without_the_hub(model, tmp_path, hub, quick):
    model.push_to_hub("me/pairs")
    with pytest.raises(FileNotFoundError, match="me/pairs: Cannot find an appropriate cached snapshot"):
        TwoTowers.from_pretrained("me/pairs", local_files_only=True)
    for cache in (None, tmp_path / "mine"):
        TwoTowers.from_pretrained("me/pairs", cache_dir=cache)
        hub.requests.clear()
        assert equal(TwoTowers.from_pretrained("me/pairs", cache_dir=cache, local_files_only=True), model)
        assert hub.requests == []
    TwoTowers.from_pretrained("me/pairs", force_download=True)
    assert any(request.endswith("/model.safetensors") for request in hub.requests)


@if_installed
def test_only_the_two_files_of_a_model_are_fetched(model, run, hub, quick):
    model.push_to_hub("me/pairs", run=run)
    hub.requests.clear()
    TwoTowers.from_pretrained("me/pairs")
    fetched = {request.rpartition("/")[2] for request in hub.requests if "resolve" in request}
    assert fetched == {"config.json", "model.safetensors"}


@if_installed
def test_what_is_not_on_the_hub_is_one_line(model, hub, quick, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"me/absent: 404 .*Repository Not Found") as raised:
        TwoTowers.from_pretrained("me/absent")
    assert "\n" not in str(raised.value)
    model.push_to_hub("me/pairs")
    with pytest.raises(FileNotFoundError, match=r"me/pairs: 404 .*Revision Not Found"):
        TwoTowers.from_pretrained("me/pairs", revision="v2")
    model.save(tmp_path / "here")
    with pytest.raises(ValueError, match=r"revision \('v2'\) is of a model on the hub; .*here is a folder"):
        TwoTowers.from_pretrained(tmp_path / "here", revision="v2")
    hub.repositories["me/pairs"].commit("main", {"config.json": b"{}"}, "broken")
    with pytest.raises(ValueError, match="is no config of a saved model"):
        TwoTowers.from_pretrained("me/pairs")
    newer = {"config.json": b'{"format": 99, "towers": "8.0"}', "model.safetensors": b""}
    hub.repositories["me/pairs"].commit("main", newer, "newer")
    with pytest.raises(ValueError, match=r"has format 99, written by towers 8.0; .*: update towers"):
        TwoTowers.from_pretrained("me/pairs")


@if_installed
@pytest.mark.parametrize(
    ("part", "status"),
    [("repos/create", 401), ("repos/create", 403), ("/commit/", 403), ("/large/", 400), ("yaml", 400)],
)
def test_a_hub_that_refuses_is_one_line_and_commits_nothing(model, hub, quick, part, status):
    hub.refuses[part] = status
    with pytest.raises((OSError, ValueError), match="me/pairs: ") as raised:
        model.push_to_hub("me/pairs", token="hf_mine")
    assert "\n" not in str(raised.value)
    assert "hf_mine" not in str(raised.value)
    assert all(found.messages == ["initial commit"] for found in hub.repositories.values())


@if_installed
def test_a_hub_that_cannot_be_reached_is_one_line(model, hub, quick, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    for ask in (lambda: model.push_to_hub("me/pairs"), lambda: TwoTowers.from_pretrained("me/pairs")):
        with pytest.raises(OSError, match="me/pairs: ") as raised:
            ask()
        assert "\n" not in str(raised.value)


@if_installed
def test_bad_input_never_reaches_the_hub(model, run, hub, quick):
    with pytest.raises(ValueError, match="is no identifier of a licence"):
        model.push_to_hub("me/pairs", license="MIT")
    with pytest.raises(ValueError, match="has other weights"):
        small().push_to_hub("me/pairs", run=run)
    assert hub.repositories == {}


@if_installed
def test_names_and_arguments_are_those_of_the_mixin():
    from huggingface_hub import PyTorchModelHubMixin

    ours = {"run", "license", "device", "push_options"}
    for name in ("save_pretrained", "from_pretrained", "push_to_hub"):
        theirs = inspect.signature(getattr(PyTorchModelHubMixin, name)).parameters
        for argument in inspect.signature(getattr(TwoTowers, name)).parameters.values():
            assert argument.name in ours or argument.kind == theirs[argument.name].kind, (name, argument)
    from towers.sharing import PushOptions

    assert PushOptions.__annotations__.keys() <= inspect.signature(PyTorchModelHubMixin.push_to_hub).parameters.keys()


def test_the_paths_of_both_systems_lose_their_folders():
    from towers.sharing import _extra

    for path in ("/home/me/v.txt", r"C:\Users\me\v.txt", "v.txt"):
        assert _extra({"vectors": {"source": path}}) == {"vectors": {"source": "v.txt"}}
    assert Path("v.txt").name == "v.txt"
