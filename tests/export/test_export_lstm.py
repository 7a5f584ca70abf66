"""A RaggedLSTM alone as a file: every option, any batch, any number of steps, lengths from 0 on."""

import numpy as np
import onnxruntime
import pytest
import torch

from towers import RaggedLSTM, Tower, TwoTowers
from towers.export import export

OPTIONS = {
    "plain": {},
    "single bias": {"bias": "single"},
    "no bias": {"bias": False},
    "layers and directions": {"num_layers": 2, "bidirectional": True},
    "steps first": {"num_layers": 2, "batch_first": False},
    "hard sigmoid": {"recurrent_activation": "hard_sigmoid", "bidirectional": True},
    "Keras 2's hard sigmoid": {"recurrent_activation": "hard_sigmoid_keras2", "bias": "single"},
}


def batch_of(lstm: RaggedLSTM, seed: int, *, states: bool) -> dict[str, torch.Tensor]:
    """A ragged batch whose padding is not a number."""
    generator = torch.Generator().manual_seed(seed)
    batch, steps = (0, 1, 2, 7, 33)[seed % 5], (0, 1, 2, 11)[seed % 4]
    lengths = torch.randint(steps + 1, (batch,), generator=generator)
    x = torch.randn(batch, steps, lstm.input_size, generator=generator)
    x[torch.arange(steps) >= lengths.unsqueeze(1)] = torch.nan
    found = {"input": x if lstm.batch_first else x.transpose(0, 1).contiguous(), "lengths": lengths}
    if states:
        for name, width in (("h_0", lstm.state_width), ("c_0", lstm.hidden_size)):
            found[name] = torch.randn(lstm.state_rows, batch, width, generator=generator)
    return found


def expected(lstm, batch):
    hx = (batch["h_0"], batch["c_0"]) if "h_0" in batch else None
    output, state = lstm(batch["input"], hx, lengths=batch["lengths"])
    return [output.detach(), *(part.detach() for part in state)]


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(opened, batch):
    found = opened.run(["output", "h_n", "c_n"], {name: value.numpy() for name, value in batch.items()})
    return [torch.from_numpy(one) for one in found]


def close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5, equal_nan=True)


def batch_axis(lstm, name):
    return 0 if name == "lengths" or (name == "input" and lstm.batch_first) else 1


@pytest.mark.parametrize("states", [False, True], ids=["from zero", "from a state"])
@pytest.mark.parametrize("name", OPTIONS)
def test_onnx_gives_what_the_layer_gives(tmp_path, name, states):
    lstm = RaggedLSTM(3, 5, **OPTIONS[name])
    told = str(export(lstm, tmp_path / "a.onnx", states=states))
    assert "lengths: int64 (batch)" in told
    assert f"h_n: float32 ({lstm.state_rows}, batch, 5)" in told
    opened = session(tmp_path / "a.onnx")
    for seed in range(40):
        batch = batch_of(lstm, seed, states=states)
        close(run(opened, batch), expected(lstm, batch))
        if seed > 36:  # batches of 2, 7 and 33: NaN is NaN from its step on
            for name, values in list(batch.items()):
                place = torch.randint(max(values.numel(), 1), (), generator=torch.Generator().manual_seed(seed))
                if values.numel() and values.dtype == torch.float32:
                    ruined = batch | {name: values.flatten().index_fill(0, place, torch.nan).view_as(values)}
                    found, wanted = run(opened, ruined), expected(lstm, ruined)
                    if name == "c_0":  # of which the layer's first step ruins one unit alone, and the file's all
                        assert all(one[other.isnan()].isnan().all() for one, other in zip(found, wanted, strict=True))
                        continue
                    close(found, wanted)
                with pytest.raises(Exception, match="must_have_the_same_batch"):
                    run(opened, batch | {name: values.narrow(batch_axis(lstm, name), 0, 1)})
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize("lengths", [[5, -1], [6, 2], [5], [5, 5, 5]])
def test_a_length_that_does_not_fit_is_an_error(tmp_path, lengths):
    export(RaggedLSTM(3, 5), tmp_path / "a.onnx")
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run(session(tmp_path / "a.onnx"), {"input": torch.randn(2, 5, 3), "lengths": torch.tensor(lengths)})


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": False}, marks=pytest.mark.slow
        ),
        {"bias": "single", "recurrent_activation": "hard_sigmoid"},
    ],
    ids=["plain", "all at once", "hard sigmoid"],
)
def test_a_torch_program_gives_what_the_layer_gives(tmp_path, options):
    lstm = RaggedLSTM(3, 5, **options)
    states = bool(options)
    export(lstm, tmp_path / "a.pt2", format="torch", states=states)
    module = torch.export.load(tmp_path / "a.pt2").module()
    for seed in range(20):
        batch = batch_of(lstm, seed, states=states)
        close(module(**batch), expected(lstm, batch))
    batch = batch_of(lstm, 2, states=states)
    with pytest.raises(RuntimeError, match="a length is below 0, or above the number of steps"):
        module(**batch | {"lengths": batch["lengths"] - 20})


def test_a_program_with_towers_operations(tmp_path):
    lstm = RaggedLSTM(3, 5, num_layers=2, bidirectional=True, batch_first=False)
    export(lstm, tmp_path / "a.pt2", format="torch", states=True, with_towers=True)
    module = torch.export.load(tmp_path / "a.pt2").module()
    for seed in range(20):
        batch = batch_of(lstm, seed, states=True)
        close(module(**batch), expected(lstm, batch))


@pytest.mark.slow
def test_a_compiled_program_gives_what_the_layer_gives(tmp_path):
    lstm = RaggedLSTM(3, 5, num_layers=2, bidirectional=True)
    export(lstm, tmp_path / "a.pt2", format="aoti")
    module = torch._inductor.aoti_load_package(str(tmp_path / "a.pt2"))
    for seed in range(20):
        batch = batch_of(lstm, seed, states=False)
        close(module(**batch), expected(lstm, batch))


class Doubled(RaggedLSTM):
    def forward(self, input, hx=None, *, lengths=None):
        return super().forward(2 * input, hx, lengths=lengths)


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        (RaggedLSTM(3, 5, proj_size=2), {}, r"ONNX's LSTM has no projection \(proj_size=2\); formats torch and aoti have"),
        (RaggedLSTM(3, 5), {"ids": True}, "ids, table and words are for TwoTowers; a RaggedLSTM takes vectors"),
        (RaggedLSTM(3, 5, dtype=torch.float64), {}, "weight_ih_l0 is torch.float64; files are float32"),
        (Doubled(3, 5), {}, "Doubled has a forward of its own, which would not be in the file"),
        (TwoTowers(Tower(), Tower(5)), {"states": True}, "states is for a RaggedLSTM"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused(tmp_path, model, options, text):
    with pytest.raises(ValueError, match=text):
        export(model, tmp_path / "a.onnx", **options)
    assert not list(tmp_path.iterdir())
    assert np.isfinite(sum(float(part.detach().sum()) for part in model.parameters()))
