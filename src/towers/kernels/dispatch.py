"""Which code runs, by where the tensors lie and what they are."""

from types import ModuleType

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore

from towers.kernels import operator, torch_lstm, triton
from towers.kernels.batch import Batch, State, Weights, refuse_forward_mode
from towers.kernels.cpu import lstm_autograd

device_backends: list[ModuleType] = [triton, torch_lstm]


def run(
    batch: Batch, state: State, weights: Weights, *, outputs: bool = True, method: str = "auto"
) -> tuple[Tensor | None, State]:
    """See `towers.kernels`."""
    refuse_forward_mode(batch.values, *state, *weights.flat)
    if _on_device(batch):
        flat = batch.flat(state[0].shape[1])
        way = next(way for way in device_backends if way.serves(flat, weights))
        output, state = way.run(flat, state, weights, outputs=outputs)
        return None if output is None else output.unflatten(0, batch.values.shape[:-1]), state
    if _plain(batch.values) and _plain(weights.flat[0]) and _plain(state[0]):
        return lstm_autograd.run(batch, state, weights, outputs=outputs, method=method)
    return operator.run(batch, state, weights, outputs=outputs, method=method)


def reads_as_they_are(batch: Batch, weights: Weights) -> bool:
    """Whether values and weights may have less than float32's precision; the state never does."""
    return _on_device(batch) and triton.serves(batch, weights)


def _on_device(batch: Batch) -> bool:
    return batch.values.device.type not in ("cpu", "meta")


def _plain(tensor: Tensor) -> bool:
    """Real numbers in memory, that no transformation looks at."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not is_functorch_wrapped_tensor(tensor)
    )
