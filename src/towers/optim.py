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
    comes in the eleventh step is corrected by the factors of t = 11. `t` is read from the `step` of the optimizer's
    state, so that a loaded `state_dict` continues where it was saved, also one of torch's own Adam.

    torch's default implementations (one parameter at a time, `foreach` on CUDA) keep `step` on the CPU. A group with
    `fused` or `capturable` keeps it on the device: then each step waits for the device, and a CUDA graph cannot capture
    it.

    Args:
        params: parameters, or groups of them, as for torch's Adam.
        lr: the learning rate.
        betas: b1 and b2, the decay of the averages m of the gradient and v of its square.
        eps: what is added to sqrt(v).

    Raises:
        ValueError: `lr` or `eps` is negative, or a beta is not in [0, 1).

    >>> import torch
    >>> from towers.optim import KerasAdam
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> optimizer = KerasAdam([weight], lr=0.5)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> round(weight.item(), 3)  # the first step has the size lr, whatever the gradient
    0.5
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
        """Take one step. A `closure` is called first, to compute the gradients; its result is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        taken = self._align_steps()
        with self._torch_eps(taken + 1):
            _without_hooks(vars(torch.optim.Adam)["step"])(self)
        return loss

    def _align_steps(self) -> int:
        """The number of steps so far, the largest `step` of all parameters; all with a gradient get it."""
        steps = {parameter: int(state["step"]) for parameter, state in self.state.items() if state}
        taken = max(steps.values(), default=0)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or steps.get(parameter, 0) == taken:
                    continue
                state = self.state[parameter]
                if not state:
                    state.update(_first_state(parameter, group))
                state["step"].fill_(taken)
        return taken

    @contextmanager
    def _torch_eps(self, t: int) -> Generator[None]:
        """For one step, the epsilon with which torch's Adam makes Keras's update."""
        own = [group["eps"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                group["eps"] /= (1 - group["betas"][1] ** t) ** 0.5
            yield
        finally:
            for group, eps in zip(self.param_groups, own, strict=True):
                group["eps"] = eps


def _first_state(parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """The state that torch's Adam gives a parameter before its first step."""
    on_device = group["fused"] or group["capturable"]
    names = ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if group["amsgrad"] else [])
    step = torch.zeros((), dtype=torch.float32, device=parameter.device if on_device else "cpu")
    return {"step": step} | {name: torch.zeros_like(parameter, requires_grad=False) for name in names}


def _without_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step without its hooks. When an optimizer's class is first used, torch wraps its step in the step hooks; a
    subclass that calls it would run them twice."""
    while getattr(step, "hooked", False):
        step = vars(step)["__wrapped__"]
    return step
