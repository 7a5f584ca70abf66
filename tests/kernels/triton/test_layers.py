"""RaggedLSTM and the towers where the fused kernels serve them, against one sentence and one step at a time."""

import copy
from importlib.util import find_spec

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from towers import Ragged, RaggedLSTM, Tower, TwoTowers
from towers.contracts import checks
from towers.kernels import dispatch, triton
from towers.kernels.triton import lstm_narrow, lstm_wide, phrase_features, support

from ...helpers import reference
from .cases import close

LENGTHS = [3, 7, 2, 5, 2, 4]
WIDTH = 20


@pytest.fixture
def calls(monkeypatch):
    """Which operators ran."""
    seen: list[str] = []
    for module, name in (
        (lstm_narrow, "narrow_lstm"), (lstm_wide, "wide_lstm"),
        (phrase_features, "phrase_features"), (phrase_features, "phrase_lookup"),
    ):  # fmt: skip
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, real=real, name=name: (seen.append(name), real(*args))[1])
    return seen


@pytest.mark.parametrize("kind", ["padded", "ragged", "packed", "jagged", "one length"])
@pytest.mark.parametrize("hidden", [6, 17])
def test_every_kind_of_batch_through_the_layer(hidden, kind, served, calls):
    exact = reference.number_weights(RaggedLSTM(5, hidden, num_layers=2, bidirectional=True, dtype=torch.float64))
    layer = copy.deepcopy(exact).float().to(served)
    lengths = [4] * 6 if kind == "one length" else LENGTHS
    rows = reference.sentences(lengths, 5, torch.float32)
    on_device = [row.to(served) for row in rows]
    words, given = reference.pad(rows)
    if kind == "padded":
        output, (h_n, c_n) = layer(words.to(served), lengths=given.to(served))
        outputs = [output[index, :length] for index, length in enumerate(lengths)]
        assert all(not output[index, length:].any() for index, length in enumerate(lengths))
    elif kind == "packed":
        packed = pack_padded_sequence(words, given, batch_first=True, enforce_sorted=False).to(served)
        output, (h_n, c_n) = layer(packed)
        outputs = Ragged.from_packed(output).to_list()
    elif kind == "jagged":
        output, (h_n, c_n) = layer(torch.nested.nested_tensor(on_device, layout=torch.jagged))
        outputs = list(output.unbind())
    elif kind == "ragged":
        output, (h_n, c_n) = layer(Ragged.from_list(on_device))
        outputs = output.to_list()
    else:
        output, (h_n, c_n) = layer(words.to(served))
        outputs = list(output)
    assert calls == (["narrow_lstm", "wide_lstm"] if hidden == 6 else ["wide_lstm"] * 2)  # 6 + 6 inputs of layer 2
    zero = torch.zeros(4, hidden, dtype=torch.float64)
    for index, row in enumerate(rows):
        wanted, h, c = reference.lstm(row.double(), exact, zero, zero)
        close(outputs[index], wanted, 1e-5, "output")
        close(h_n[:, index], h, 1e-5, "h_n")
        close(c_n[:, index], c, 1e-5, "c_n")


def test_bfloat16_is_read_as_it_is_and_given_back(served, calls):
    layer = reference.number_weights(RaggedLSTM(5, 20)).bfloat16().to(served)
    rows = [row.to(served) for row in reference.sentences(LENGTHS, 5, torch.bfloat16)]
    output, (h_n, c_n) = layer(Ragged.from_list(rows))
    assert output.dtype == h_n.dtype == c_n.dtype == torch.bfloat16
    assert calls == ["wide_lstm"]
    zero = torch.zeros(1, 20, dtype=torch.float64)
    for index, row in enumerate(rows):
        _, h, _ = reference.lstm(row.cpu().double(), copy.deepcopy(layer).cpu().double(), zero, zero)
        close(h_n[:, index], h, 2e-2, "h_n")


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("layer", [RaggedLSTM(4, 129), RaggedLSTM(4, 6, proj_size=3), RaggedLSTM(4, 6).double()])
def test_what_has_no_kernel_takes_another_way(layer, served, calls):
    ragged = Ragged.from_list(reference.sentences(LENGTHS, 4, layer.weight_ih_l0.dtype)).to(served)
    layer = reference.number_weights(layer).to(served)
    output, _ = layer(ragged)
    assert not calls
    exact = copy.deepcopy(layer).cpu().double()
    zeros = [torch.zeros(1, width, dtype=torch.float64) for width in (exact.state_width, exact.hidden_size)]
    wanted, _, _ = reference.lstm(ragged.to_list()[1].cpu().double(), exact, *zeros)
    close(output.to_list()[1], wanted, 1e-4, "output")


def test_without_triton_another_way_is_taken(monkeypatch):
    """A GPU without Triton, or one that is too old, has a way too."""
    layer = reference.number_weights(RaggedLSTM(4, 6))
    ragged = Ragged.from_list(reference.sentences(LENGTHS, 4, torch.float32))
    wanted, _ = layer(ragged)
    monkeypatch.setattr(dispatch, "_on_device", lambda batch: True)
    assert not triton.runs_on(torch.device("cpu"))
    assert not triton.serves(dispatch.Batch(ragged.values, None, None, 1), layer._weights())
    assert layer.backend(ragged).name == "torch"
    found, _ = layer(ragged)
    torch.testing.assert_close(found.values, wanted.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("available", "capability", "hip", "wanted"),
    [(True, (9, 0), None, True), (True, (8, 0), None, True), (True, (7, 5), None, False), (False, (9, 0), None, False),
     (True, (9, 0), "6.0", False)],
    ids=["Hopper", "Ampere", "too old", "no Triton", "not NVIDIA's"],
)  # fmt: skip
def test_where_the_kernels_run(available, capability, hip, wanted, monkeypatch):
    monkeypatch.setattr(support, "find_spec", lambda name: object() if available else None)
    monkeypatch.setattr(torch.version, "cuda", None if hip else "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert triton.runs_on(torch.device("cuda")) is wanted
    assert not triton.runs_on(torch.device("cpu"))


def towers_of(dtype=torch.float32, **options) -> tuple[Tower, Tower]:
    """In float64 for the reference, and to be tested."""
    exact = reference.number_weights(Tower(vector_width=WIDTH, **options)).to(dtype).double()
    return exact, copy.deepcopy(exact).to(dtype)


def states(exact: Tower, rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([reference.tower(row, exact) for row in rows])


def kinds(rows, device):
    """The same sentences in every form: what goes into a tower, and the tensor that asks for a gradient."""
    padded_rows, lengths = reference.pad(rows)
    padded_rows = padded_rows.to(device).requires_grad_()
    yield (padded_rows, lengths.to(device)), padded_rows
    values = torch.cat(rows).to(device).requires_grad_()
    offsets = torch.tensor([0, *map(len, rows)]).cumsum(0).to(device)
    yield (Ragged(values, offsets),), values
    yield (torch.nested.nested_tensor_from_jagged(values, offsets),), values


SIZES = {
    "as in Keras": {},
    "three words": {"kernel_words": 3, "filters": 16, "pool": 2},
    "many units": {"hidden": 20},
    "in chunks": {"chunk": 2},
}


@pytest.mark.parametrize("options", SIZES.values(), ids=SIZES.keys())
def test_a_tower_from_vectors(options, served, calls):
    exact, tower = towers_of(**options)
    tower.to(served)
    lengths = [max(length, exact.kernel_words) for length in LENGTHS]
    rows = reference.sentences(lengths, WIDTH, torch.float32)
    exact_rows = [row.double().requires_grad_() for row in rows]
    wanted = states(exact, exact_rows)
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (wanted * upstream).sum().backward()
    for arguments, leaf in kinds(rows, served):
        calls.clear()
        tower.zero_grad()
        leaf.grad = None
        found = tower(*arguments)
        assert calls == ["phrase_features", "wide_lstm" if exact.lstm.hidden_size > 8 else "narrow_lstm"]
        close(found, wanted, 1e-5, "states")
        (found * upstream.float().to(served)).sum().backward()
        for name, parameter in exact.named_parameters():
            close(dict(tower.named_parameters())[name].grad, parameter.grad, 1e-4, f"gradient of {name}")
        gradient = leaf.grad.cpu().double()
        if leaf.dim() == 3:
            for index, row in enumerate(exact_rows):
                close(gradient[index, : len(row)], row.grad, 1e-4, "gradient of vectors")
                assert not gradient[index, len(row) :].any()
        else:
            close(gradient, torch.cat([row.grad for row in exact_rows]), 1e-4, "gradient of vectors")


@pytest.mark.parametrize("words", [7, 100], ids=["more tokens than words", "fewer"])
@pytest.mark.parametrize("trained", [False, True], ids=["fixed table", "trained table"])
def test_a_tower_from_ids(words, trained, served, calls):
    exact, tower = towers_of()
    tower.to(served)
    generator = torch.Generator().manual_seed(4)
    table = torch.randn(words, WIDTH, generator=generator)
    ids = torch.randint(0, words, (sum(LENGTHS),), generator=generator)
    exact_table = table.double().requires_grad_()
    wanted = states(exact, list(exact_table[ids].split(LENGTHS)))
    wanted.square().sum().backward()

    table = table.to(served).requires_grad_(trained)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    ragged = Ragged(ids, offsets).to(served).with_table(table)
    found = tower(ragged)
    assert calls[-1] == "narrow_lstm"
    found.square().sum().backward()
    close(found, wanted, 1e-5, "states")
    for name, parameter in exact.named_parameters():
        close(dict(tower.named_parameters())[name].grad, parameter.grad, 1e-4, f"gradient of {name}")
    if trained:
        close(table.grad, exact_table.grad, 1e-4, "gradient of table")

    calls.clear()
    with torch.no_grad():
        for _ in range(2):
            close(tower(ragged), wanted, 1e-5, "states")
            close(tower.encode(ragged), wanted, 1e-5, "states")
    assert calls == ["phrase_lookup", "narrow_lstm"] * 4, "every word is multiplied once, and kept"


def test_towers_in_bfloat16_and_under_autocast(served):
    exact, tower = towers_of(torch.bfloat16)
    rows = reference.sentences(LENGTHS, WIDTH, torch.bfloat16)
    ragged = Ragged.from_list(rows).to(served)
    found = tower.to(served)(ragged)
    assert found.dtype == torch.bfloat16
    close(found, states(exact, [row.double() for row in rows]), 2e-2, "states")
    exact, tower = towers_of()
    with torch.autocast(served.type, dtype=torch.bfloat16):
        found = tower.to(served)(Ragged.from_list(rows).to(served))
    close(found, states(exact, [row.double() for row in rows]), 2e-2, "states")


def test_both_towers(served, calls):
    exact = reference.number_weights(TwoTowers().double())
    model = copy.deepcopy(exact).float().to(served)
    left, right = reference.sentences(LENGTHS, 300, torch.float32), reference.sentences([5] * 6, 300, torch.float32, 1)
    padded_left, lengths = reference.pad(left)
    logits = model(padded_left.to(served), torch.stack(right).to(served), lengths.to(served))
    wanted = [reference.two_towers(a.double(), b.double(), exact) for a, b in zip(left, right, strict=True)]
    close(logits, torch.stack(wanted), 1e-4, "logits")
    assert calls == ["phrase_features", "narrow_lstm"] * 2


def test_who_listens_to_a_layer_hears_it(served):
    _, tower = towers_of()
    ragged = Ragged.from_list(reference.sentences(LENGTHS, WIDTH, torch.float32)).to(served)
    tower.to(served)
    assert tower._fused_backend(ragged) == "triton"
    heard = []
    with tower.pool.register_forward_hook(lambda *call: heard.append(call)):
        assert tower._fused_backend(ragged) == "torch"
        tower(ragged)
    assert heard


@pytest.mark.parametrize("options", [{"filters": 12}, {"filters": 256}, {"filters": 8}, {"filters": 32, "pool": 1}])
def test_sizes_that_have_kernels(options, served):
    _, tower = towers_of(**options)
    tower.to(served)
    ragged = Ragged.from_list(reference.sentences(LENGTHS, WIDTH, torch.float32)).to(served)
    assert (tower._fused_backend(ragged) == "triton") is (options["filters"] == 32)
    exact = copy.deepcopy(tower).cpu().double()
    close(tower(ragged), states(exact, [row.cpu().double() for row in ragged.to_list()]), 1e-4, "states")


def test_compiled_towers_are_one_graph(served):
    """For any number of sentences and words, with gradients."""
    exact, tower = towers_of()
    tower.to(served)
    graphs = []

    def backend(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes if "towers" in str(node.target)])
        return graph

    compiled = torch.compile(tower, fullgraph=True, dynamic=True, backend=backend)
    for lengths in (LENGTHS, [2, 5, 3], [3] * 8):
        rows = reference.sentences(lengths, WIDTH, torch.float32)
        words, given = reference.pad(rows)
        tower.zero_grad()
        found = compiled(words.to(served), given.to(served))
        found.square().sum().backward()
        exact.zero_grad()
        wanted = states(exact, [row.double() for row in rows])
        wanted.square().sum().backward()
        close(found, wanted, 1e-5, "states")
        for name, parameter in exact.named_parameters():
            close(dict(tower.named_parameters())[name].grad, parameter.grad, 1e-4, f"gradient of {name}")
    assert graphs == [["towers.phrase_features.default", "towers.narrow_lstm.default"]]


def test_exported_towers(served):
    model = reference.number_weights(TwoTowers()).to(served).eval()
    words, lengths = reference.pad(reference.sentences(LENGTHS, 300, torch.float32), padding=0.0)
    right = torch.stack(reference.sentences([5] * 6, 300, torch.float32, seed=1))
    given = [part.to(served) for part in (words, right, lengths)]
    batch, left_words = torch.export.Dim("batch"), torch.export.Dim("left_words", min=2)
    shapes = {"left": {0: batch, 1: left_words}, "right": {0: batch}, "left_lengths": {0: batch}}
    with torch.no_grad():
        program = torch.export.export(model, tuple(given), dynamic_shapes=shapes)
        assert "towers.narrow_lstm" in str(program.graph)
        fewer = [given[0][:4, :8].contiguous(), given[1][:4], given[2][:4]]
        close(program.module()(*fewer), model(*fewer).cpu().double(), 1e-6, "logits")


def test_the_compiler_takes_the_device_as_it_finds_it(monkeypatch):
    # `find_spec` cannot be traced: whether kernels run on a device is asked once, while compiling.
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (asked.append(device), (8, 0))[1])
    monkeypatch.setattr(support, "find_spec", lambda name: find_spec("torch"))
    compiled = torch.compile(
        lambda x: x + 1 if triton.runs_on(torch.device("cuda")) else x, fullgraph=True, backend="eager"
    )
    assert compiled(torch.zeros(1)) == 1
    assert compiled(torch.ones(1)) == 2
    assert asked == [torch.device("cuda")]


@pytest.mark.parametrize("hidden", [6, 17])
@pytest.mark.parametrize("count", [1, 3])
def test_too_few_or_too_many_lengths_are_refused_without_contracts(count, hidden, served):
    layer, lengths = RaggedLSTM(5, hidden).to(served), torch.ones(count, dtype=torch.int64, device=served)
    with checks("off"), pytest.raises(ValueError, match=r"expected \(2,\), one for each sentence"):
        layer.last(torch.zeros(2, 3, 5, device=served), lengths=lengths)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("hidden", [6, 17])
def test_gradients_of_two_biases_are_added_up_apart(hidden, bidirectional, served):
    layer = RaggedLSTM(5, hidden, bidirectional=bidirectional, device=served)
    words, found = torch.ones(2, 3, 5, device=served), []
    for _ in range(2):
        layer.last(words).sum().backward()
        found.append([parameter.grad.clone() for parameter in layer.parameters()])
    torch.testing.assert_close(found[1], [2 * gradient for gradient in found[0]])
