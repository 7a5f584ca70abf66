"""Exported files: the model's results at any batch and any length, errors in place of numbers, and no need of towers."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn.utils import prune

from towers import PairHead, Tower, TwoTowers, keras
from towers.answers import Model
from towers.cli import main
from towers.data import WordVectors
from towers.data.kept_vectors import save_vectors
from towers.ensemble import Ensemble
from towers.export import Labels, export
from towers.training.presets import PRESETS, build

SIZES = {"vector_width": 12, "filters": 6, "pool": 3, "hidden": 5}


def filled(model: TwoTowers, seed: int = 7) -> TwoTowers:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    return model


def shared() -> TwoTowers:
    tower = Tower(kernel_words=3, **SIZES)
    return TwoTowers(tower, tower, dense=4)


MODELS = {
    "the usual": TwoTowers,
    "shared": shared,
    "fixed on the left": lambda: TwoTowers(Tower(4, **SIZES), Tower(**SIZES)),
    "both fixed": lambda: TwoTowers(Tower(4, **SIZES), Tower(2, **SIZES)),
    "one word": lambda: TwoTowers(Tower(kernel_words=1, **SIZES), Tower(1, kernel_words=1, **SIZES)),
    "hard sigmoid": lambda: TwoTowers(Tower(recurrent_activation="hard_sigmoid", **SIZES), Tower(5, recurrent_activation="hard_sigmoid_keras2", **SIZES)),
    "chunks": lambda: TwoTowers(Tower(chunk=2, **SIZES), Tower(5, chunk=4, **SIZES)),
    "both directions": lambda: TwoTowers(Tower(bidirectional=True, **SIZES), Tower(4, bidirectional=True, **SIZES)),
    "over all steps": lambda: TwoTowers(Tower(reduce="max", **SIZES), Tower(4, reduce="mean", **SIZES)),
    "without an LSTM": lambda: TwoTowers(Tower(**SIZES | {"hidden": None}), Tower(4, reduce="max", **SIZES | {"hidden": None})),
    "every part": lambda: every_part(),
    "similarity": lambda: build(PRESETS["similarity"], vector_width=8, outputs=5),
    "entailment": lambda: build(PRESETS["entailment"], vector_width=8, outputs=3),
    "small": lambda: build(PRESETS["small"], vector_width=8, outputs=5, second_outputs=3),
    "an ensemble": lambda: Ensemble([filled(TwoTowers(Tower(**SIZES), Tower(4, **SIZES)), seed) for seed in range(3)]),
    "an ensemble with classes": lambda: Ensemble([every_part(seed) for seed in range(2)]),
}  # fmt: skip
WEIGHTED = {"similarity", "entailment", "small", "an ensemble", "an ensemble with classes"}


def every_part(seed: int = 0) -> TwoTowers:
    """A shared tower and two heads with all that is not usual."""
    tower = Tower(
        reduce="mean",
        recurrent_activation="hard_sigmoid",
        word_map=7,
        word_maximum=4,
        word_mean=3,
        **SIZES,
    )
    features = ("product", "positive difference", "negative difference", "absolute difference", "difference")
    second = PairHead(tower.width, features[:2], dense=3, outputs=2, dropout=0.1)
    return filled(
        TwoTowers(tower, tower, features=features, outputs=3, dropout=0.1, word_dropout=0.1, second=second), seed
    )


def batch_of(model: TwoTowers, sentences: int, longest: int, seed: int) -> dict[str, torch.Tensor]:
    """A ragged batch whose padding is not a number."""
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for side, tower in (("left", model.left), ("right", model.right)):
        words = tower.words or tower.kernel_words + longest
        batch[side] = torch.randn(sentences, words, tower.vector_width, generator=generator)
        if tower.words is None:
            lengths = torch.randint(tower.kernel_words, words + 1, (sentences,), generator=generator)
            batch[side][torch.arange(words) >= lengths.unsqueeze(1)] = torch.nan
            batch[f"{side}_lengths"] = lengths
    return batch


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(opened, batch) -> torch.Tensor:
    return torch.from_numpy(opened.run(["logit"], {name: value.numpy() for name, value in batch.items()})[0])


def expected(model, batch):
    """The logits, and those of the second head."""
    with torch.no_grad():
        second = [] if model.second is None else [model.second(*model.states(**batch))]
        return [model(**batch), *second]


@pytest.mark.parametrize("name", MODELS)
def test_onnx_gives_what_the_model_gives_on_ragged_batches(tmp_path, name):
    model = MODELS[name]().eval()
    model = model if name in WEIGHTED else filled(model)
    export(model, tmp_path / "a.onnx")
    opened = session(tmp_path / "a.onnx")
    for seed in range(30):
        batch = batch_of(model, sentences=(0, 1, 2, 7, 33)[seed % 5], longest=(0, 1, 2, 11)[seed % 4], seed=seed)
        found = opened.run(None, {name: value.numpy() for name, value in batch.items()})
        for one, wanted in zip(found, expected(model, batch), strict=True):
            torch.testing.assert_close(torch.from_numpy(one), wanted, rtol=0, atol=1e-5)
    check_doubtful(opened, model)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def check_doubtful(opened, model):
    """A number of a sentence that is not finite makes NaN of its logits, wherever it is, and of no others."""
    for seed, side in enumerate(("left", "right", "left", "right")):
        batch = batch_of(model, sentences=4, longest=3, seed=seed)
        length = int(batch.get(f"{side}_lengths", [batch[side].shape[1]] * 4)[2])
        batch[side][2, (0, length - 1)[seed // 2], seed] = torch.nan
        for one, wanted in zip(opened.run(None, as_arrays(batch)), expected(model, batch), strict=True):
            torch.testing.assert_close(torch.from_numpy(one), wanted, rtol=0, atol=1e-5, equal_nan=True)
            assert torch.from_numpy(one)[2].isnan().all() or seed < 2  # of the last phrase alone the first word is none
        batch[side][2, length - 1, 0] = torch.inf
        for one in opened.run(None, as_arrays(batch)):
            assert np.isnan(one[2]).all()
            assert np.isfinite(one[[0, 1, 3]]).all()
        for other, value in batch.items():
            with pytest.raises(Exception, match="must_have_the_same_batch"):
                opened.run(None, as_arrays(batch | {other: value[:1]}))


def as_arrays(batch):
    return {name: value.numpy() for name, value in batch.items()}


def test_onnx_of_ids(tmp_path):
    model = filled(MODELS["the usual"]())
    table = torch.randn(20, 300, generator=torch.Generator().manual_seed(1))
    ids = {
        "left": torch.randint(20, (3, 6)),
        "right": torch.randint(20, (3, 5)),
        "left_lengths": torch.tensor([6, 2, 4]),
    }
    vectors = {name: table[value] if "lengths" not in name else value for name, value in ids.items()}
    export(model, tmp_path / "inside.onnx", ids=True, table=table)
    export(model, tmp_path / "outside.onnx", ids=True)
    wanted = model(**vectors).detach()
    for opened, more in (
        (session(tmp_path / "inside.onnx"), {}),
        (session(tmp_path / "outside.onnx"), {"table": table}),
    ):
        check_ids(
            lambda batch, opened=opened, more=more: run(opened, batch | more), ids, wanted, "left_must_be_from_0_to"
        )
        with pytest.raises(Exception, match="left_lengths_must_be_from_2_to_the_number_of_words"):
            run(opened, ids | more | {"left_lengths": torch.tensor([6, 1, 4])})
        with pytest.raises(Exception, match="left_and_right_and_left_lengths_must_have_the_same_batch"):
            run(opened, ids | more | {"right": ids["right"][:1]})
    table = table.index_fill(0, ids["left"][1, 1:2], torch.nan)
    wanted = model(**{name: table[value] if "lengths" not in name else value for name, value in ids.items()}).detach()
    assert wanted[1].isnan()
    found = run(session(tmp_path / "outside.onnx"), ids | {"table": table})
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5, equal_nan=True)
    with pytest.raises(ValueError, match=r"table has 1 row with a number that is not finite, the first is row \d+"):
        export(model, tmp_path / "inside.onnx", ids=True, table=table)


def check_ids(run, ids, wanted, message):
    """Ids are rows of a table of 20 rows, up to the end of a sentence; in the padding they may be anything."""
    torch.testing.assert_close(run(ids), wanted, rtol=0, atol=1e-5)
    padded = ids["left"].clone()
    padded[1, 2:], padded[2, 4:] = -1, 97
    torch.testing.assert_close(run(ids | {"left": padded}), wanted, rtol=0, atol=1e-5)
    for wrong in (-1, -20, 20):
        padded[1, 1] = wrong
        with pytest.raises(Exception, match=message):
            run(ids | {"left": padded})
    last = ids["right"].clone()
    last[2, 4] = -1
    with pytest.raises(Exception, match=message.replace("left", "right")):
        run(ids | {"right": last})


@pytest.mark.parametrize(
    ("words", "lengths"), [(5, [5, 1]), (5, [6, 3]), (5, [5, -1]), (5, [5]), (1, [1, 1]), (5, [5, 5, 5])]
)
def test_what_a_tower_does_not_take_is_an_error_never_a_number(tmp_path, words, lengths):
    model = filled(MODELS["the usual"]())
    export(model, tmp_path / "a.onnx")
    batch = {"left": torch.randn(2, words, 300), "right": torch.randn(2, 5, 300), "left_lengths": torch.tensor(lengths)}
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run(session(tmp_path / "a.onnx"), batch)
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        run(
            session(tmp_path / "a.onnx"), batch | {"left": torch.randn(2, 5, 200), "left_lengths": torch.tensor([5, 5])}
        )


def test_the_file_says_what_it_takes(tmp_path):
    export(MODELS["the usual"](), tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["inputs"]) == {
        "left": ["batch", "left_words", 300],
        "right": ["batch", 5, 300],
        "left_lengths": ["batch"],
    }
    assert json.loads(said["demands"]) == {"left": "words >= 2", "right": "words == 5"}
    assert [entry.name for entry in model.graph.output] == ["logit"]
    assert {node.domain for node in model.graph.node} == {""}


WITHOUT_TOWERS = """
import sys
sys.modules["towers"] = None  # any import of it fails
import numpy as np
batch = dict(np.load("batch.npz"))
if sys.argv[1].endswith(".onnx"):
    import onnxruntime
    found = onnxruntime.InferenceSession(sys.argv[1]).run(["logit"], batch)[0]
else:
    import torch
    program = torch.export.load(sys.argv[1])
    assert not any("towers" in str(node.target) for node in program.graph.nodes)
    found = program.module()(**{name: torch.from_numpy(value) for name, value in batch.items()}).numpy()
np.save("found.npy", found)
"""


@pytest.fixture(scope="module")
def one_word(tmp_path_factory):
    """A model and its torch program; to write one takes seconds."""
    model = filled(MODELS["one word"]()).eval()
    return model, export(model, tmp_path_factory.mktemp("program") / "a.pt2", format="torch").path


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_file_needs_no_towers_where_it_runs(tmp_path, format, request, forks):
    if format == "torch":
        model, path = request.getfixturevalue("one_word")
    else:
        model = filled(MODELS["fixed on the left"]())
        path = export(model, tmp_path / "a.onnx").path
    batch = batch_of(model, sentences=4, longest=6, seed=3)
    np.savez(tmp_path / "batch.npz", **{name: value.numpy() for name, value in batch.items()})
    ran = forks.run([forks.with_torch, "-c", WITHOUT_TOWERS, str(path)], cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), model(**batch).detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["one word", pytest.param("every part", marks=pytest.mark.slow)])
def test_a_torch_program_serves_every_size(tmp_path, name, request):
    """What a contract demands is an assert of the program, of shapes, too: AOTInductor checks none (pytorch#141115)."""
    if name == "one word":
        model, path = request.getfixturevalue("one_word")
    else:
        model = filled(MODELS[name]()).eval()
        path = export(model, tmp_path / "a.pt2", format="torch").path
    module = torch.export.load(path).module()
    check_program(module, model)
    batch = batch_of(model, sentences=2, longest=4, seed=1)
    for wrong in ({"left": torch.randn(2, 5, 13)}, {"right": torch.randn(2, 0, 12)}, {"right": torch.randn(3, 3, 12)}):
        with pytest.raises((RuntimeError, AssertionError)):
            module(**batch | wrong)


def check_program(module, model):
    """A program gives what the model gives, and an error for a length that it does not take."""
    for seed in range(12):
        batch = batch_of(model, sentences=(0, 1, 2, 9)[seed % 4], longest=(0, 1, 8)[seed % 3], seed=seed)
        found = module(**batch)
        for one, wanted in zip(found if isinstance(found, tuple) else [found], expected(model, batch), strict=True):
            torch.testing.assert_close(one, wanted, rtol=0, atol=1e-5)
    batch = batch_of(model, sentences=2, longest=4, seed=1)
    for name in batch.keys() & {"left_lengths", "right_lengths"}:
        with pytest.raises(RuntimeError, match=f"{name}: a length is below"):
            module(**batch | {name: torch.tensor([4, 0])})
        with pytest.raises(RuntimeError, match="dtype"):
            module(**batch | {name: torch.tensor([2.9, 4.0])})


def check_torch_ids(model, format, **options):
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(20, 300, generator=generator)
    drawn = [torch.randint(20, (3, words), generator=generator) for words in (6, 5)]
    ids = {"left": drawn[0], "right": drawn[1], "left_lengths": torch.tensor([6, 2, 4])}
    wanted = model(table[drawn[0]], table[drawn[1]], ids["left_lengths"]).detach()
    path = export(model, "ids.pt2", format=format, ids=True, table=table, **options).path
    loaded = torch.export.load(path).module() if format == "torch" else torch._inductor.aoti_load_package(str(path))
    check_ids(lambda batch: loaded(**batch), ids, wanted, "left: an id is below 0, or above the last row of the table")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "aoti"])
def test_torch_programs_of_ids(tmp_path, monkeypatch, format):
    monkeypatch.chdir(tmp_path)
    check_torch_ids(filled(MODELS["the usual"]()), format)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"with_towers": True}, {"ids": True}], ids=["vectors", "with towers", "ids"])
@pytest.mark.parametrize("name", MODELS)
def test_every_torch_program_serves_every_size(tmp_path, name, options):
    torch._dynamo.reset()  # else each loop is compared with those of all tests before
    model = MODELS[name]().eval()
    model = model if name in WEIGHTED else filled(model)
    path = export(model, tmp_path / "a.pt2", format="torch", **options).path
    if "ids" not in options:
        check_program(torch.export.load(path).module(), model)


def test_a_tower_is_exported_by_torch_from_its_smallest_number_of_words(tmp_path):
    model = filled(TwoTowers(Tower(**SIZES), Tower(4, **SIZES))).eval()
    words, batch = torch.export.Dim("words", min=2), torch.export.Dim("batch")
    example = torch.randn(3, 7, 12), torch.randn(3, 4, 12)
    program = torch.export.export(model, example, dynamic_shapes={"left": {0: batch, 1: words}, "right": {0: batch}})
    for sizes in ((1, 2), (0, 2), (2, 3), (5, 30)):
        pairs = torch.randn(*sizes, 12), torch.randn(sizes[0], 4, 12)
        torch.testing.assert_close(program.module()(*pairs), model(*pairs), rtol=0, atol=1e-6)


def test_with_towers_a_tower_without_an_operation_is_made_of_torchs(tmp_path):
    hard = Tower(4, recurrent_activation="hard_sigmoid", **SIZES)
    model = filled(TwoTowers(Tower(chunk=2, **SIZES), hard)).eval()
    export(model, tmp_path / "a.pt2", format="torch", with_towers=True)
    program = torch.export.load(tmp_path / "a.pt2")
    assert any("towers" in str(node.target) for node in program.graph.nodes)
    assert any("while_loop" in str(node.target) for node in program.graph.nodes)
    batch = batch_of(model, sentences=5, longest=6, seed=2)
    torch.testing.assert_close(program.module()(**batch), model(**batch).detach(), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shared", "every part", "small", "an ensemble"])
def test_a_compiled_program_serves_every_size_and_asserts(tmp_path, name):
    model = MODELS[name]().eval()
    model = model if name in WEIGHTED else filled(model)
    export(model, tmp_path / "a.pt2", format="aoti")
    module = torch._inductor.aoti_load_package(str(tmp_path / "a.pt2"))
    check_program(lambda **batch: module(**batch), model)
    batch = batch_of(model, sentences=2, longest=4, seed=1)
    left = batch["left"]
    turned = left.transpose(0, 1).contiguous().transpose(0, 1)
    for wrong in (left.double(), left[:, :, 1:], left[:1], left[:, :1], left[0], turned):
        with pytest.raises(RuntimeError):
            module(**batch | {"left": wrong})
    with pytest.raises(RuntimeError):
        module(**batch | {"left_lengths": batch["left_lengths"][:1]})


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(tmp_path):
    replaced = TwoTowers()
    replaced.left.pool = torch.nn.Identity()
    ruined, pruned = TwoTowers(), TwoTowers()
    prune.l1_unstructured(pruned.dense, "weight", 0.5)
    ruined.logit.bias.data.fill_(torch.nan)
    for model, options, message in (
        (TwoTowers(), {"format": "tflite"}, "format is 'tflite'; one of onnx, torch, aoti"),
        (TwoTowers(), {"format": "torch"}, r"a\.onnx: the name of a file of format torch ends in \.pt2; format onnx"),
        (TwoTowers(dtype=torch.float64), {}, r"left.conv.weight is torch.float64; .* model\.float\(\)"),
        (replaced, {}, "left.pool was replaced by a Identity, for which there is no export"),
        (type("Own", (TwoTowers,), {})(), {}, "the model was replaced by a Own"),
        (ruined, {}, "logit.bias has a value that is not finite"),
        (TwoTowers(device="meta"), {}, "left.conv.weight is on the meta device: it has no numbers"),
        (
            pruned,
            {},
            r"the model cannot be copied \(Only Tensors created .*: make weights that are computed, such as pru",
        ),
        (
            TwoTowers(),
            {"ids": True, "table": torch.zeros(1, 1).expand(1_800_000, 300)},
            r"the table and the weights are 2\.2 GB; an ONNX file holds at most 2\.1 GB: leave the table outside",
        ),
        (TwoTowers(), {"labels": Labels(classes=("a", "b"))}, "labels: classes has 2 names; the model has 1 outputs"),
        (TwoTowers(), {"labels": Labels(second_classes=("a",))}, "second_classes has 1 names; there is no second head"),
        (TwoTowers(), {"table": torch.zeros(3, 300)}, "table goes with ids=True"),
        (TwoTowers(), {"ids": True, "table": torch.zeros(3, 200)}, r"table is \(3, 200\); \(vocabulary, 300\)"),
    ):
        with pytest.raises(ValueError, match=message):
            export(model, tmp_path / "a.onnx", **options)
    for name in ("a.pt2", "a.tflite", "a"):
        with pytest.raises(ValueError, match=r"format onnx ends in \.onnx; formats torch and aoti write \.pt2"):
            export(TwoTowers(), tmp_path / name)
    with pytest.raises(TypeError, match="model is Tower; TwoTowers and RaggedLSTM are exported"):
        export(Tower(), tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError, match="make it first"):
        export(TwoTowers(), tmp_path / "none" / "a.onnx")
    with pytest.raises(TypeError, match=r"model is Model; .* are exported: give its network"):
        export(Model(TwoTowers(), WordVectors(["tea"], torch.ones(1, 300))), tmp_path / "a.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ValueError, match=r"/folder\.onnx: is a folder; name a file"):
        export(TwoTowers(), tmp_path / "folder.onnx")
    (tmp_path / "folder.onnx").rmdir()
    assert not list(tmp_path.iterdir())


def test_the_comparison_draws_what_the_file_takes_whatever_torchs_default_dtype_is(tmp_path):
    model = shared()
    torch.set_default_dtype(torch.float64)
    try:
        assert export(model, tmp_path / "a.onnx").largest_difference < 1e-5
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    from towers.export import onnx_lstm

    right = onnx_lstm._gates
    monkeypatch.setattr(onnx_lstm, "_gates", lambda parameter: right(parameter)[::-1])
    with pytest.raises(ValueError, match="file and model differ by"):
        export(filled(TwoTowers()), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filled(TwoTowers()).save("model")
    assert main(["export", "--model", "model", "--out", "a.onnx"]) == 0
    told = capsys.readouterr().out
    assert "left: float32 (batch, left_words, 300)" in told
    assert "file and model differ by at most" in told
    assert main(["export", "--model", "model", "--out", "b.onnx", "--from", "ids"]) == 0
    assert "table: float32 (vocabulary, 300)" in capsys.readouterr().out
    assert main(["export", "--model", "none", "--out", "c.onnx"]) == 2
    assert "none: no folder" in capsys.readouterr().err
    keras.save(TwoTowers(), "model.keras")
    assert main(["export", "--model", "model.keras", "--out", "c.onnx"]) == 2
    told = "model.keras: is a file of Keras; carry it over first: towers convert model.keras FOLDER"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("name", ["similarity", "entailment", "small", "an ensemble"])
def test_the_command_exports_what_fit_saves(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    model = MODELS[name]().eval()
    data = {
        "similarity": {"label_range": [1, 5]},
        "entailment": {"classes": ["no", "maybe", "yes"]},
        "small": {"second_classes": ["a", "b", "c"]},
        "an ensemble": {"label_range": [0, 5]},
    }[name]
    model.save("model", extra={"data": data})
    save_vectors("model", WordVectors(["tea", "cup"], torch.randn(2, model.left.vector_width)))
    for more in ([], ["--from", "ids"], ["--from", "ids", "--table", "inside"]):
        assert main(["export", "--model", "model", "--out", "a.onnx", *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {
        "similarity": "  logit: float32 (batch, 5): 1, 2, 3, 4, 5",
        "entailment": "  logit: float32 (batch, 3): no, maybe, yes",
        "small": "  second_logit: float32 (batch, 3): a, b, c",
        "an ensemble": "  logit: float32 (batch)",
    }[name] in lines
    said = {entry.key: entry.value for entry in onnx.load("a.onnx").metadata_props}
    assert (
        said["output"]
        == {
            "similarity": "logit (batch, 5): the score is the mean of the bins under its softmax",
            "entailment": "logit (batch, 3): its softmax is the probability of each class",
            "small": "logit (batch, 5): the score is the mean of the bins under its softmax; "
            "second_logit (batch, 3): its softmax is the probability of each class",
            "an ensemble": "logit (batch): its sigmoid is the probability, and the score is 0 + 5 * probability",
        }[name]
    )
    if name == "small":
        model.save("model", extra={"data": {"second_label_range": [1, 3]}})
        assert main(["export", "--model", "model", "--out", "b.onnx"]) == 0
        assert "  second_logit: float32 (batch, 3): 1, 2, 3" in capsys.readouterr().out.splitlines()
    if name == "entailment":
        assert json.loads(said["columns"]) == {"logit": ["no", "maybe", "yes"]}
        model.save("model", extra={"data": {"classes": ["no", "yes"]}})
        assert main(["export", "--model", "model", "--out", "b.onnx"]) == 2
        assert "labels: classes has 2 names; the model has 3 outputs" in capsys.readouterr().err


def test_the_command_puts_the_vectors_of_the_folder_into_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = filled(MODELS["shared"]())
    model.save("model")
    vectors = WordVectors(["tea", "Ärger", "cup", "is"], torch.randn(4, 12).half().float())
    command = ["export", "--model", "model", "--out", "a.onnx", "--from", "ids", "--table", "inside"]
    assert main(command) == 2
    told = "model: has no word vectors (vectors.safetensors); --table outside serves without them"
    assert told in capsys.readouterr().err
    save_vectors("model", vectors)
    assert main(command) == 0
    assert "table" not in capsys.readouterr().out
    said = {entry.key: entry.value for entry in onnx.load("a.onnx").metadata_props}
    words = json.loads(said["words"])
    assert words == ["tea", "Ärger", "cup", "is"]
    sentence = [words.index(word) for word in ("cup", "is", "tea")]
    batch = {"left": torch.tensor([sentence]), "right": torch.tensor([[1, 0, 3]])}
    lengths = {"left_lengths": torch.tensor([3]), "right_lengths": torch.tensor([3])}
    found = run(session(tmp_path / "a.onnx"), batch | lengths)
    wanted = model(*(vectors.table[batch[side]] for side in ("left", "right")), **lengths).detach()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert main(["export", "--model", "model", "--out", "b.onnx", "--table", "inside"]) == 2
    assert "--table goes with --from ids" in capsys.readouterr().err
    with pytest.raises(ValueError, match="words has 2 words; the table has 4 rows"):
        export(model, "c.onnx", ids=True, table=vectors.table, words=["tea", "cup"])


def test_a_program_with_towers_operations(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = filled(MODELS["the usual"]())
    model.save("model")
    assert main(["export", "--model", "model", "--out", "a.pt2", "--format", "torch", "--with-towers"]) == 0
    program = torch.export.load(tmp_path / "a.pt2")
    assert [str(node.target) for node in program.graph.nodes if "towers" in str(node.target)] == ["towers.pair.default"]
    for seed in range(8):
        batch = batch_of(model, sentences=(0, 1, 2, 9)[seed % 4], longest=(0, 1, 8)[seed % 3], seed=seed)
        torch.testing.assert_close(program.module()(**batch), model(**batch).detach(), rtol=0, atol=1e-5)
    check_torch_ids(model, "torch", with_towers=True)
    assert main(["export", "--model", "model", "--out", "c.onnx", "--with-towers"]) == 2
    assert "with_towers is for format torch" in capsys.readouterr().err
