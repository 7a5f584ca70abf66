"""The progress of a training as JSON and tensors, saved and restored: everything that the next step depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from towers.training.history import History
from towers.training.processes import Together

if TYPE_CHECKING:
    from towers.training.loop import TowersModule

RANDOM_STREAM = 1_000_003
"""The difference between the seeds of two processes."""


@dataclass
class Progress:
    """The progress of a training.

    Attributes:
        history: the finished epochs.
        batch: the finished batches of the epoch after them.
        seconds: how long these batches took.
        steps: all finished batches.
        best_weights: the weights of the best epoch on dev; empty without dev pairs.
        average: the moving average of the weights, where there is one.
    """

    history: History
    batch: int = 0
    seconds: float = 0.0
    steps: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    average: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history.epochs)

    def over(self, epochs: int, patience: int | None) -> bool:
        """Whether the training is finished."""
        return self.epoch >= epochs or (patience is not None and self.history.stale >= patience)

    def as_dict(self) -> dict[str, Any]:
        """Everything except the tensors, in JSON's types."""
        position = {"batch": self.batch, "seconds": self.seconds, "steps": self.steps}
        return {"history": self.history.as_dict(), "position": position}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Progress":
        """The progress from the results of `as_dict` and `tensors_of`."""
        best, average = _under("best.", tensors), _under("average.", tensors)
        return cls(History.from_dict(entries["history"]), **entries["position"], best_weights=best, average=average)


def tensors_of(module: "TowersModule", pairs: int, progress: Progress, together: Together) -> dict[str, Tensor]:
    """Copies on the CPU of all tensors that the next step depends on. Every process must call this.

    `pairs` is the number of training pairs.
    """
    logits, seen = module.train_logits.dense(pairs)
    random = {"random.cpu": torch.get_rng_state()}
    if module.device.type == "cuda":
        random["random.cuda"] = torch.cuda.get_rng_state(module.device)
    together_random = {name: together.stack(state) for name, state in random.items()}
    learned = {f"model.{name}": value for name, value in module.model.state_dict().items()}
    tensors = {**learned, **_optimizer_state(module)}
    tensors |= {f"best.{name}": value for name, value in progress.best_weights.items()}
    tensors |= {f"average.{name}": value for name, value in progress.average.items()}
    copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    if progress.batch:
        copies |= {"epoch.logits": together.sum(logits), "epoch.seen": together.sum(seen)}
    return copies | together_random


def restore(tensors: Mapping[str, Tensor], module: "TowersModule", together: Together) -> None:
    """Restore what `tensors_of` copied. Lightning must have set up the optimizer before.

    Raises:
        RuntimeError: the weights have other names or shapes than the run's.
    """
    module.model.load_state_dict(_under("model.", tensors))
    optimizer = module.optimizer
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors).items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    if "epoch.seen" in tensors and together.main:  # logits are summed over processes, so only one may have the old ones
        index = tensors["epoch.seen"].nonzero().squeeze(1)
        module.train_logits.add(index, tensors["epoch.logits"][index].to(module.device))
    if together.rank < len(tensors["random.cpu"]):
        torch.set_rng_state(
            tensors["random.cpu"][together.rank].clone()
        )  # set_rng_state reads the wrong bytes of a view
        if module.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"][together.rank].clone(), module.device)
    else:
        own_stream(module, together)


def own_stream(module: "TowersModule", together: Together) -> None:
    """Give each process except the first its own random numbers, for what is random in a model."""
    if together.rank:
        seed = torch.initial_seed() + RANDOM_STREAM * together.rank
        torch.default_generator.manual_seed(seed)
        if module.device.type == "cuda":
            torch.cuda.manual_seed(seed)


def _optimizer_state(module: "TowersModule") -> dict[str, Tensor]:
    state = module.optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{name}": value for i, values in state.items() for name, value in values.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
