"""Exported files where others run them, and open reports of others that these files answer."""

import numpy as np
import pytest
import torch

from towers import RaggedLSTM
from towers.export import export

from .test_export import MODELS, WEIGHTED, batch_of, filled
from .test_export_lstm import OPTIONS, close, expected, run, session
from .test_export_lstm import batch_of as lstm_batch


def test_openvino_gives_what_the_model_gives(tmp_path):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    core = openvino.Core()
    for name in (
        *("the usual", "fixed on the left", "hard sigmoid", "both directions", "over all steps", "without an LSTM"),
        *("every part", "small"),
    ):
        model = MODELS[name]().eval() if name in WEIGHTED else filled(MODELS[name]()).eval()
        export(model, tmp_path / "a.onnx")
        precise = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(str(tmp_path / "a.onnx")), "CPU", precise)
        for seed in range(34):
            batch = batch_of(model, sentences=(1, 2, 7, 33)[seed % 4], longest=(0, 1, 2, 11)[seed % 4], seed=seed)
            found = compiled({key: value.numpy() for key, value in batch.items()})["logit"]
            np.testing.assert_allclose(found, model(**batch).detach().numpy(), rtol=1e-5, atol=1e-5)
    for name in ("single bias", "layers and directions", "hard sigmoid", "Keras 2's hard sigmoid"):
        lstm = RaggedLSTM(3, 5, **OPTIONS[name])
        export(lstm, tmp_path / "a.onnx", states=True)
        compiled = core.compile_model(core.read_model(str(tmp_path / "a.onnx")), "CPU", precise)
        for seed in (2, 3, 7, 11):
            batch = lstm_batch(lstm, seed, states=True)
            found = compiled({key: value.numpy() for key, value in batch.items()})
            close([torch.from_numpy(found[key]) for key in ("output", "h_n", "c_n")], expected(lstm, batch))


def test_a_time_axis_stays_open_in_both_directions(tmp_path):
    """pytorch#191855: torch.onnx.export froze the length of the example in a bidirectional LSTM."""
    lstm = RaggedLSTM(3, 5, bidirectional=True)
    export(lstm, tmp_path / "a.onnx")
    opened = session(tmp_path / "a.onnx")
    for steps in (1, 4, 5, 9, 40):
        batch = {"input": torch.randn(2, steps, 3), "lengths": torch.tensor([steps, steps - 1])}
        close(run(opened, batch), expected(lstm, batch))


def test_a_sentence_may_be_empty(tmp_path):
    """onnxruntime#10768: sequence_lens of 0."""
    lstm = RaggedLSTM(3, 5, num_layers=2, bidirectional=True)
    export(lstm, tmp_path / "a.onnx", states=True)
    states = {"h_0": torch.randn(4, 3, 5), "c_0": torch.randn(4, 3, 5)}
    batch = {"input": torch.full((3, 4, 3), torch.nan), "lengths": torch.tensor([0, 0, 0]), **states}
    output, h_n, c_n = run(session(tmp_path / "a.onnx"), batch)
    assert not output.any()
    assert torch.equal(h_n, states["h_0"])
    assert torch.equal(c_n, states["c_0"])


def test_torch_export_keeps_batch_and_time_open():
    """pytorch#115092 and #126339: nn.LSTM is not exported for any length; #151200: h_n and c_n get four axes."""
    lstm = RaggedLSTM(3, 5, num_layers=2, bidirectional=True)
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps")
    program = torch.export.export(lstm, (torch.randn(3, 6, 3),), dynamic_shapes=({0: batch, 1: steps},))
    for sizes in ((2, 2), (7, 3), (2, 50)):
        x = torch.randn(*sizes, 3)
        torch.testing.assert_close(program.module()(x), lstm(x), rtol=0, atol=1e-6)


class Packing(torch.nn.Module):
    """What stands where a module packs for nn.LSTM: the lengths, which are data, go straight in."""

    def __init__(self):
        super().__init__()
        self.lstm = RaggedLSTM(3, 5)

    def forward(self, x, lengths):
        return self.lstm.last(x, lengths=lengths)[-1]


def test_lengths_are_data_in_an_exported_program():
    """pytorch#112044: pack_padded_sequence and pad_packed_sequence are not traced."""
    module, steps = Packing(), torch.export.Dim("steps")
    program = torch.export.export(
        module,
        (torch.randn(3, 6, 3), torch.tensor([6, 1, 3])),
        dynamic_shapes={"x": {1: steps}, "lengths": {}},
    )
    for lengths in ([6, 6, 6], [0, 9, 2]):
        x, given = torch.randn(3, 9, 3), torch.tensor(lengths)
        torch.testing.assert_close(program.module()(x, given), module(x, given), rtol=0, atol=1e-6)
