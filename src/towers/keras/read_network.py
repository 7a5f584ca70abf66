"""A Keras file -> TwoTowers: the plan of its network, then its numbers, all of them before a model is made."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from towers.keras.graph import Layer, read_graph
from towers.keras.hdf5_reader import Array
from towers.keras.keras_file import KerasFile, open_keras
from towers.keras.layer_arrays import (
    CONV,
    DENSE,
    LSTM,
    Fetch,
    Turned,
    legacy_paths,
    read_conv,
    read_dense,
    read_lstm,
    saved_paths,
    weight_paths,
    weights_of,
)
from towers.keras.network_plan import Needs, NetworkPlan, TowerPlan, other_parts
from towers.keras.recognise import recognise
from towers.model import Tower, TwoTowers

KINDS = ("Conv", "LSTM", "Dense", "other")


@dataclass(frozen=True)
class Move:
    """An array of the file and where it went."""

    layer: str
    theirs: str
    ours: str
    shape: tuple[int, ...]
    how: str


@dataclass(frozen=True)
class Converted:
    """What became of a file.

    Attributes:
        model: in evaluation, with the file's numbers.
        plan: what was recognised.
        moves: every array, in the order of the model.
        optimizer: whether the file has the state of one, which is not read here.
    """

    model: TwoTowers
    plan: NetworkPlan
    moves: tuple[Move, ...]
    optimizer: bool = False

    @property
    def trained_otherwise(self) -> tuple[str, ...]:
        """In what a training that goes on would differ from Keras's."""
        return self.plan.training

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know: what acts in training only or is not trained, which sentence is left."""
        frozen = [
            f"{layer}: is frozen: {name} is not trained" for name, layer in self.plan.layers() if not layer.trainable
        ]
        biases = [
            f"{layer}: has no bias: {name} is zeros, and is not trained" for name, layer in self.plan.without_bias()
        ]
        lost = ["what is not trained is trained again in a model from a saved folder"] if frozen or biases else []
        if self.optimizer:
            lost.append("the optimizer is not carried over: towers.keras.load_optimizer(PATH, model) reads its state")
        return (*self.plan.called, *self.plan.remarks, *self.trained_otherwise, *frozen, *biases, *lost)


def convert(path: str | PathLike[str], like: TwoTowers | None, lambdas: Mapping[str, str]) -> Converted:
    """See `towers.keras.load`, whose model this gives with its history."""
    file = open_keras(path)
    if like is not None and (parts := other_parts(like)):
        raise ValueError(f"{file.name}: like has parts that no network of Keras has here: {', '.join(parts)}")
    plan = plan_of(file, like, lambdas)
    model, parts = _model(plan), list(parts_of(plan, weights_of(file), partial(_lstm_arrays, file)))
    if like is not None:
        _refuse_other_sizes(file, model, like)
    _fill(file, model, {f"{part.ours}.{name}": array for part in parts for name, array in part.arrays.items()})
    return Converted(model.eval(), plan, tuple(move for part in parts for move in part.moves()), file.has_optimizer)


def plan_of(file: KerasFile, like: TwoTowers | None, lambdas: Mapping[str, str]) -> NetworkPlan:
    """The two towers of a file, from its config, or for weights alone from `like`.

    Raises:
        ValueError: as `towers.keras.load`.
    """
    if not isinstance(lambdas, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"lambdas is {lambdas!r}; a dict from names of Lambda layers to what they do belongs there")
    if file.config is None:
        return _plan_of_weights(file, like)
    graph = read_graph(file.config, file.name)
    try:
        return recognise(graph, lambdas, file.major)
    except Needs as error:
        raise Needs(f"{file.name}: {error.problem}", error.argument, error.option) from None
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None


@dataclass(frozen=True)
class Part:
    """The arrays of one layer, turned, and the module that they are for."""

    ours: str
    layer: Layer
    table: tuple[Turned, ...]
    arrays: dict[str, Array]

    def moves(self) -> Iterator[Move]:
        """Each array, and where it went."""
        for turned in self.table:
            shape = self.arrays[turned.ours].shape
            yield Move(str(self.layer), turned.theirs, f"{self.ours}.{turned.ours}", shape, turned.how)


def _lstm_arrays(file: KerasFile, layer: Layer) -> int:
    return len(weight_paths(file, layer))


def parts_of(plan: NetworkPlan, fetch: Fetch, count: Callable[[Layer], int]) -> Iterator[Part]:
    """The arrays of a network, or its optimizer's moments, layer by layer."""
    for side, tower in plan.towers():
        sizes = (tower.kernel_words, tower.vector_width, tower.filters)
        yield Part(f"{side}.conv", tower.conv, CONV, read_conv(fetch, tower.conv, *sizes))
        lstm = read_lstm(fetch, tower.lstm, tower.features, tower.hidden, parts=count(tower.lstm))
        yield Part(f"{side}.lstm", tower.lstm, LSTM, lstm)
    yield Part("dense", plan.dense, DENSE, read_dense(fetch, plan.dense, plan.left.hidden, plan.dense_units))
    yield Part("logit", plan.logit, DENSE, read_dense(fetch, plan.logit, plan.dense_units, 1))


def _model(plan: NetworkPlan) -> TwoTowers:
    """Its parameters on meta: sizes alone."""
    left = _tower(plan.left)
    right = left if plan.shared else _tower(plan.right)
    model = TwoTowers(
        left,
        right,
        dense=plan.dense_units,
        dropout=plan.dropout,
        dense_dropout=plan.dense_dropout,
        word_dropout=plan.word_dropout,
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not plan.is_frozen(name))
    return model


def _tower(plan: TowerPlan) -> Tower:
    gates = plan.recurrent_activation
    more: dict[str, Any] = {} if gates == "sigmoid" else {"recurrent_activation": gates}
    return Tower(
        plan.words,
        vector_width=plan.vector_width,
        kernel_words=plan.kernel_words,
        filters=plan.filters,
        pool=plan.pool,
        hidden=plan.hidden,
        chunk=plan.chunk,
        device="meta",
        **more,
    )


def _fill(file: KerasFile, model: TwoTowers, state: Mapping[str, Array]) -> None:
    """The arrays as the model's parameters, each in the dtype of the file."""
    dtypes = sorted({str(array.dtype) for array in state.values()})
    if len(dtypes) > 1 or dtypes[0] not in ("float16", "float32", "float64"):
        raise ValueError(f"{file.name}: its arrays are of {' and '.join(dtypes)}; one float dtype is read")
    tensors = as_tensors(state)
    if model.right is model.left:
        tensors |= {"right." + name[5:]: value for name, value in tensors.items() if name.startswith("left.")}
    model.load_state_dict(tensors, assign=True)  # which keeps requires_grad


def _refuse_other_sizes(file: KerasFile, model: TwoTowers, like: TwoTowers) -> None:
    """`like` beside a file that says its sizes itself must agree."""
    if (model.left is model.right) != (like.left is like.right):
        towers = ("two towers", "one tower for both sentences")
        found, wanted = (towers[it.left is it.right] for it in (model, like))
        raise ValueError(f"{file.name}: has {found}, like has {wanted}")
    for side in ("left", "right"):
        sizes = {"recurrent_activation": "sigmoid", **getattr(model, side).config()}
        _refuse_other_tower(file, f"its {side} tower", side, like, sizes)
    if model.dense.out_features != like.dense.out_features:
        raise ValueError(f"{file.name}: dense is {model.dense.out_features}, like has {like.dense.out_features}")
    rates = [0.0 if it.dropout is None else it.dropout.p for it in (model, like)]
    if rates[0] != rates[1]:
        raise ValueError(f"{file.name}: dropout is {rates[0]}, like has {rates[1]}")


def _refuse_other_tower(file: KerasFile, whose: str, side: str, like: TwoTowers, found: Mapping[str, Any]) -> None:
    """A tower of `like` must have these sizes."""
    wanted = {"recurrent_activation": "sigmoid", **getattr(like, side).config()}
    for name, size in found.items():
        if name != "chunk" and size != wanted[name]:
            raise ValueError(f"{file.name}: {whose} has {name} {size}, like has {wanted[name]}")


# Files of weights alone: no names of roles, no sizes but those of the arrays.


def _plan_of_weights(file: KerasFile, like: TwoTowers | None) -> NetworkPlan:
    layers = list(_layers_with_weights(file))
    if like is None:
        sizes = "; ".join(f"{layer.name}: {', '.join(map(str, shapes))}" for layer, shapes in layers)
        problem = (
            f"{file.name}: holds weights alone ({sizes or 'no arrays'}): the length of a fixed tower, the gates' "
            "function and the sides are not in it. Give"
        )
        raise Needs(
            problem,
            "like=TwoTowers(Tower(…), Tower(words=…), dense=…) of its sizes",
            "--like DIR, a folder with a network of its sizes",
        )
    towers = list(dict.fromkeys((like.left, like.right)))
    found: dict[str, list[Layer]] = {kind: [] for kind in KINDS}
    for layer, shapes in layers:
        if layer.kind != "Embedding":  # a table of vectors before the towers
            found[_kind_of(shapes)].append(layer)
    for kind, count in zip(KINDS, (len(towers), len(towers), 2, 0), strict=True):
        if len(found[kind]) != count:
            raise ValueError(
                f"{file.name}: has {len(found[kind])} layers of the kind {kind} ({_names(found[kind])}); like has "
                f"{count}{_what_else(file, found['other'])}"
            )
    _refuse_unknown_order(file, found["Conv"], found["LSTM"])
    shapes_of = {layer.name: shapes for layer, shapes in layers}
    for side, conv, lstm in zip(("left", "right"), found["Conv"], found["LSTM"], strict=False):
        sizes = _sizes_of(shapes_of[conv.name], shapes_of[lstm.name])
        _refuse_other_tower(file, f"its {side} tower ({conv.name}, {lstm.name})", side, like, sizes)
    plans = [_plan_like(*those) for those in zip(towers, found["Conv"], found["LSTM"], strict=True)]
    remark = f"weights alone: {found['Conv'][0].name} and {found['LSTM'][0].name} were taken for the left tower"
    dense, logit = found["Dense"]
    units = shapes_of[dense.name][0][1]
    if units != like.dense.out_features:
        raise ValueError(f"{file.name}: {dense.name} is a Dense of {units}, like has dense={like.dense.out_features}")
    parts = (like.dropout, like.dense_dropout, like.word_dropout)
    drop, dense_drop, word_drop = (0.0 if part is None else part.p for part in parts)
    plan = NetworkPlan(plans[0], plans[-1], dense, logit, units, True, (remark,), (), drop, dense_drop, word_drop)
    for name, layer in plan.layers():
        parameters = like.get_submodule(name).parameters()
        layer.trainable = any(parameter.requires_grad for parameter in parameters)
    return plan


def _sizes_of(conv: list[tuple[int, ...]], lstm: list[tuple[int, ...]]) -> dict[str, int]:
    """The sizes of a tower that the shapes of its arrays tell."""
    kernel_words, *width, filters = conv[0]
    sizes = {"vector_width": prod(width), "kernel_words": kernel_words, "filters": filters, "hidden": lstm[1][0]}
    features = lstm[0][0]
    return sizes | ({"pool": filters // features} if features and filters % features == 0 else {})


def _plan_like(tower: Tower, conv: Layer, lstm: Layer) -> TowerPlan:
    sizes: dict[str, Any] = {"recurrent_activation": "sigmoid", **tower.config()}
    return TowerPlan(conv, lstm, None, conv, stages=(), **sizes)


def _layers_with_weights(file: KerasFile) -> Iterator[tuple[Layer, list[tuple[int, ...]]]]:
    """Every layer that has arrays, with their shapes, in the order of the network."""
    found = list(_legacy_layers(file) if file.legacy else _saved_layers(file, ""))
    for layer in found:
        paths = layer.paths
        shapes = [file.hdf5.shape(path) for path in paths]
        if None in shapes:
            raise file.hdf5.damaged(paths[shapes.index(None)], "holds no numbers")
        if paths:
            real = [shape for shape in shapes if shape is not None]
            embeds = "embedding" in (paths[0] if file.legacy else layer.saved).rsplit("/", 1)[-1]
            layer.kind = "Embedding" if embeds and _kind_of(real) == "Dense" else _kind_of(real)
            if layer.kind == "Conv":
                layer.kind = f"Conv{len(real[0]) - 2}D"
            if layer.kind == "LSTM" and len(real) == 3 and real[2] == (8 * real[1][0],):
                layer.kind = "CuDNNLSTM"
            bias = len(real) > (2 if "LSTM" in layer.kind else 1)
            layer.config = {"use_bias": bias, "kernel_size": list(real[0][:2])}
            yield layer, real


def _legacy_layers(file: KerasFile) -> Iterator[Layer]:
    """Every layer of a file of Keras 1 or 2. A model is one entry there: its layers are told apart by their names."""
    for name in file.hdf5.texts(file.legacy_root, "layer_names") or []:
        paths = legacy_paths(file, name)
        parts: dict[str, list[str]] = {}
        for path in paths:
            parts.setdefault(path.rpartition("/")[0], []).append(path)
        if len(parts) == 1 or any("/forward_" in f"/{part}" for part in parts):  # of Bidirectional
            yield Layer("?", name, {}, paths=tuple(paths))
            continue
        start = len(f"{file.legacy_root}/{name}/".replace("//", "/"))
        for part, own in parts.items():
            yield Layer("?", part[start:].partition("/")[0], {}, saved=f"{name}/", paths=tuple(own))


def _saved_layers(file: KerasFile, place: str, depth: int = 0) -> Iterator[Layer]:
    """Every layer of a file of Keras 3, those of inner models in the place of their model."""
    for name in sorted(file.hdf5.names(f"{place}layers"), key=_natural):
        inside = f"{place}layers/{name}"
        if depth < 8 and file.hdf5.names(f"{inside}/layers"):
            yield from _saved_layers(file, f"{inside}/", depth + 1)
        else:
            said = file.hdf5.text(f"{inside}/vars", "name")
            yield Layer("?", said or name, {}, saved=inside, paths=tuple(saved_paths(file, inside, None)))


def _refuse_unknown_order(file: KerasFile, *kinds: list[Layer]) -> None:
    """The first layer of each kind must be of the same tower, which a file of weights alone does not say itself.

    Keras 3 counts layers class by class, so that two of different classes are in no order. Each kind has the order of
    the layers' depths, so that a tower with more layers can be the first in one and the second in the other: then the
    names that Keras gives by itself, counted as the layers are made, disagree.
    """
    for kind in kinds:
        classes = {tuple(_natural(step)[0] for step in layer.saved.split("/")) for layer in kind}
        if len(classes) > 1 and not file.legacy:
            places = " and ".join(layer.saved for layer in kind)
            raise ValueError(
                f"{file.name}: which of {places} belongs to the left tower is not in a file of weights alone; save the "
                "network in one file with its config (.keras)"
            )
    pairs = [[_natural(layer.name) for layer in kind] for kind in kinds if len(kind) == 2]
    if len({first[1] < second[1] for first, second in pairs if first[0] == second[0]}) > 1:
        names = " and ".join(_names(kind) for kind in kinds)
        raise ValueError(
            f"{file.name}: its layers come in the order {names}: which of them are one tower is not in a file of "
            "weights alone; save the network in one file with its config (.keras)"
        )


def _names(layers: list[Layer]) -> str:
    return ", ".join(layer.name for layer in layers) or "none"


def _what_else(file: KerasFile, other: list[Layer]) -> str:
    """For a refusal: what else is in a file of weights alone."""
    groups = {"layers", "optimizer", "vars", "_layer_checkpoint_dependencies"}
    own = [] if file.legacy else [name for name in file.hdf5.names("/") if name not in groups]
    said = f"; other layers: {_names(other)}" if other else ""
    return said + (f"; {', '.join(own)[:200]} belong to a class of its own, which is not read" if own else "")


def _natural(name: str) -> tuple[str, int]:
    """conv2d, conv2d_1, …, conv2d_10: as Keras counts them."""
    match = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name)
    return (name, 0) if match is None else (match[1], int(match[2] or 0))


def _kind_of(shapes: list[tuple[int, ...]]) -> str:
    """What a layer is by the shapes of its arrays."""
    ranks = [len(shape) for shape in shapes]
    if ranks in ([4], [4, 1], [3], [3, 1]):
        return "Conv"
    if (ranks in ([2, 2], [2, 2, 1]) and shapes[1][1] == 4 * shapes[1][0]) or ranks == [2, 2, 1] * 4:
        return "LSTM"  # the recurrent kernel of a SimpleRNN is as wide as high, a GRU's three times as wide
    return "Dense" if ranks in ([2], [2, 1]) else "other"


def as_tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Arrays of their own memory as tensors."""
    return {name: torch.as_tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}
