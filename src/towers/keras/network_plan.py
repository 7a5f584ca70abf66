"""What was found in a Keras network: two towers and their head, each with the layers of the file."""

from dataclasses import dataclass
from typing import cast

from towers import checkpoint
from towers.keras.graph import Json, Layer
from towers.keras.settings import has_bias
from towers.model import TwoTowers


class Needs(ValueError):
    """An argument is missing.

    Attributes:
        problem: without what to do.
        argument: what to do, in Python.
        option: what to do, in the words of the command.
    """

    def __init__(self, problem: str, argument: str, option: str) -> None:
        super().__init__(f"{problem} {argument}")
        self.problem, self.argument, self.option = problem, argument, option


@dataclass(frozen=True)
class TowerPlan:
    """One tower as Keras has it: its layers and sizes."""

    conv: Layer
    lstm: Layer
    embedding: Layer | None
    source: Layer
    words: int | None
    vector_width: int
    kernel_words: int
    filters: int
    pool: int
    hidden: int
    recurrent_activation: str
    stages: tuple[tuple[str, str], ...]
    chunk: int | None = None

    @property
    def features(self) -> int:
        """The LSTM's input width."""
        return self.filters // self.pool


@dataclass(frozen=True)
class NetworkPlan:
    """A network of two towers: `left` is the first operand of the difference.

    `training` says what acts in training only, and is left out; `called` what calls of the model differ from Keras's;
    `remarks` what else the user should know. `dropout` is that of the states' difference; `dense_dropout` and
    `word_dropout` are never said by a file.
    """

    left: TowerPlan
    right: TowerPlan
    dense: Layer
    logit: Layer
    dense_units: int
    probabilities: bool
    remarks: tuple[str, ...]
    training: tuple[str, ...] = ()
    dropout: float = 0.0
    dense_dropout: float = 0.0
    word_dropout: float = 0.0
    called: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether both towers are one."""
        return self.left.conv is self.right.conv

    def towers(self) -> list[tuple[str, TowerPlan]]:
        """Each tower once, with its name in TwoTowers."""
        return [("left", self.left)] if self.shared else [("left", self.left), ("right", self.right)]

    def layers(self) -> list[tuple[str, Layer]]:
        """Each layer that has numbers, with the name of its module in TwoTowers."""
        found = [("dense", self.dense), ("logit", self.logit)]
        for side, tower in self.towers():
            found += [(f"{side}.conv", tower.conv), (f"{side}.lstm", tower.lstm)]
        return found

    def without_bias(self) -> list[tuple[str, Layer]]:
        """The biases of TwoTowers that Keras does not have (use_bias=False), by name, each with its layer."""
        biases = [
            (f"{name}.bias_ih_l0" if name.endswith("lstm") else f"{name}.bias", own) for name, own in self.layers()
        ]
        return [(name, layer) for name, layer in biases if not has_bias(layer)]

    def is_frozen(self, parameter: str) -> bool:
        """Whether Keras does not train a parameter of TwoTowers: its layer is frozen, or has no such bias."""
        frozen = any(parameter.startswith(f"{name}.") and not layer.trainable for name, layer in self.layers())
        return frozen or any(parameter == name for name, _ in self.without_bias())


def other_parts(model: TwoTowers) -> list[str]:
    """The parts of a model that no network in a file of Keras has: "outputs=3", "left bidirectional=True"."""
    if not model.has_other_parts:
        return []
    sizes = model.sizes()
    parts = [f"{name}={sizes[name]!r}" for name in ("features", "outputs", "second") if name in sizes]
    for side in ("left", "right"):
        tower = sizes.get(side)
        if isinstance(tower, dict):  # "left": one tower is both
            own = cast("Json", tower)
            names = [name for name in ("filters", "hidden") if own.get(name, 1) is None]
            names += [name for name in sorted(checkpoint.NEW_IN_3) if name in own]
            parts += [f"{side} {name}={own[name]!r}" for name in names]
    return parts
