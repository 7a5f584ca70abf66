"""torch.onnx.export called by a user, with either exporter: right numbers at other sizes than those of the example."""

import warnings

import onnx
import pytest
import torch

from towers import PhraseConv, RaggedLSTM, Tower, TwoTowers, WordFeatures

from .test_export import SIZES, every_part, filled, session


@pytest.fixture(autouse=True)
def autocast_cache():
    """torch.onnx.export leaves autocast's cache switched off where what it traces is refused."""
    yield
    torch.set_autocast_cache_enabled(True)


both_exporters = pytest.mark.parametrize("dynamo", [False, True], ids=["older", "dynamo"])


def exported(module, arguments, axes, path, dynamo):
    """A session of the file; `axes` names the open axes of each argument, None is a fixed one."""
    names = [f"input_{place}" for place in range(len(arguments))]
    open_axes = [{place: axis for place, axis in enumerate(own) if axis} for own in axes]
    how = {"dynamic_shapes": tuple(open_axes)} if dynamo else {"dynamic_axes": dict(zip(names, open_axes, strict=True))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own code
        torch.onnx.export(module, arguments, path, input_names=names, dynamo=dynamo, verbose=False, **how)
    return session(path)


def run(opened, arguments):
    given = {one.name: value.numpy() for one, value in zip(opened.get_inputs(), arguments, strict=True)}
    return [torch.from_numpy(found) for found in opened.run(None, given)]


def pair(sentences, words, seed):
    """Ragged sentences whose padding is not a number, and their lengths; then sentences of four words."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, words + 1, (sentences,), generator=generator)
    left = torch.randn(sentences, words, 12, generator=generator)
    left[torch.arange(words) >= lengths.unsqueeze(1)] = torch.nan
    return left, torch.randn(sentences, 4, 12, generator=generator), lengths


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["older", "dynamo"])
def test_two_towers(tmp_path, dynamo):
    wide = {**SIZES, "bidirectional": True, "word_maximum": 3}
    model = filled(TwoTowers(Tower(**wide), Tower(4, reduce="mean", **wide), outputs=3)).eval()
    axes = [("batch", "words", None), ("batch", None, None), ("batch",)]
    opened = exported(model, pair(3, 7, 0), axes, tmp_path / "a.onnx", dynamo)
    for seed, (sentences, words) in enumerate([(1, 2), (0, 3), (5, 2), (2, 19), (33, 6)]):
        batch = pair(sentences, words, seed)
        torch.testing.assert_close(run(opened, batch)[0], model(*batch).detach(), rtol=0, atol=1e-5)
    for wrong in ([4, 1], [4, 6], [-1, 4]):
        with pytest.raises(Exception, match="indices element out of data bounds"):
            run(opened, [*pair(2, 5, 0)[:2], torch.tensor(wrong)])
    domains = {node.domain for node in onnx.load(tmp_path / "a.onnx").graph.node}
    assert domains == {""}


@both_exporters
def test_ragged_lstm(tmp_path, dynamo):
    """pytorch#191855, as its reporter did it: the time axis of two directions stays open with dynamo=True."""
    options = {"bidirectional": True, "bias": "single", "recurrent_activation": "hard_sigmoid_keras2"}

    class Called(torch.nn.Module):  # lengths have no place of their own in a call
        def __init__(self):
            super().__init__()
            self.lstm = RaggedLSTM(3, 5, **options)

        def forward(self, x, h_0, c_0, lengths):
            output, (h_n, c_n) = self.lstm(x, (h_0, c_0), lengths=lengths)
            return output, h_n, c_n

    def drawn(batch, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(2, module.lstm.state_rows, batch, 5, generator=generator)
        lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
        return torch.randn(batch, steps, 3, generator=generator), *states, lengths

    module = Called().eval()
    axes = [("batch", "steps", None), (None, "batch", None), (None, "batch", None), ("batch",)]
    opened = exported(module, drawn(3, 6, 0), axes, tmp_path / "a.onnx", dynamo)
    for seed, sizes in enumerate([(1, 1), (4, 9), (0, 2), (7, 1)]):
        batch = drawn(*sizes, seed)
        for found, wanted in zip(run(opened, batch), module(*batch), strict=True):
            torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-5)
    kinds = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    assert kinds.count("LSTM") == module.lstm.state_rows


@pytest.mark.slow
@both_exporters
def test_a_ragged_lstm_itself_in_the_order_of_its_axes(tmp_path, dynamo):
    lstm = RaggedLSTM(3, 5, batch_first=False).eval()
    opened = exported(lstm, (torch.randn(6, 2, 3),), [("steps", "batch", None)], tmp_path / "a.onnx", dynamo)
    x = torch.randn(4, 7, 3)
    output, state = lstm(x)
    for found, wanted in zip(run(opened, [x]), (output, *state), strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-5)


class WithLengths(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, lengths):
        return self.layer(x, lengths=lengths)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (RaggedLSTM(3, 5, proj_size=2), "ONNX's LSTM has no projection"),
        (RaggedLSTM(3, 5, num_layers=2, dropout=0.5), r"call model\.eval\(\) before torch\.onnx\.export"),
        (PhraseConv(3, 4), "takes lengths for Tower, TwoTowers and RaggedLSTM"),
        (WordFeatures(3, 4), "takes lengths for Tower, TwoTowers and RaggedLSTM"),
    ],
    ids=["projection", "dropout", "phrases", "words"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_exported_is_refused(tmp_path, layer, text):
    arguments = torch.randn(2, 4, 3), torch.tensor([4, 2])
    how = {"dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE}
    with pytest.raises(ValueError, match=text):
        torch.onnx.export(WithLengths(layer), arguments, tmp_path / "a.onnx", **how)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_an_opset_whose_operators_take_no_int64_is_refused(tmp_path):
    words = (torch.randn(2, 4, 3),)
    with pytest.raises(ValueError, match=r"exported to ONNX from opset 12 on \(opset_version is 11\)"):
        torch.onnx.export(RaggedLSTM(3, 5).eval(), words, tmp_path / "a.onnx", dynamo=False, opset_version=11)
    torch.onnx.export(RaggedLSTM(3, 5).eval(), words, tmp_path / "b.onnx", dynamo=False, opset_version=12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_dynamo_exporter_shows_why_it_is_refused(tmp_path):
    lstm = WithLengths(RaggedLSTM(3, 5, proj_size=2))
    with pytest.raises(Exception, match=r"(?s)Exception summary.*ValueError.*ONNX's LSTM has no projection"):
        torch.onnx.export(lstm, (torch.randn(2, 4, 3), torch.tensor([4, 2])), tmp_path / "a.onnx", dynamo=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_words_taken_over_steps_alone_are_refused(tmp_path):
    with pytest.raises(ValueError, match="takes a whole Tower"):
        torch.onnx.export(WordFeatures(3, 4), (torch.randn(2, 4, 3),), tmp_path / "a.onnx", dynamo=False)


@pytest.mark.slow
@both_exporters
def test_every_part(tmp_path, dynamo):
    model = every_part().eval()
    axes = [("batch", "left", None), ("batch", "right", None), ("batch",), ("batch",)]
    example, other = pair(3, 7, 0), pair(4, 9, 1)
    arguments = (example[0], example[1], example[2], torch.tensor([4, 2, 3]))
    opened = exported(model, arguments, axes, tmp_path / "a.onnx", dynamo)
    batch = (other[0], torch.randn(4, 6, 12), other[2], torch.tensor([6, 2, 3, 5]))
    torch.testing.assert_close(run(opened, batch)[0], model(*batch).detach(), rtol=0, atol=1e-5)
