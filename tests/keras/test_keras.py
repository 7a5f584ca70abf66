"""Networks in files of Keras: read as Keras computes them, written so that they come back, and nothing else let in."""

import copy
import io
import json
import os
import random
import resource
import shutil
import warnings
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import towers.keras
from towers import PhraseConv, RaggedLSTM, Tower, TwoTowers
from towers.answers import Model
from towers.data import WordVectors
from towers.keras.graph import read_graph
from towers.keras.masks import mask_of
from towers.keras.read_network import convert
from towers.keras.recognise import recognise

VARIANTS = Path(__file__).parent / "variants.zip"
NAMES = ("sizes", "right_first", "shared_layers", "shared_model", "nested_sequential", "conv1d", "embedding",
         "hard_sigmoid", "lambdas", "no_bias", "operators", "logits", "channels", "no_pool",
         "head_model", "dict_inputs", "keras2_shared", "keras2_sequential", "keras2_pair")  # fmt: skip
LAMBDAS = {"lambdas": {"sqNone": "squeeze"}}
SHARED_FILES = ("model.keras", "model.keras2.h5", "model.keras3.h5", "model.weights.h5", "model.keras2.weights.h5")


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    with zipfile.ZipFile(VARIANTS) as archive:
        archive.extractall(folder)
    return folder


def outputs(converted, case) -> torch.Tensor:
    model, plan = converted.model, converted.plan
    left, right = (torch.from_numpy(case[side]) for side in ("left", "right"))
    if plan.left.embedding is not None:
        left, right = (F.embedding(ids.long().squeeze(2), case["table"]) for ids in (left, right))
    else:
        left, right = left.float(), right.float()
    return model.probability(left, right) if plan.probabilities else model(left, right)


def case_of(variants: Path, name: str) -> dict:
    with np.load(variants / f"{name}.npz") as arrays:
        case = dict(arrays)
    if name == "embedding":
        case["table"] = towers.keras.convert_layer(variants / "embedding.keras", "embedding").weight.detach()
    return case


@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5"])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_computes_what_it_did_in_keras(variants, name, ending):
    case = case_of(variants, name)
    whole = convert(variants / f"{name}.keras", None, LAMBDAS.get(name, {}))
    like = whole.model if ending == ".weights.h5" else None
    found = convert(variants / f"{name}{ending}", like, LAMBDAS.get(name, {}))
    plan = whole if like is not None else found
    given = towers.keras.read_network.Converted(found.model, plan.plan, ())
    torch.testing.assert_close(outputs(given, case), torch.from_numpy(case["output"]), rtol=0, atol=1e-6)
    assert float(case["output"].std()) > 1e-4


def test_an_unpacked_folder_is_read_too(variants, tmp_path):
    with zipfile.ZipFile(variants / "sizes.keras") as archive:
        archive.extractall(tmp_path / "sizes")
    found, wanted = towers.keras.load(tmp_path / "sizes"), towers.keras.load(variants / "sizes.keras")
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))


def test_what_is_shared_in_keras_is_shared_here(variants):
    for name in ("shared_layers", "shared_model", "keras2_shared"):
        model = towers.keras.load(variants / f"{name}.keras")
        assert model.left is model.right
    assert towers.keras.load(variants / "sizes.keras").right.words == 6


def test_remarks_tell_what_is_not_carried_over(variants):
    def remarks(name: str) -> str:
        return " ".join(convert(variants / f"{name}.keras", None, {}).remarks)

    assert "first input, 'zwei', is the right sentence" in remarks("right_first")
    assert "dropout" in remarks("logits")
    assert "without a sigmoid" in remarks("logits")
    assert "Dropout" in remarks("operators")
    assert remarks("sizes") == ""
    assert "'dense' (Dense): has no bias: dense.bias is zeros, and is not trained" in remarks("no_bias")
    assert "what is not trained is trained again in a model from a saved folder" in remarks("no_bias")


def test_load_warns_where_training_would_differ(variants, tmp_path):
    path = changed(variants / "sizes.keras", tmp_path / "a.keras", setting("lstm", "kernel_regularizer", {"l2": 0.5}))
    for file, told in (
        (path, "'lstm' .LSTM.: kernel_regularizer: acts in training only"),
        (variants / "operators.keras", "Dropout.: acts in training only"),
    ):
        with pytest.warns(UserWarning, match=told) as caught:
            towers.keras.load(file)
        assert len(caught) == 1
        assert caught[0].filename == __file__


def test_load_warns_where_a_call_differs(variants, tmp_path):
    def drawn(layers, config):
        layer = next(layer for layer in layers.values() if layer["class_name"] == "Dropout")
        layer["inbound_nodes"][0]["kwargs"] = {"training": True}

    path = changed(variants / "operators.keras", tmp_path / "a.keras", drawn)
    for file, told in (
        (variants / "right_first.keras", "right_first.keras: the file's first input, 'zwei', is the right sentence"),
        (variants / "logits.keras", "ends without a sigmoid: TwoTowers.forward is its output"),
        (path, "(Dropout): was called with training=True: in Keras model(x) draws at random"),
    ):
        with warnings.catch_warnings(record=True, action="always") as caught:
            towers.keras.load(file)
        assert [told in str(entry.message) for entry in caught].count(True) == 1
        assert {entry.filename for entry in caught} == {__file__}
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    graph = read_graph(config, "a.h5")
    with pytest.raises(ValueError, match=r"Dropout.: was called with training=True, so that Keras 1 and 2 draw"):
        recognise(graph, {}, 2)


def test_half_precision_in_keras_is_said(variants, tmp_path):
    policies = ("mixed_float16", {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "mixed_bfloat16"}})
    for policy, name in zip(policies, ("mixed_float16", "mixed_bfloat16"), strict=True):
        path = changed(variants / "sizes.keras", tmp_path / f"{name}.keras", setting("lstm", "dtype", policy))
        with pytest.warns(
            UserWarning, match=rf"compute in half precision in Keras \({name}\), and here in the dtype of"
        ):
            towers.keras.load(path)
        with pytest.warns(UserWarning, match=rf"'lstm' .*half precision in Keras \({name}\)") as caught:
            towers.keras.convert_layer(path, "lstm")
        assert [entry.filename for entry in caught] == [__file__]


def test_what_is_loaded_is_in_evaluation(tmp_path):
    towers.keras.save(TwoTowers(dropout=0.5), tmp_path / "a.keras")
    model = towers.keras.load(tmp_path / "a.keras")
    assert not any(part.training for part in model.modules())
    assert model.dropout.p == 0.5


def test_a_model_of_towers_load_is_refused_with_what_to_do(tmp_path):
    model = Model(TwoTowers(), WordVectors(["tea"], torch.ones(1, 300)))
    for call in (
        lambda: towers.keras.save(model, tmp_path / "a.keras"),
        lambda: towers.keras.load(tmp_path / "a.keras", like=model),
        lambda: towers.keras.load_optimizer(tmp_path / "a.keras", model),
    ):
        with pytest.raises(TypeError, match=r"(model|like) is Model; a TwoTowers belongs there: give its network"):
            call()
    with pytest.raises(TypeError, match=r"model is int; a TwoTowers belongs there$"):
        towers.keras.save(3, tmp_path / "a.keras")
    assert not list(tmp_path.iterdir())


# The network of the original, in every format (files made by Keras, beside the repository).


@pytest.mark.parametrize("name", SHARED_FILES)
def test_every_format_of_the_original_network_agrees(shared, name):
    model = towers.keras.load(shared / "keras" / name, like=TwoTowers() if "weights" in name else None)
    with np.load(shared / "keras" / "cases.npz") as arrays:
        for words in (2, 3, 4, 5, 7, 10, 33):
            left, right, wanted = (
                torch.from_numpy(arrays[f"n{words}/{part}"]) for part in ("left", "right", "probability")
            )
            torch.testing.assert_close(model.probability(left, right), wanted[:, 0], rtol=0, atol=1e-6)


def test_training_goes_on_where_keras_stopped(shared):
    # By hand: Keras 3.15.1 (JAX) with its Adam's 30 variables set to the file's, fit for 2 epochs in file order, gives
    # these probabilities for the first five pairs.
    path = shared / "keras" / "model_after_training.keras"
    model = towers.keras.load(path)
    optimizer = towers.keras.load_optimizer(path, model, kind="adam")
    with np.load(shared / "keras" / "training.npz") as arrays:
        left, right, label = (torch.from_numpy(arrays[name]) for name in ("left", "right", "label"))
    for _ in range(2):
        for start in range(0, 100, 5):
            rows = slice(start, start + 5)
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(left[rows], right[rows]), label[rows]).backward()
            optimizer.step()
    assert int(optimizer.state[model.dense.weight]["step"]) == 100
    torch.testing.assert_close(model.probability(left, right)[:5], torch.tensor(AFTER_TWO_EPOCHS), rtol=0, atol=2e-5)


AFTER_TWO_EPOCHS = [0.4012022, 0.4194314, 0.4354371, 0.3926085, 0.4392702]


# Out, and back.


def numbered(model: TwoTowers) -> TwoTowers:
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data = (
            torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype) * 0.3
        )
    return model


def shared_towers() -> TwoTowers:
    tower = Tower(vector_width=8, filters=6, pool=3, hidden=5, kernel_words=3)
    return TwoTowers(tower, tower, dense=4)


MODELS = {
    "the usual": TwoTowers,
    "fixed on the left": lambda: TwoTowers(Tower(7, vector_width=8, filters=6, pool=3, hidden=5, kernel_words=3),
                                           Tower(vector_width=12, filters=4, pool=1, hidden=5), dense=3),
    "shared": shared_towers,
    "float64": lambda: TwoTowers(dtype=torch.float64),
    "float16": lambda: TwoTowers(dtype=torch.float16),
}  # fmt: skip


@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5"])
@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_is_bit_for_bit(tmp_path, name, ending):
    model = numbered(MODELS[name]())
    towers.keras.save(model, tmp_path / f"a{ending}")
    back = towers.keras.load(tmp_path / f"a{ending}", like=model if ending == ".weights.h5" else None)
    assert (back.left is back.right) == (model.left is model.right)
    assert back.left.config() == model.left.config()
    assert back.right.config() == model.right.config()
    for (name, wanted), found in zip(model.state_dict().items(), back.state_dict().values(), strict=True):
        assert torch.equal(wanted, found), name
        assert wanted.dtype == found.dtype
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


def test_what_keras_cannot_hold_is_not_written(tmp_path):
    model = TwoTowers()
    with pytest.raises(ValueError, match=r"must end in \.keras, \.weights\.h5 or \.h5"):
        towers.keras.save(model, tmp_path / "a.npz")
    with pytest.raises(ValueError, match="bfloat16"):
        towers.keras.save(TwoTowers(dtype=torch.bfloat16), tmp_path / "a.keras")
    other = TwoTowers(Tower(reduce="max"), Tower(5, reduce="max"), outputs=3)
    with pytest.raises(
        ValueError, match=r"a\.keras: .* has not: outputs=3, left reduce='max', right reduce='max'; only"
    ):
        towers.keras.save(other, tmp_path / "a.keras")
    model.left.pool = nn.Identity()
    with pytest.raises(ValueError, match="left: one of its layers was replaced"):
        towers.keras.save(model, tmp_path / "a.keras")
    model = TwoTowers()
    model.dense.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        towers.keras.save(model, tmp_path / "a.keras")
    with pytest.raises(OSError, match="no_folder"):
        towers.keras.save(TwoTowers(), tmp_path / "no_folder" / "a.keras")
    assert not list(tmp_path.iterdir())


# One layer.


def test_single_layers_compute_what_keras_does(variants):
    file = variants / "sizes.keras"
    conv, lstm = towers.keras.convert_layer(file, "conv2d"), towers.keras.convert_layer(file, "lstm")
    model = towers.keras.load(file)
    assert isinstance(conv, PhraseConv)
    assert torch.equal(conv.weight, model.left.conv.weight)
    assert isinstance(lstm, RaggedLSTM)
    assert torch.equal(lstm.weight_hh_l0, model.left.lstm.weight_hh_l0)
    with pytest.warns(UserWarning, match="activation 'relu' is not part of nn.Linear"):
        dense = towers.keras.convert_layer(file, "dense")
    assert torch.equal(dense.weight, model.dense.weight)
    assert tuple(towers.keras.convert_layer(variants / "embedding.h5", "embedding").weight.shape) == (20, 8)
    with pytest.raises(ValueError, match=r"has 0 layers 'lstm_9'; it has .*lstm_1"):
        towers.keras.convert_layer(file, "lstm_9")
    with pytest.raises(ValueError, match=r"'subtract' .Subtract.: is not converted"):
        towers.keras.convert_layer(file, "subtract")


def test_a_layer_keeps_the_dtype_of_the_file(tmp_path):
    model = TwoTowers(dtype=torch.float64)
    towers.keras.save(model, tmp_path / "a.keras")
    for name in ("left_conv", "left_lstm", "logit"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = towers.keras.convert_layer(tmp_path / "a.keras", name)
        assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}


def sequential(path: Path, *layers: tuple[str, dict], version: str = "3.15.1", **arrays: list) -> Path:
    """A .h5 of a Sequential, with the arrays of its layers."""
    entries = [{"class_name": kind, "config": config} for kind, config in layers]
    start = {"class_name": "InputLayer", "config": {"name": "words", "batch_input_shape": [None, None, 4]}}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": [start, *entries]}})
        for name, own in arrays.items():
            group = file.create_group(f"model_weights/{name}")
            group.attrs["weight_names"] = [str(place) for place in range(len(own))]
            for place, array in enumerate(own):
                group[str(place)] = array
    return path


@pytest.mark.parametrize(
    ("version", "gates"),
    [("1.2.2", "hard_sigmoid_keras2"), ("2.2.4", "hard_sigmoid_keras2"), ("3.0.1", "hard_sigmoid")],
)
def test_a_layer_keeps_its_gates(tmp_path, version, gates):
    config = {"units": 3, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True}
    both = {"name": "both", "merge_mode": "concat", "layer": {"class_name": "LSTM", "config": config}}
    kept = RaggedLSTM(4, 3, bias="single", bidirectional=True, recurrent_activation=gates)
    turned = [part.detach().numpy().T for part in kept.parameters()]
    layers = (("LSTM", config | {"name": "one"}), ("Bidirectional", both))
    path = sequential(tmp_path / "a.h5", *layers, version=version, one=turned[:3], both=turned)
    one, two = (towers.keras.convert_layer(path, name) for name in ("one", "both"))
    assert one.recurrent_activation == two.recurrent_activation == gates
    words = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(two(words)[0], kept(words)[0], rtol=0, atol=0)
    torch.testing.assert_close(one(words)[0], kept(words)[0][..., :3], rtol=0, atol=1e-6)


def test_layers_of_a_model_inside_are_found_by_their_names(variants, tmp_path):
    shutil.copy(variants / "nested_sequential.h5", tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        inside = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Sequential")
        frozen = next(layer for layer in inside["config"]["layers"] if layer["class_name"] == "Conv2D")
        frozen["config"]["trainable"] = False
        file.attrs["model_config"] = json.dumps(config)
        attrs = file[f"model_weights/{inside['config']['name']}"].attrs
        names = list(attrs["weight_names"])
        attrs["weight_names"] = names[2:] + names[:2]  # as Keras does: what is frozen comes last
    found, wanted = towers.keras.load(tmp_path / "a.h5"), towers.keras.load(variants / "nested_sequential.h5")
    for name, value in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    assert not_trained(found) == ["left.conv.weight", "left.conv.bias"]
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        group = file[f"model_weights/{inside['config']['name']}"]
        for number, name in enumerate(names):
            group[str(number)] = group[name][()]
        group.attrs["weight_names"] = [str(number) for number in range(len(names))]
    with pytest.raises(ValueError, match=r"has 5 arrays, none of them named after layer 'conv2d' .*is frozen"):
        towers.keras.load(tmp_path / "a.h5")


def test_states_and_other_outputs_beside_a_layer_change_nothing(variants, tmp_path):
    def with_state(layers, config):
        layers["lstm"]["config"]["return_state"] = True

    def used(layers, config):
        with_state(layers, config)
        config["config"]["output_layers"] = [["dense_1", 0, 0], ["lstm", 0, 2]]

    wanted = towers.keras.load(variants / "sizes.keras")
    found = towers.keras.load(changed(variants / "sizes.keras", tmp_path / "a.keras", with_state))
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))
    path = changed(variants / "sizes.keras", tmp_path / "b.keras", used)
    assert torch.equal(towers.keras.convert_layer(path, "lstm").weight_hh_l0, wanted.left.lstm.weight_hh_l0)
    with pytest.raises(ValueError, match="has 2 outputs"):
        towers.keras.load(path)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_kernel_that_is_narrower_than_a_word_is_no_phrase(variants, tmp_path, ending):
    def wider(layers, config):
        layers["conv2d"]["build_config"]["input_shape"][2] = 13

    if ending == ".keras":
        path = changed(variants / "sizes.keras", tmp_path / "a.keras", wider)
    else:
        path = shutil.copy(variants / "sizes.h5", tmp_path / "a.h5")
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            config["config"]["layers"][0]["config"]["batch_shape"][2] = 13
            file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(
        ValueError, match=r"'conv2d' .Conv2D.: its kernel is 12 wide, its input 13; a phrase takes whole"
    ):
        towers.keras.convert_layer(path, "conv2d")


MASKED = r"may be given the mask of layer '{}' .*lengths= says where"


def test_a_masked_layer_is_refused(variants, tmp_path):
    masking = ("Masking", {"name": "skip", "mask_value": 0.0})
    lstm = {"units": 3, "activation": "tanh", "recurrent_activation": "sigmoid", "name": "one"}
    both = ("Bidirectional", {"name": "both", "layer": {"class_name": "LSTM", "config": lstm}})
    sequences = ("LSTM", lstm | {"return_sequences": True})
    path = sequential(tmp_path / "a.h5", masking, ("Dropout", {"name": "drop"}), sequences, both)
    for name in ("one", "both"):
        with pytest.raises(ValueError, match=f"'{name}' .*{MASKED.format('skip')}"):
            towers.keras.convert_layer(path, name)
    path = changed(variants / "embedding.keras", tmp_path / "b.keras", setting("embedding", "mask_zero", True))
    with pytest.raises(ValueError, match=MASKED.format("embedding")):
        towers.keras.convert_layer(path, "lstm")
    with pytest.raises(ValueError, match="mask_zero is True: masks are not followed"):
        towers.keras.convert_layer(path, "embedding")


def test_masks_are_followed_through_models_until_a_last_state():
    def entry(kind, name, *feeds, **config):
        return {"class_name": kind, "name": name, "config": config, "inbound_nodes": [list(feeds)] if feeds else []}

    table = entry("Embedding", "table", mask_zero=True, batch_input_shape=[None, None])
    front = entry("Sequential", "front", ["ids", 0, 0, {}]) | {"config": {"name": "front", "layers": [table]}}
    first = entry("LSTM", "first", return_sequences=False)
    again = entry("RepeatVector", "again")
    second = entry("LSTM", "second", return_sequences=True)
    inside = entry("InputLayer", "inside", batch_input_shape=[None, None, 4])
    back = entry("Sequential", "back", ["front", 0, 0, {}])
    back["config"] = {"name": "back", "layers": [inside, first, again, second]}
    given = entry("LSTM", "given", ["back", 0, 0, {"mask": ["ids", 0, 0]}])
    layers = [entry("InputLayer", "ids", batch_input_shape=[None, None]), front, back, given]
    ends = {"input_layers": [["ids", 0, 0]], "output_layers": [["given", 0, 0]]}
    graph = read_graph({"class_name": "Model", "config": {"layers": layers, **ends}}, "a file")
    found = {layer.name: mask_of(graph, layer) for layer in graph.all_layers()}
    assert {name: layer and layer.name for name, layer in found.items() if name in ("first", "second", "given")} == {
        "first": "table",
        "second": None,
        "given": "given",
    }


# Other networks, and other files: what differs is said, with the layer.


def changed(source: Path, target: Path, change) -> Path:
    """The .keras with its config changed."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as out:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename == "config.json":
                config = json.loads(content)
                change({layer["name"]: layer for layer in config["config"]["layers"]}, config)
                content = json.dumps(config).encode()
            out.writestr(entry, content)
    return target


def setting(layer: str, name: str, value):
    def change(layers, config):
        layers[layer]["config"][name] = value

    return change


def kind(layer: str, class_name: str):
    def change(layers, config):
        layers[layer]["class_name"] = class_name

    return change


REFUSED = {
    "LSTM's activation": (setting("lstm", "activation", "relu"), "'lstm' .LSTM.: activation is 'relu'"),
    "gates": (
        setting("lstm", "recurrent_activation", "tanh"),
        "recurrent_activation is 'tanh', which no layer of ours has; 'sigmoid' or 'hard_sigmoid' belongs there",
    ),
    "backwards": (setting("lstm", "go_backwards", True), "go_backwards is True"),
    "stateful": (setting("lstm_1", "stateful", True), "'lstm_1' .LSTM.: stateful is True"),
    "sequences": (setting("lstm", "return_sequences", True), "return_sequences is True"),
    "GRU": (kind("lstm", "GRU"), "'lstm' .GRU.: has no place there"),
    "pooling over time": (setting("max_pooling1d", "data_format", "channels_last"), "takes it over time"),
    "average": (kind("max_pooling1d", "AveragePooling1D"), "AveragePooling1D.: has no place there"),
    "overlapping pool": (setting("max_pooling1d", "strides", [1]), "groups that overlap"),
    "pool that leaves a rest": (setting("max_pooling1d", "pool_size", [4]), "strides are 5, pool_size is 4"),
    "relu of the convolution": (setting("conv2d", "activation", "relu"), "'conv2d' .Conv2D.: activation is 'relu'"),
    "padding": (setting("conv2d", "padding", "same"), "padding is 'same'"),
    "strides": (setting("conv2d", "strides", [2, 1]), "strides is .2, 1."),
    "narrow kernel": (setting("conv2d", "kernel_size", [3, 5]), "its kernel is 5 wide, a word vector is 12"),
    "head's activation": (setting("dense", "activation", "tanh"), "'dense' .Dense.: activation is 'tanh'"),
    "classes": (setting("dense_1", "units", 3), "has 3 units"),
    "softmax": (setting("dense_1", "activation", "softmax"), "activation 'softmax'"),
    "sum": (kind("subtract", "Add"), "two towers meet in Subtract"),
    "a setting of the future": (setting("lstm", "peephole", True), "peephole is True"),
    "another module": (lambda layers, config: layers["lstm"].update(module="evil.layers"), "never imported"),
    "a registered class": (lambda layers, config: layers["lstm"].update(registered_name="mine>LSTM"), "never imported"),
    "TorchModuleWrapper": (kind("lstm", "TorchModuleWrapper"), "TorchModuleWrapper.: has no place there"),
    "TFSMLayer": (kind("conv2d", "TFSMLayer"), "TFSMLayer.: has no place there"),
    "Masking": (kind("reshape", "Masking"), "Masking.: has no place there"),
    "a tower that is fed twice": (lambda layers, config: layers["subtract"]["inbound_nodes"][0]["args"][0].__setitem__(1, layers["subtract"]["inbound_nodes"][0]["args"][0][0]), "feeds both towers"),
    "mask": (lambda layers, config: layers["lstm"]["inbound_nodes"][0]["kwargs"].update(mask=layers["squeeze"]["inbound_nodes"][0]["args"]), "'lstm' .LSTM.: has 2 inputs, mask among them"),
    "another output": (lambda layers, config: config["config"].update(output_layers=[["lstm", 0, 1]]), "'lstm' .LSTM.: its output 1 is used, such as a state of return_state=True"),
    "no layer of the name": (lambda layers, config: config["config"].update(output_layers=[["nothing", 0, 0]]), "no layer 'nothing'"),
    "a circle": (lambda layers, config: layers["conv2d"].update(inbound_nodes=layers["squeeze"]["inbound_nodes"]), "circle|has no place|Conv2D"),
    "no Functional": (lambda layers, config: config.update(class_name="Evil", registered_name=None), "holds a Evil"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_another_network_is_refused_with_what_differs(variants, tmp_path, name):
    change, message = REFUSED[name]
    path = changed(variants / "sizes.keras", tmp_path / "a.keras", change)
    with pytest.raises(ValueError, match=message) as caught:
        towers.keras.load(path)
    assert str(path) in str(caught.value)


def test_weights_alone_need_like(variants):
    with pytest.raises(ValueError, match=r"\(conv2d: \(3, 12, 1, 10\), \(10,\).*Give like=TwoTowers"):
        towers.keras.load(variants / "sizes.weights.h5")
    with pytest.raises(ValueError, match=r"its left tower \(conv2d, lstm\) has vector_width 12, like has 300"):
        towers.keras.load(variants / "sizes.weights.h5", like=TwoTowers())
    with pytest.raises(ValueError, match=r"left tower has vector_width 12, like has 300"):
        towers.keras.load(variants / "sizes.keras", like=TwoTowers())


SIZES = {"vector_width": 12, "kernel_words": 3, "filters": 10, "pool": 5, "hidden": 4}


def like(head=None, **sizes) -> TwoTowers:
    """A network of the sizes of the variant "sizes", but for these."""
    sizes = SIZES | sizes
    return TwoTowers(Tower(**sizes), Tower(6, **sizes), **{"dense": 7, **(head or {})})


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bidirectional": True}, "like has parts that no network of Keras has here: left bidirectional=True"),
        ({"reduce": "max"}, "like has parts .*: left reduce='max', right reduce='max'"),
        ({"filters": None, "pool": 1, "kernel_words": 1}, "like has parts .*: left filters=None"),
        ({"head": {"features": ("absolute difference",)}}, r"like has parts .*: features=\['absolute difference'\]"),
        ({"head": {"outputs": 3}}, "like has parts .*: outputs=3"),
        ({"head": {"dense": 8}}, "like has (dense=)?8"),
        ({"kernel_words": 2}, "kernel_words 3, like has 2"),
        ({"hidden": 5}, "hidden 4, like has 5"),
        ({"pool": 2}, "pool 5, like has 2"),
    ],
)
def test_like_of_another_network_is_refused(variants, ending, change, told):
    path = variants / f"sizes{ending}"
    towers.keras.load(path, like=like())
    with pytest.raises(ValueError, match=told) as caught:
        towers.keras.load(path, like=like(**change))
    assert str(path) in str(caught.value)


def test_like_beside_a_file_that_says_it_itself_must_agree(variants):
    for other, told in (
        (like(recurrent_activation="hard_sigmoid"), "has recurrent_activation sigmoid, like has hard_sigmoid"),
        (like({"dropout": 0.5}), r"dropout is 0\.0, like has 0\.5"),
        (TwoTowers(*[Tower(**SIZES)] * 2, dense=7), "has two towers, like has one tower for both sentences"),
    ):
        with pytest.raises(ValueError, match=told):
            towers.keras.load(variants / "sizes.keras", like=other)


def test_every_dropout_of_like_is_taken_over(variants):
    rates = {"dropout": 0.1, "dense_dropout": 0.2, "word_dropout": 0.3}
    model = towers.keras.load(variants / "sizes.weights.h5", like=like(rates))
    assert {name: getattr(model, name).p for name in rates} == rates


@pytest.mark.parametrize("gates", [1, 3])
def test_other_recurrent_layers_are_no_lstm_in_weights_alone(variants, tmp_path, gates):
    path = tmp_path / "a.weights.h5"
    shutil.copy(variants / "sizes.weights.h5", path)
    with h5py.File(path, "r+") as file:
        for place, shape in enumerate([(2, 4 * gates), (4, 4 * gates), (4 * gates,)]):
            replaced(f"layers/lstm/cell/vars/{place}", data=np.zeros(shape, "f4"))(file)
    with pytest.raises(ValueError, match=r"has 1 layers of the kind LSTM \(lstm_1\); like has 2; other layers: lstm$"):
        towers.keras.load(path, like=like())


def moved(file, source: str, target: str):
    file.move(source, target)


def renamed(file, *places: str):
    """Two layers with the names of each other."""
    groups = [file[f"{place}/vars"].attrs for place in places]
    names = [attrs["name"] for attrs in groups]
    for attrs, name in zip(groups, reversed(names), strict=True):
        attrs["name"] = name


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("nested_sequential", lambda file: moved(file, "layers/sequential_1", "layers/functional"),
         "which of layers/functional/layers/conv2d and layers/sequential/layers/conv2d belongs to the left tower"),
        ("sizes", lambda file: moved(file, "layers/lstm_1", "layers/functional/layers/lstm"),
         "which of layers/functional/layers/lstm and layers/lstm belongs to the left tower"),
        ("sizes", lambda file: renamed(file, "layers/conv2d", "layers/conv2d_1"),
         "come in the order conv2d_1, conv2d and lstm, lstm_1: which of them are one tower"),
        ("sizes", lambda file: moved(file, "layers/conv2d_1", "right"),
         r"1 layers of the kind Conv \(conv2d\); like has 2; right belong to a class of its own"),
        ("sizes", lambda file: replaced("layers/dense/vars/0", data=np.zeros((1, 2, 3, 4, 5), "i1"))(file),
         r"1 layers of the kind Dense \(dense_1\); like has 2; other layers: dense"),
    ],
    ids=["a model of another class", "one inside a model", "another depth", "a class of its own", "quantized"],
)  # fmt: skip
def test_weights_alone_whose_towers_cannot_be_told_apart_are_refused(variants, tmp_path, name, change, message):
    path = tmp_path / "a.weights.h5"
    shutil.copy(variants / f"{name}.weights.h5", path)
    like = towers.keras.load(variants / f"{name}.keras")
    towers.keras.load(path, like=like)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=message) as caught:
        towers.keras.load(path, like=like)
    assert str(path) in str(caught.value)


def test_a_lambda_is_read_by_the_users_word_only(variants, tmp_path):
    with pytest.raises(
        ValueError, match=r"'sqNone' .Lambda.: is code, which is not read; .*lambdas=\{\"sqNone\": \"squeeze\"\}"
    ):
        towers.keras.load(variants / "lambdas.keras")
    with pytest.raises(ValueError, match=r"lambdas: 'sqNone' is 'run'; one of squeeze"):
        towers.keras.load(variants / "lambdas.keras", lambdas={"sqNone": "run"})
    with pytest.raises(ValueError, match="lambdas: 'sq' is no Lambda layer of the file; its Lambda layers: sqNone"):
        towers.keras.load(variants / "lambdas.keras", lambdas={"sqNone": "squeeze", "sq": "squeeze"})
    with pytest.raises(ValueError, match=r"'sq' is no Lambda layer of the file; it has none, .*: .*conv2d, .*lstm"):
        towers.keras.load(variants / "sizes.keras", lambdas={"sq": "squeeze"})
    with pytest.raises(TypeError, match="lambdas is 'squeeze'; a dict from names of Lambda layers"):
        towers.keras.load(variants / "lambdas.keras", lambdas="squeeze")


def test_code_in_a_lambda_leaves_no_mark(variants, tmp_path):
    import base64
    import marshal

    mark = tmp_path / "mark"
    code = compile(f"lambda x: open({str(mark)!r}, 'w')", "evil", "eval").co_consts[0]
    evil = base64.b64encode(marshal.dumps(code)).decode()

    def change(layers, config):
        layers["sqNone"]["config"]["function"]["config"]["code"] = evil

    path = changed(variants / "lambdas.keras", tmp_path / "a.keras", change)
    for lambdas in ({}, {"sqNone": "squeeze"}):
        try:
            towers.keras.load(path, lambdas=lambdas)
        except ValueError:
            assert not lambdas
    assert not mark.exists()


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, content: dict[str, bytes], compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def with_weights(source: Path, target: Path, change) -> Path:
    """The .keras with its HDF5 part changed by h5py."""
    content = members(source)
    buffer = io.BytesIO(content["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        change(file)
    return written(target, content | {"model.weights.h5": buffer.getvalue()})


def replaced(place: str, **options):
    def change(file):
        array = np.asarray(file[place])
        del file[place]
        file.create_dataset(place, **({"data": array} | options))

    return change


def external(file):
    shape = file["layers/dense/vars/1"].shape
    del file["layers/dense/vars/1"]
    file.create_dataset("layers/dense/vars/1", shape, "f4", external=[("/etc/passwd", 0, 28)])


def virtual(file):
    shape = file["layers/dense/vars/1"].shape
    del file["layers/dense/vars/1"]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape)
    file.create_virtual_dataset("layers/dense/vars/1", layout)


def link(target):
    def change(file):
        del file["layers/dense/vars/1"]
        file["layers/dense/vars/1"] = target

    return change


BAD_WEIGHTS = {
    "external": (external, "dense/vars/1"),
    "virtual": (virtual, "dense/vars/1"),
    "soft link": (link(h5py.SoftLink("/layers/dense_1/vars/1")), "it is a link"),
    "external link": (link(h5py.ExternalLink("/etc/passwd", "/x")), "it is a link|damaged"),
    "chunked": (replaced("layers/dense/vars/0", chunks=(1, 1)), "in chunks"),
    "compressed": (replaced("layers/dense/vars/0", compression="gzip"), "in chunks, compressed"),
    "another shape": (replaced("layers/dense/vars/0", data=np.zeros((4, 8), "f4")), r"has shape \(4, 8\); \(4, 7\) belongs"),
    "text": (replaced("layers/dense/vars/0", data=np.full((4, 7), b"x")), "dtype"),
    "complex": (replaced("layers/dense/vars/0", data=np.zeros((4, 7), "c8")), "dtype"),
    "NaN": (replaced("layers/dense/vars/0", data=np.full((4, 7), np.nan, "f4")), "not finite"),
    "another dtype": (replaced("layers/dense/vars/0", data=np.zeros((4, 7), "f8")), "float32 and float64"),
    "missing": (lambda file: file.__delitem__("layers/lstm/cell/vars/2"), "2 arrays; 3 belong"),
    "one too many": (lambda file: file.create_dataset("layers/dense/vars/2", data=np.zeros(3)), "3 arrays; 2 belong"),
    "of another layer": (lambda file: file["layers/dense/vars"].attrs.__setitem__("name", "x"), "belongs to layer 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_that_keras_does_not_write_are_refused(variants, tmp_path, name):
    change, message = BAD_WEIGHTS[name]
    path = with_weights(variants / "sizes.keras", tmp_path / "a.keras", change)
    with pytest.raises(ValueError, match=message) as caught:
        towers.keras.load(path)
    assert str(path) in str(caught.value)


def test_shape_bombs_cost_nothing(variants, tmp_path):
    def bomb(file):
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", (1 << 20, 1 << 20), "f4", chunks=(1, 1 << 10))

    path = with_weights(variants / "sizes.keras", tmp_path / "a.keras", bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="has shape"):
        towers.keras.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def bomb(path: Path, content: dict[str, bytes], member: str) -> Path:
    """The archive with a GiB of zeros behind one member: 64 times the same deflated 16 MiB (its CRC is left wrong)."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = deflate.compress(content[member]) + deflate.flush(zlib.Z_FULL_FLUSH)
    zeros = deflate.compress(bytes(1 << 24)) + deflate.flush(zlib.Z_FULL_FLUSH)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, start + zeros * 64 + deflate.flush() if name == member else data)
        entry = archive.getinfo(member)
        entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, len(content[member]) + (1 << 30)
    return path


def test_zip_bombs_cost_nothing(variants, tmp_path):
    path = bomb(tmp_path / "a.keras", members(variants / "sizes.keras"), "model.weights.h5")
    assert path.stat().st_size < 2 << 20
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
        assert file.read(8) == b"\x89HDF\r\n\x1a\n"
        file.seek(1 << 25)
        assert file.read(9) == bytes(9), "it is what it says"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"model\.weights\.h5 expands to 1,0.* bytes; at most"):
        towers.keras.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_members_are_read_by_name_and_nothing_is_written(variants, tmp_path):
    content = members(variants / "sizes.keras") | {"../../outside": b"x", "/tmp/outside": b"x", "assets/a": b"x"}
    (tmp_path / "in").mkdir()
    path = written(tmp_path / "in" / "a.keras", content)
    towers.keras.load(path)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["in", "a.keras"]


def test_archives_that_are_none_say_what_they_lack(variants, tmp_path):
    content = members(variants / "sizes.keras")
    npz = {name: data for name, data in content.items() if "weights" not in name} | {"model.weights.npz": b"x"}
    with pytest.raises(ValueError, match=r"model\.weights\.npz, pickled arrays.*model\.save"):
        towers.keras.load(written(tmp_path / "npz.keras", npz))
    with pytest.raises(ValueError, match=r"no member config\.json"):
        towers.keras.load(written(tmp_path / "a.keras", {"model.weights.h5": content["model.weights.h5"]}))
    with pytest.raises(ValueError, match=r"no member model\.weights\.h5"):
        towers.keras.load(written(tmp_path / "b.keras", {"config.json": content["config.json"]}))
    with pytest.raises(ValueError, match="nested too deep"):
        towers.keras.load(written(tmp_path / "c.keras", content | {"config.json": b"[" * 200_000}))
    with pytest.raises(ValueError, match="files of Keras 1, 2 and 3 are read"):
        towers.keras.load(written(tmp_path / "d.keras", content | {"metadata.json": b'{"keras_version": "9.1"}'}))
    (tmp_path / "e.keras").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"neither a \.keras file"):
        towers.keras.load(tmp_path / "e.keras")
    (tmp_path / "a.json").write_bytes(content["config.json"])
    with pytest.raises(ValueError, match=r"a\.json: is JSON: a network without its weights \(to_json\), or the list"):
        towers.keras.load(tmp_path / "a.json")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"saved: is a SavedModel of TensorFlow, which is read by Keras only"):
        towers.keras.load(tmp_path / "saved")
    with pytest.raises(FileNotFoundError):
        towers.keras.load(tmp_path / "f.keras")
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(ValueError, match="but not of Keras"):
        towers.keras.load(tmp_path / "g.h5")
    os.symlink(variants / "sizes.keras", tmp_path / "link.keras")
    towers.keras.load(tmp_path / "link.keras")  # a link of the user's own is no part of the file
    folder = tmp_path / "folder"
    shutil.unpack_archive(variants / "sizes.keras", folder, "zip")
    (folder / "config.json").unlink()
    os.symlink("/etc/passwd", folder / "config.json")
    with pytest.raises(ValueError, match="is a link"):
        towers.keras.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "twice.keras", "w") as archive:
            for name in ("config.json", "config.json", "model.weights.h5"):
                archive.writestr(name, content[name])
    with pytest.raises(ValueError, match=r"has 2 members config\.json"):
        towers.keras.load(tmp_path / "twice.keras")
    (tmp_path / "weights.index").touch()
    with pytest.raises(
        ValueError, match=r"weights: is the name of a checkpoint of TensorFlow \(weights\.index\), which"
    ):
        towers.keras.load(tmp_path / "weights")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "is a pointer of Git LFS, .*: git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page .HTML or XML., not the file itself; download it again"),
    ],
    ids=["Git LFS", "HTML"],
)
def test_what_came_in_place_of_the_file_is_named(tmp_path, start, message):
    for name in ("a.keras", "a.h5"):
        (tmp_path / name).write_bytes(start)
        with pytest.raises(ValueError, match=message):
            towers.keras.load(tmp_path / name)


# Damaged files: one clear error, or the same model.


def damage(content: bytes, rng: random.Random) -> bytes:
    """Bits, zeros, repeated or cut parts; half of them near a structure of HDF5 or of JSON."""
    data = bytearray(content)
    marks = [place for mark in (b"TREE", b"SNOD", b"HEAP", b"GCOL", b"PK", b'"') if (place := data.find(mark)) >= 0]
    how = rng.choice(["bits", "bits", "zeros", "noise", "repeat", "cut", "drop"])
    for _ in range(rng.choice([1, 2, 8])):
        start = min(len(data) - 1, rng.choice([*marks, rng.randrange(len(data)), 0]) + rng.randrange(400))
        if how == "bits":
            data[start] ^= 1 << rng.randrange(8)
        elif how == "zeros":
            data[start : start + 8] = bytes(8)
        elif how == "noise":
            data[start : start + 8] = rng.randbytes(8)
        elif how == "repeat":
            data[start : start + 16] = data[start + 16 : start + 32]
        elif how == "drop":
            del data[start : start + rng.randrange(1, 9)]
    return bytes(data[: rng.randrange(len(data))] if how == "cut" else data)


def damaged_files(variants: Path, count: int, seed: int):
    rng = random.Random(seed)
    sources = [
        variants / f"{name}{ending}" for name in ("shared_model", "sizes", "no_bias") for ending in (".keras", ".h5")
    ]
    for number in range(count):
        source = sources[number % len(sources)]
        if source.suffix == ".keras" and rng.random() < 0.7:
            content = members(source)
            part = rng.choice(["config.json", "model.weights.h5", "model.weights.h5", "metadata.json"])
            content[part] = damage(content[part], rng)
            buffer = io.BytesIO()
            written(buffer, content)
            yield source, buffer.getvalue()
        else:
            yield source, damage(source.read_bytes(), rng)


def check_damaged(variants, tmp_path, count, seed):
    warnings.simplefilter("ignore", UserWarning)  # on dropout and missing biases; pytest undoes it
    wanted = {}
    found = {"same": 0, "other numbers": 0, "refused": 0}
    for source, content in damaged_files(variants, count, seed):
        path = tmp_path / f"a{source.suffix}"
        path.write_bytes(content)
        if source not in wanted:
            wanted[source] = towers.keras.load(source).state_dict()
        try:
            model = towers.keras.load(path)
        except ValueError as error:
            refused = str(error)
        else:
            refused = None
        if refused is not None:
            assert str(path) in refused
            assert len(refused) < 2000
            found["refused"] += 1
            continue
        state = model.state_dict()
        assert all(value.isfinite().all() for value in state.values())
        same = state.keys() == wanted[source].keys() and all(
            torch.equal(value, wanted[source][name]) for name, value in state.items()
        )
        found["same" if same else "other numbers"] += 1
    assert found["refused"] > count // 4
    assert found["same"] > 0
    return found


def test_a_damaged_file_is_one_clear_error_or_a_model(variants, tmp_path):
    check_damaged(variants, tmp_path, 300, 1)


@pytest.mark.slow
def test_thousands_of_damaged_files(variants, tmp_path):
    check_damaged(variants, tmp_path, 3000, 2)


OTHER_VALUES = [None, True, 0, 1, -1, 2, 3.5, 1 << 40, "", "x", [], {}, [[]], [0], ["a"], {"config": "x"},
                {"config": None}, ["sequential", 2, 0], {"class_name": "__keras_tensor__"}]  # fmt: skip


def places(value, path=()):
    """Every place of a JSON value."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield from places(entry, (*path, name))


def with_other_values(config: dict, rng: random.Random) -> dict:
    """One to three entries are gone, are other values, or are those of another place."""
    config = copy.deepcopy(config)
    for _ in range(rng.choice([1, 1, 2, 3])):
        path, other = (rng.choice([place for place in places(config["config"]) if place]) for _ in range(2))
        holder = config["config"]
        for name in path[:-1]:
            holder = holder[name]
        value = config["config"]
        for name in other:
            value = value[name]
        how = rng.choice(["gone", "value", "value", "place"])
        if how == "gone":
            del holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(OTHER_VALUES) if how == "value" else value)
    return config


def refusal(read, path: Path) -> str | None:
    """What a reader says against a file."""
    try:
        read(path)
    except ValueError as error:
        return str(error)
    return None


def check_other_values(variants, tmp_path, count, seed):
    rng, refused = random.Random(seed), 0
    names = ("keras2_shared", "nested_sequential", "dict_inputs", "embedding")
    sources = [members(variants / f"{name}.keras") for name in names]
    configs = [json.loads(source["config.json"]) for source in sources]
    layers = [lambda path, name=name: towers.keras.convert_layer(path, name) for name in ("lstm", "conv1d", "conv2d")]
    warnings.simplefilter("ignore", UserWarning)  # pytest undoes it
    for number in range(count):
        config = json.dumps(with_other_values(configs[number % 4], rng)).encode()
        path = written(tmp_path / "a.keras", sources[number % 4] | {"config.json": config})
        told = [text for read in (towers.keras.load, *layers) if (text := refusal(read, path)) is not None]
        assert all(str(path) in text and len(text) < 2500 for text in told), told
        refused += len(told)
    assert count < refused < 4 * count


def test_a_config_of_other_values_is_one_clear_error_or_a_model(variants, tmp_path):
    check_other_values(variants, tmp_path, 80, 1)


@pytest.mark.slow
def test_thousands_of_configs_of_other_values(variants, tmp_path):
    check_other_values(variants, tmp_path, 3000, 2)


# The optimizer.


def test_an_optimizer_that_cannot_be_read_says_why(variants, tmp_path, shared):
    path = shared / "keras" / "model_after_training.keras"
    model = towers.keras.load(path)
    with pytest.raises(ValueError, match=r'names no optimizer .* kind="adam"'):
        towers.keras.load_optimizer(path, model)
    with pytest.raises(ValueError, match="kind is 'sgd'"):
        towers.keras.load_optimizer(path, model, kind="sgd")
    with pytest.raises(ValueError, match="holds no state of Adam"):
        towers.keras.load_optimizer(shared / "keras" / "model.keras", model)
    with pytest.raises(ValueError, match="optimizer is another network's"):
        towers.keras.load_optimizer(path, TwoTowers(dense=3), kind="adam")
    with pytest.raises(
        ValueError, match=r"its left.conv.weight has other numbers than model's; .* towers\.keras\.load reads"
    ):
        towers.keras.load_optimizer(path, TwoTowers(), kind="adam")
    with pytest.raises(ValueError, match="holds weights alone"):
        towers.keras.load_optimizer(variants / "sizes.weights.h5", model)

    def sgd(layers, config):
        config["compile_config"]["optimizer"] = {"class_name": "SGD", "config": {}}

    with pytest.raises(ValueError, match="was trained with SGD"):
        towers.keras.load_optimizer(changed(path, tmp_path / "a.keras", sgd), model)

    def decayed(layers, config):
        config["compile_config"]["optimizer"] = {"class_name": "Adam", "config": {"weight_decay": 0.1}}

    with pytest.raises(ValueError, match=r"weight_decay 0\.1"):
        towers.keras.load_optimizer(changed(path, tmp_path / "b.keras", decayed), model)


def test_an_optimizer_of_a_network_with_lambdas(tmp_path, shared):
    source = shared / "keras" / "model_after_training.keras"
    path = changed(source, tmp_path / "a.keras", kind("reshape", "Lambda"))
    lambdas = {"reshape": "squeeze"}
    model = towers.keras.load(path, lambdas=lambdas)
    with pytest.raises(ValueError, match="is code, which is not read"):
        towers.keras.load_optimizer(path, model, kind="adam")
    optimizer = towers.keras.load_optimizer(path, model, kind="adam", lambdas=lambdas)
    assert len(optimizer.state) == len(list(model.parameters()))


def test_an_optimizer_says_where_its_training_differs(tmp_path, shared):
    source = shared / "keras" / "model_after_training.keras"

    def regular(layers, config):
        next(layer for layer in layers.values() if layer["class_name"] == "LSTM")["config"]["bias_constraint"] = "x"

    path = changed(source, tmp_path / "a.keras", regular)
    with pytest.warns(UserWarning, match="bias_constraint: acts in training only"):
        model = towers.keras.load(path)
    with pytest.warns(UserWarning, match="goes on otherwise than in Keras: .* bias_constraint") as caught:
        towers.keras.load_optimizer(path, model, kind="adam")
    assert [entry.filename for entry in caught] == [__file__]


def last_layer(source: Path, target: Path, **settings) -> Path:
    """The trained network with other settings of its last Dense, and without what its optimizer then does not keep."""
    content = members(source)
    config = json.loads(content["config.json"])
    last = [layer["config"] for layer in config["config"]["layers"] if layer["class_name"] == "Dense"][-1]
    last.update(settings)
    buffer = io.BytesIO(content["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        if "use_bias" in settings:
            del file["layers/dense_1/vars/1"]
        arrays = 1 if "use_bias" in settings else 2  # the bias is the last of them
        for name in sorted(file["optimizer/vars"], key=int)[-2 * arrays :]:
            assert file[f"optimizer/vars/{name}"].shape[-1:] == (1,)
            del file[f"optimizer/vars/{name}"]
    written(target, content | {"config.json": json.dumps(config).encode(), "model.weights.h5": buffer.getvalue()})
    return target


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [({"use_bias": False}, ["logit.bias"]), ({"trainable": False}, ["logit.weight", "logit.bias"])],
    ids=["no bias", "frozen"],
)
def test_what_keras_does_not_train_stays_as_it_is(tmp_path, shared, settings, frozen):
    path = last_layer(shared / "keras" / "model_after_training.keras", tmp_path / "a.keras", **settings)
    model = towers.keras.load(path)
    assert not_trained(model) == frozen
    optimizer = towers.keras.load_optimizer(path, model, kind="adam")
    before = copy.deepcopy(model.state_dict())
    F.binary_cross_entropy_with_logits(model(torch.randn(2, 4, 300), torch.randn(2, 5, 300)), torch.ones(2)).backward()
    optimizer.step()
    assert [name for name, value in model.state_dict().items() if torch.equal(value, before[name])] == frozen
    model.logit.bias.requires_grad_(True)
    message = (
        r"logit\.bias are frozen, or have no bias; .*Freeze them first: model\.logit\.bias\.requires_grad_\(False\)"
    )
    with pytest.raises(ValueError, match=message):
        towers.keras.load_optimizer(path, model, kind="adam")


def not_trained(model: TwoTowers) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def test_what_is_not_trained_is_written_so(tmp_path):
    sizes = {"vector_width": 8, "filters": 6, "pool": 3, "hidden": 5}
    model = TwoTowers(Tower(**sizes), Tower(5, **sizes), dense=3, dropout=0.25)
    for parameter in (*model.left.lstm.parameters(), *model.right.conv.parameters(), model.dense.bias):
        parameter.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ending in (".keras", ".h5", ".weights.h5"):
            path = tmp_path / f"a{ending}"
            towers.keras.save(model, path)
            back = towers.keras.load(path, like=model if ending == ".weights.h5" else None)
            assert not_trained(back) == not_trained(model)
            assert back.dropout.p == 0.25
    layers = {
        layer["name"]: layer for layer in json.loads(members(tmp_path / "a.keras")["config.json"])["config"]["layers"]
    }
    assert [name for name, layer in layers.items() if not layer["config"]["trainable"]] == ["right_conv", "left_lstm"]
    assert not layers["dense"]["config"]["use_bias"]
    model.left.conv.weight.requires_grad_(False)
    model.logit.bias.data += 1
    model.logit.bias.requires_grad_(False)
    told = "left.conv.weight is trained, for Keras freezes whole layers; logit.bias is trained"
    with pytest.warns(UserWarning, match=rf"a\.keras: .*: {told}") as caught:
        towers.keras.save(model, tmp_path / "a.keras")
    assert caught[0].filename == __file__
    assert not_trained(towers.keras.load(tmp_path / "a.keras")) == [
        *(name for name in not_trained(model) if name not in ("left.conv.weight", "logit.bias"))
    ]
    with pytest.warns(UserWarning, match=r"word_dropout=0\.5, which Keras does not have, is left out"):
        towers.keras.save(TwoTowers(word_dropout=0.5), tmp_path / "a.keras")


def test_a_frozen_model_freezes_its_layers(variants, tmp_path):
    def freeze(layers, config):
        model = next(layer for layer in layers.values() if layer["class_name"] in ("Functional", "Sequential"))
        model["config"]["trainable"] = False

    found = convert(changed(variants / "nested_sequential.keras", tmp_path / "a.keras", freeze), None, {})
    left = [
        "left.conv.weight",
        "left.conv.bias",
        "left.lstm.weight_ih_l0",
        "left.lstm.weight_hh_l0",
        "left.lstm.bias_ih_l0",
    ]
    assert not_trained(found.model) in (left, [name.replace("left", "right") for name in left])
    assert any("is frozen: " in remark for remark in found.remarks)


# Layouts of which no real file could be made here: written after the published ones.


def legacy(path: Path, model: TwoTowers, *, version: str, layers, arrays) -> Path:
    """A .h5 of a whole network whose layers' configs and arrays are changed: {name: config change}, {name: arrays}."""
    towers.keras.save(model, path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            layer.pop("module")
            layer.pop("registered_name")
            if layer["name"] in layers:
                layers[layer["name"]](layer)
        file.attrs["model_config"] = json.dumps(config).encode()
        for place in (file, file["model_weights"]):
            if version:
                place.attrs["keras_version"] = version
            elif "keras_version" in place.attrs:
                del place.attrs["keras_version"]
        for name, own in arrays.items():
            del file["model_weights"][name]
            group = file["model_weights"].create_group(name)
            group.attrs["weight_names"] = [f"{name}_{key}".encode() for key in own]
            for key, array in own.items():
                group[f"{name}_{key}"] = array
    return path


def small() -> TwoTowers:
    sizes = {"vector_width": 8, "filters": 6, "pool": 3, "hidden": 5}
    return numbered(TwoTowers(Tower(**sizes), Tower(5, **sizes), dense=3))


def as_cudnn(lstm: RaggedLSTM) -> dict:
    """cuDNN's own order of numbers (each gate's matrix as it stands there, row after row) and its two biases."""
    w_ih, w_hh, bias = (part.detach().numpy() for part in (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0))
    kernel = np.hstack([gate.reshape(gate.shape[::-1]) for gate in np.split(w_ih, 4)])
    recurrent = np.hstack(np.split(w_hh, 4))
    return {
        "kernel": kernel,
        "recurrent_kernel": recurrent,
        "bias": np.concatenate([bias - 0.5, np.full_like(bias, 0.5)]),
    }


def as_cudnn_layer(layer):
    layer["class_name"] = "CuDNNLSTM"
    for name in ("activation", "recurrent_activation", "use_bias"):
        layer["config"].pop(name)


def test_cudnn_lstm(tmp_path):
    model = small()
    names = {"left_lstm": as_cudnn_layer, "right_lstm": as_cudnn_layer}
    arrays = {"left_lstm": as_cudnn(model.left.lstm), "right_lstm": as_cudnn(model.right.lstm)}
    back = towers.keras.load(legacy(tmp_path / "a.h5", model, version="2.2.4", layers=names, arrays=arrays))
    for wanted, found in zip(model.parameters(), back.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert back.left.lstm.recurrent_activation == "sigmoid"


def as_twelve(lstm: RaggedLSTM) -> dict:
    """Keras 1: W, U and b of the gates i, c, f, o."""
    arrays = {}
    parts = {}
    for kind, part in (("W", lstm.weight_ih_l0), ("U", lstm.weight_hh_l0), ("b", lstm.bias_ih_l0)):
        i, f, c, o = np.split(part.detach().numpy(), 4)
        parts[kind] = {"i": i.T, "f": f.T, "c": c.T, "o": o.T}
    for gate in "icfo":
        arrays |= {f"{kind}_{gate}": parts[kind][gate] for kind in "WUb"}
    return arrays


def as_keras_1(layer):
    """Its names of settings."""
    config = layer["config"]
    if layer["class_name"] == "LSTM":
        config["output_dim"], config["inner_activation"] = config.pop("units"), "hard_sigmoid"
        config["consume_less"] = "cpu"
        for name in ("recurrent_activation", "use_bias"):
            config.pop(name)
    elif layer["class_name"] == "Conv2D":
        layer["class_name"] = "Convolution2D"
        config["nb_filter"] = config.pop("filters")
        config["nb_row"], config["nb_col"] = config.pop("kernel_size")
        config["border_mode"], config["dim_ordering"], config["bias"] = "valid", "tf", True
        config["subsample"] = config.pop("strides")
        for name in ("padding", "data_format", "use_bias"):
            config.pop(name)
    elif layer["class_name"] == "Dense":
        config["output_dim"], config["bias"] = config.pop("units"), config.pop("use_bias")


@pytest.mark.parametrize("version", ["1.2.2", ""])
def test_keras_1_with_twelve_arrays_and_its_own_hard_sigmoid(tmp_path, version):
    model = small()
    names = ("left_conv", "right_conv", "left_lstm", "right_lstm", "dense", "logit")
    arrays = {"left_lstm": as_twelve(model.left.lstm), "right_lstm": as_twelve(model.right.lstm)}
    layers = dict.fromkeys(names, as_keras_1)
    back = towers.keras.load(legacy(tmp_path / "a.h5", model, version=version, layers=layers, arrays=arrays))
    for wanted, found in zip(model.parameters(), back.parameters(), strict=True):
        assert torch.equal(found, wanted)
    assert back.right.lstm.recurrent_activation == "hard_sigmoid_keras2"


@pytest.mark.parametrize(
    ("version", "gates"),
    [("2.2.4", "hard_sigmoid_keras2"), ("2.4.0-tf", "hard_sigmoid_keras2"), ("3.0.1", "hard_sigmoid")],
)
def test_hard_sigmoid_is_what_the_files_own_version_meant(tmp_path, version, gates):
    def hard(layer):
        layer["config"]["recurrent_activation"] = "hard_sigmoid"

    path = legacy(
        tmp_path / "a.h5", small(), version=version, layers={"left_lstm": hard, "right_lstm": hard}, arrays={}
    )
    assert towers.keras.load(path).left.lstm.recurrent_activation == gates
