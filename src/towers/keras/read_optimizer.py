"""The state of Keras's Adam in a file -> KerasAdam, so that a training goes on where Keras stopped."""

import re
import warnings
from collections.abc import Mapping
from os import PathLike
from typing import Any, cast

import numpy as np
import torch

from towers.keras.graph import Layer, read_graph
from towers.keras.hdf5_reader import Array
from towers.keras.keras_file import KerasFile, open_keras
from towers.keras.layer_arrays import Shape, weight_paths
from towers.keras.network_plan import NetworkPlan
from towers.keras.read_network import as_tensors, convert, parts_of
from towers.model import TwoTowers
from towers.optim import KerasAdam

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "weight_decay": (None, 0.0, False),
    "decay": (None, 0.0),
    "clipnorm": (None,),
    "global_clipnorm": (None,),
    "clipvalue": (None,),
    "use_ema": (None, False),
    "loss_scale_factor": (None,),
    "gradient_accumulation_steps": (None, 1),
    "amsgrad": (None, False),
}


def read_optimizer(
    path: str | PathLike[str], model: TwoTowers, kind: str | None, lambdas: Mapping[str, str]
) -> KerasAdam:
    """See `towers.keras.load_optimizer`."""
    file = open_keras(path)
    settings = _settings(file, kind)
    iteration, rate, moments = _State(file).read()
    found = convert(path, None, lambdas)
    plan = found.plan
    _refuse_trained(file, plan, model)
    owned = _trainable(file)
    firsts, seconds = moments[: len(owned)], moments[len(owned) :]
    if len(firsts) != len(seconds) or len(moments) != 2 * len(owned):
        raise ValueError(
            f"{file.hdf5.name}: its optimizer keeps {len(moments)} arrays of moments; the network has {len(owned)} "
            f"arrays that are trained, so {2 * len(owned)} belong there"
        )
    step = file.hdf5.array(iteration, ())
    settings.setdefault("lr", float(file.hdf5.array(rate, ())) if rate is not None else 1e-3)
    optimizer = KerasAdam(model.parameters(), **settings)
    states: list[dict[str, torch.Tensor]] = []
    for places in (firsts, seconds):
        by_layer: dict[str, list[str]] = {}
        for (layer, _), place in zip(owned, places, strict=True):
            by_layer.setdefault(layer.saved, []).append(place)

        def fetch(layer: Layer, shapes: list[Shape], by_layer: dict[str, list[str]] = by_layer) -> list[Array]:
            if not layer.trainable:
                return [np.zeros(shape, np.float32) for shape in shapes]  # they are not looked at
            paths = by_layer.get(layer.saved, [])
            if len(paths) != len(shapes):
                raise ValueError(f"{file.hdf5.name}: {layer} has {len(paths)} arrays; {len(shapes)} belong there")
            return [file.hdf5.array(place, shape) for place, shape in zip(paths, shapes, strict=True)]

        arrays = {
            f"{part.ours}.{name}": array
            for part in parts_of(plan, cast("Any", fetch), lambda layer: 0)
            for name, array in part.arrays.items()
            if not plan.is_frozen(f"{part.ours}.{name}")
        }
        states.append(as_tensors(arrays))
    _set_state(file, optimizer, plan, model, int(step), *states)
    _refuse_other_weights(file, found.model, model)
    if plan.training:
        warnings.warn(
            f"{file.name}: training goes on otherwise than in Keras: {'; '.join(plan.training)}", stacklevel=3
        )
    return optimizer


def _refuse_trained(file: KerasFile, plan: NetworkPlan, model: TwoTowers) -> None:
    """What Keras does not train must not be trained: its optimizer keeps nothing for it."""
    trained = [name for name, value in model.named_parameters() if value.requires_grad and plan.is_frozen(name)]
    if trained:
        freeze = "; ".join(f"model.{name}.requires_grad_(False)" for name in trained)
        raise ValueError(
            f"{file.name}: there the layers of {', '.join(trained)} are frozen, or have no bias; in model they are "
            f"trained. Freeze them first: {freeze}"
        )


def _refuse_other_weights(file: KerasFile, theirs: TwoTowers, ours: TwoTowers) -> None:
    """Moments of gradients of other weights would lead a training astray."""
    for (name, wanted), found in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        if not torch.equal(wanted.to(found.dtype), found.detach().cpu()):
            raise ValueError(
                f"{file.name}: its {name} has other numbers than model's; the optimizer goes with the model that "
                "towers.keras.load reads from this file, before it is trained further"
            )


def _settings(file: KerasFile, kind: str | None) -> dict[str, Any]:
    """What the file's config says of its optimizer, in torch's names."""
    if kind not in (None, "adam"):
        raise ValueError(f'kind is {kind!r}; "adam" is what can be read, or None where the file says it')
    if file.config is None:
        raise ValueError(f"{file.name}: holds weights alone; an optimizer is read beside its network")
    if file.optimizer is None:
        if kind is None:
            raise ValueError(
                f"{file.name}: its config names no optimizer (Keras itself would take RMSprop). If it was trained with "
                'Adam, say so: kind="adam"'
            )
        return {}
    name = str(file.optimizer.get("class_name")).rsplit(">", 1)[-1]
    if name != "Adam":
        raise ValueError(f"{file.name}: was trained with {name[:60]}; Keras's Adam is what can be read")
    config: Any = file.optimizer.get("config")
    if not isinstance(config, dict):
        raise ValueError(f"{file.name}: its optimizer's config is damaged")
    entries = cast("dict[str, Any]", config)
    for entry, values in _NEUTRAL.items():
        if entries.get(entry) not in values:
            raise ValueError(f"{file.name}: its Adam has {entry} {repr(entries[entry])[:60]}, which KerasAdam has not")
    rate = entries.get("learning_rate", entries.get("lr", 1e-3))
    numbers = {"lr": rate, "beta_1": entries.get("beta_1", 0.9), "beta_2": entries.get("beta_2", 0.999)}
    numbers["epsilon"] = 1e-7 if entries.get("epsilon") is None else entries["epsilon"]
    for entry, value in numbers.items():
        if type(value) not in (int, float):
            raise ValueError(f"{file.name}: its Adam's {entry} is {str(value)[:60]!r}; a number is read, no schedule")
    return {"lr": rate, "betas": (numbers["beta_1"], numbers["beta_2"]), "eps": numbers["epsilon"]}


def _trainable(file: KerasFile) -> list[tuple[Layer, str]]:
    """Every array that is trained, with its layer, in Keras's order."""
    layers = read_graph(cast("Any", file.config), file.name).all_layers()
    return [
        (layer, path)
        for layer in layers
        if layer.trainable and layer.kind != "InputLayer"
        for path in weight_paths(file, layer)
    ]


class _State:
    """Where the numbers of the optimizer lie: (count of steps, learning rate, first moments and then second ones)."""

    def __init__(self, file: KerasFile) -> None:
        self.file = file

    def read(self) -> tuple[str, str | None, list[str]]:
        hdf5 = self.file.hdf5
        if self.file.legacy:
            names = hdf5.texts("optimizer_weights", "weight_names") or []
            places = [f"optimizer_weights/{name}" for name in names]
        else:
            numbers = sorted(int(name) for name in hdf5.names("optimizer/vars") if name.isdigit() and len(name) < 6)
            places = [f"optimizer/vars/{number}" for number in numbers]
        scalars = [place for place in places if hdf5.shape(place) == ()]
        arrays = [place for place in places if hdf5.shape(place) != ()]
        if not arrays or not 1 <= len(scalars) <= 2 or len(arrays) % 2:
            raise ValueError(f"{hdf5.name}: holds no state of Adam ({len(places)} arrays), as before its first step")
        return scalars[0], scalars[1] if len(scalars) > 1 else None, self._in_order(arrays)

    def _in_order(self, arrays: list[str]) -> list[str]:
        """All first moments, then all second ones: by their names where these say it, else pair by pair, as Keras 3."""
        first = [place for place in arrays if re.search(r"(_momentum|/m(_\d+)?)(:0)?$|/m/", place)]
        second = [place for place in arrays if re.search(r"(_velocity|/v(_\d+)?)(:0)?$|/v/", place)]
        if len(first) == len(second) and len(first) + len(second) == len(arrays):
            return first + second
        return arrays[0::2] + arrays[1::2]


def _set_state(
    file: KerasFile,
    optimizer: KerasAdam,
    plan: NetworkPlan,
    model: TwoTowers,
    step: int,
    first: dict[str, torch.Tensor],
    second: dict[str, torch.Tensor],
) -> None:
    """Give every parameter that Keras trains its moments; nothing is set unless all fit."""
    parameters = {name: value for name, value in model.named_parameters() if not plan.is_frozen(name)}
    wrong = [name for name, value in parameters.items() if name not in first or first[name].shape != value.shape]
    if wrong or len(first) != len(parameters):
        name = wrong[0] if wrong else next(iter(set(first) - set(parameters)))
        ours = tuple(parameters[name].shape) if name in parameters else "none"
        theirs = tuple(first[name].shape) if name in first else "none"
        raise ValueError(f"{file.name}: its optimizer is another network's: {name} is {theirs} there, {ours} in model")
    for name, parameter in parameters.items():
        moments = (
            moment[name].to(device=parameter.device, dtype=parameter.dtype).clone() for moment in (first, second)
        )
        average, square = moments
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step), dtype=torch.float32),
            "exp_avg": average,
            "exp_avg_sq": square,
        }
