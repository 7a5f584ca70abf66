"""The options of a training: defaults, checks that need no pairs, what a resumed run may change, required packages."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from numbers import Integral, Real
from typing import Any, Literal, Self, TypedDict

import torch

PACKAGES = ("lightning", "torchmetrics", "safetensors", "matplotlib")
"""The packages that training needs and `import towers` does not."""
_EXTRAS = {"tensorboard": "train,tensorboard"}
Optimizer = Literal["keras-adam", "adamw"]
Precision = Literal["32-true", "bf16-mixed", "bf16-true", "64-true"]


class Options(TypedDict, total=False):
    """Keywords of `fit`; `Settings` has their defaults."""

    epochs: int
    batch_size: int
    lr: float
    final_lr: float | None
    optimizer: Optimizer
    weight_decay: float
    average: float | None
    correlation: float
    smoothing: float
    second_weight: float
    dropout_samples: int
    by_length: bool
    seed: int
    keep_best: str | None
    patience: int | None
    save_every: float
    tensorboard: bool
    device: str | torch.device
    devices: int | str
    nodes: int
    strategy: str
    precision: Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All options of a training, checked.

    Raises:
        ValueError: a number is out of range, the device does not exist, two options exclude each other, `precision`
            is unknown.
    """

    epochs: int = 10
    batch_size: int = 5
    lr: float = 1e-3
    final_lr: float | None = None
    optimizer: Optimizer = "keras-adam"
    weight_decay: float = 0.0
    average: float | None = None
    correlation: float = 0.0
    smoothing: float = 0.0
    second_weight: float = 0.3
    dropout_samples: int = 1
    by_length: bool = True
    seed: int = 0
    keep_best: str | None = None
    patience: int | None = None
    save_every: float = 30.0
    tensorboard: bool = False
    device: str | torch.device = "auto"
    devices: int | str = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: Precision = "32-true"

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", str(self.device))  # as JSON can hold it
        for name in ("epochs", "batch_size", "nodes", "dropout_samples") + (
            () if self.patience is None else ("patience",)
        ):
            _check_whole(name, getattr(self, name), 1, math.inf)
        _check_whole("seed", self.seed, 0, 2**32 - 1)
        _check_number("lr", self.lr, above=0)
        if self.final_lr is not None:
            _check_number("final_lr", self.final_lr, least=0)
        check_choice("optimizer", self.optimizer, Optimizer.__args__)
        _check_number("weight_decay", self.weight_decay, least=0)
        if self.average is not None and not (isinstance(self.average, Real) and 0 <= float(self.average) < 1):
            raise ValueError(f"average ({self.average}) must be a number of at least 0 and below 1, such as 0.999")
        for name in ("correlation", "second_weight"):
            _check_number(name, getattr(self, name), least=0)
        if not (isinstance(self.smoothing, Real) and 0 <= float(self.smoothing) < 1):
            raise ValueError(f"smoothing ({self.smoothing}) must be a number of at least 0 and below 1, such as 0.1")
        if type(self.by_length) is not bool:
            raise ValueError(f"by_length ({self.by_length!r}) must be True or False")
        if self.patience is not None and self.keep_best == "last":
            problem = "waits for a better epoch, and keep_best='last' keeps the last one"
            raise ValueError(f"patience ({self.patience}) {problem}: leave patience out, or choose another keep_best")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight_decay ({self.weight_decay}) goes with optimizer='adamw'")
        _check_number("save_every", self.save_every, least=0)
        check_choice("precision", self.precision, Precision.__args__)
        self._check_devices()

    def _check_devices(self) -> None:
        place = self.place
        if isinstance(self.devices, str):
            self._check_listed(place)
        else:
            _check_whole("devices", self.devices, 1, math.inf)
        if place != torch.device(place.type) and self.devices != 1:
            raise ValueError(f"device ({place}) is one device; with devices ({self.devices}) say device cuda")
        if isinstance(self.devices, int) and place.type == "cuda" and self.devices > torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise ValueError(f"devices ({self.devices}): torch finds {found} CUDA devices here; say at most {found}")

    def _check_listed(self, place: torch.device) -> None:
        """`auto`, or the numbers of CUDA devices."""
        if self.devices == "auto":
            return
        listed = str(self.devices).split(",")
        if not all(number.strip().isdecimal() for number in listed):
            raise ValueError(f"devices ({self.devices!r}) must be a number, 'auto', or numbers such as '0,2'")
        if place.type != "cuda":
            raise ValueError(f"devices ({self.devices!r}) lists CUDA devices; on the CPU say how many processes")
        found = torch.cuda.device_count()
        if any(int(number) >= found for number in listed):
            raise ValueError(f"devices ({self.devices!r}): torch finds {found} CUDA devices here, counted from 0")

    @property
    def place(self) -> torch.device:
        """The torch device."""
        return find_device(self.device)

    @property
    def alone(self) -> bool:
        """Whether the options ask for a single process."""
        return self.devices == 1 and self.nodes == 1 and self.strategy == "auto"

    def as_dict(self) -> dict[str, Any]:
        """The settings in JSON's types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """The settings from the result of `as_dict`; the device is checked again, since the machine may differ."""
        return cls(**{name: entries[name] for name in (field.name for field in fields(cls)) if name in entries})


MAY_CHANGE = ("epochs", "patience", "save_every", "tensorboard", "device", "devices", "nodes", "strategy")
"""The options that a resumed run may change: how long it runs, and where. All others decide what is learned."""


def renewed(entries: Mapping[str, Any], given: Mapping[str, Any], folder: object) -> Settings:
    """The settings of a resumed run, with the given options in place of its own.

    Raises:
        ValueError: an option that may not change differs, or there are fewer epochs than before.
    """
    new = dict(entries)
    for name, value in given.items():
        before = entries.get(name)
        value = str(value) if isinstance(value, torch.device) else value
        if value != before and name not in MAY_CHANGE:
            problem = f"contradicts the run in {folder}, which has {before}"
            raise ValueError(f"{name} ({value}) {problem}; leave it out, or start another run")
        new[name] = value
    settings = Settings.from_dict(new)
    if settings.epochs < entries.get("epochs", 1):
        before = entries["epochs"]
        raise ValueError(f"epochs ({settings.epochs}) are fewer than the {before} of the run in {folder}; say more")
    return settings


def find_device(device: str | torch.device) -> torch.device:
    """The torch device of an option; "auto" is CUDA if there is a CUDA device, else the CPU.

    Raises:
        ValueError: it does not exist, or towers does not support it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device ({device!r}) is none that torch knows; say auto, cpu or cuda") from None
    if place.type not in ("cpu", "cuda"):
        raise ValueError(f"device ({str(place)!r}) is none that towers trains on; say auto, cpu or cuda")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device ({place}): torch finds {torch.cuda.device_count()} CUDA devices here; say auto or cpu"
        )
    return place


def check_arguments(*, batch_size: Any, device: str | torch.device, precision: str) -> torch.device:
    """Check the arguments of measuring and predicting that need no pairs, and return the torch device.

    Raises:
        ValueError: a number is out of range, the device does not exist, `precision` is unknown.
    """
    _check_whole("batch_size", batch_size, 1, math.inf)
    check_choice("precision", precision, Precision.__args__)
    return find_device(device)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that a value is one of the choices.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{name} ({value!r}) must be one of {', '.join(map(repr, choices))}")


def _check_whole(name: str, value: object, low: int, high: float) -> None:
    if isinstance(value, bool) or not (isinstance(value, Integral) and low <= int(value) <= high):
        limits = f"of at least {low}" if high == math.inf else f"from {low} to 2**32 - 1"
        raise ValueError(f"{name} ({value}) must be an int {limits}")


def _check_number(name: str, value: object, *, above: float = -math.inf, least: float = -math.inf) -> None:
    if not (isinstance(value, Real) and float(value) > above and least <= float(value) < math.inf):
        limit = f"above {above}" if least == -math.inf else f"of at least {least}"
        raise ValueError(f"{name} ({value}) must be a finite number {limit}")


def require(*packages: str) -> None:
    """Check that packages are installed, without importing them, before any work is done.

    Raises:
        ImportError: one is not installed; the message has the command that installs it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise ImportError(f'{package} is not installed: pip install "towers[{_EXTRAS.get(package, "train")}]"')
