"""Keras's Adam, for training that follows Keras step by step."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class KerasAdam(torch.optim.Adam):
    """Adam as Keras computes it: `w -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)`.

    Source: `keras.optimizers.Adam`; Kingma and Ba, "Adam" (2015), section 2, whose "epsilon hat" this `eps` is. torch
    adds its epsilon to the corrected `sqrt(v)` instead, so torch's Adam given `eps / sqrt(1 - b2^t)` makes the same
    update. Weight decay, `maximize` and the rest of a parameter group work as in torch.

    As in Keras, `t` counts the steps of the optimizer, not those of one parameter: a parameter whose first gradient
    comes in the eleventh step is corrected by the factors of t = 11. It is read from the `step` of the optimizer's
    state, so a loaded `state_dict` goes on where it was saved, torch's own Adam's included.

    torch's own choice of implementation (one parameter at a time, `foreach` on CUDA) keeps `step` on the CPU. A group
    with `fused` or `capturable` keeps it on the device: then each step waits for the device, and a CUDA graph cannot
    capture it.

    Raises:
        ValueError: a negative `lr` or `eps`, or a beta outside [0, 1).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure`, if given, computes the gradients first and its result is handed back."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        taken = self._steps_taken()
        self._align_steps(taken)
        with self._torch_eps(taken + 1):
            _without_hooks(vars(torch.optim.Adam)["step"])(self)
        return loss

    def _steps_taken(self) -> int:
        """Steps in which anything moved: the largest `step` of all parameters."""
        return max((int(state["step"]) for state in self.state.values() if state), default=0)

    def _align_steps(self, taken: int) -> None:
        """Give every parameter that is about to move the optimizer's count of steps."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state and taken:
                    state.update(_first_state(parameter, group))
                if state:
                    state["step"].fill_(taken)

    @contextmanager
    def _torch_eps(self, t: int) -> Generator[None]:
        """For one step, the epsilon with which torch's Adam does what Keras's does with the group's own."""
        own = [group["eps"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                group["eps"] /= (1 - group["betas"][1] ** t) ** 0.5
            yield
        finally:
            for group, eps in zip(self.param_groups, own, strict=True):
                group["eps"] = eps


def _first_state(parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """The state torch's Adam gives a parameter before its first step."""
    on_device = group["fused"] or group["capturable"]
    names = ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if group["amsgrad"] else [])
    step = torch.zeros((), dtype=torch.float32, device=parameter.device if on_device else "cpu")
    return {"step": step} | {name: torch.zeros_like(parameter, requires_grad=False) for name in names}


def _without_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """The plain step. An optimizer's class, once used, runs the step hooks around it: a subclass that calls it would
    run them twice."""
    while getattr(step, "hooked", False):
        step = step.__wrapped__  # type: ignore[attr-defined]
    return step
