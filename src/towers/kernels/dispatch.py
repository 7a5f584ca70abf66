"""Which code runs: chosen by the device, the dtype and the kind of the tensors."""

from typing import Literal, NamedTuple

from torch import Tensor

from towers.kernels import onnx_operator, operator, recurrence, torch_lstm, triton
from towers.kernels.batch import Batch, State, Weights, is_jit_tracing, is_plain, transformed
from towers.kernels.cpu import lstm_autograd
from towers.kernels.cpu.library import level


class Backend(NamedTuple):
    """Which code runs an LSTM, and why; `print` it."""

    name: Literal["native", "triton", "torch"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def backend(batch: Batch, count: int, weights: Weights) -> Backend:
    """The code that `run` takes for `count` sentences."""
    if weights.gates != "sigmoid":
        return Backend("torch", f"its gates are {weights.gates}: step by step in torch's own operations")
    if _on_device(batch):
        if triton.serves(batch.flat(count), weights):
            return Backend("triton", "kernels of our own run up to 128 units without a projection on this GPU")
        return Backend("torch", "not all of this has a Triton kernel: an NVIDIA GPU of compute capability 8.0 or more, "
                       "Triton, float32 or bfloat16, at most 128 units, no projection")  # fmt: skip
    refusal = lstm_autograd.refusal(batch.values, count, weights)
    if refusal is not None:
        return Backend("torch", refusal)
    return Backend("native", f"C code, compiled for {level()}")


def run(batch: Batch, state: State, weights: Weights, *, outputs: bool = True) -> tuple[Tensor | None, State]:
    """See `towers.kernels`."""
    tensors = (batch.values, *weights.flat, *state)
    if weights.gates == "sigmoid" and not _on_device(batch) and is_plain(*tensors) and all(t.is_cpu for t in tensors):
        return lstm_autograd.run(batch, state, weights, outputs=outputs)
    if onnx_operator.exporting_onnx():
        return onnx_operator.run(batch, state, weights, outputs=outputs)
    if weights.gates != "sigmoid" or transformed():
        return recurrence.run(batch, state, weights, outputs=outputs)
    if _on_device(batch):
        flat = batch.flat(state[0].shape[1])
        if not triton.serves(flat, weights):
            return torch_lstm.run(batch, state, weights, outputs=outputs)
        output, state = triton.run(flat, state, weights, outputs=outputs)
        return None if output is None else output.unflatten(0, batch.values.shape[:-1]), state
    if batch.lengths is None and is_jit_tracing():
        # What is no tensor would be a constant of the trace: the number of steps goes in as lengths.
        starts, lengths = batch.places(state[0].shape[1])
        batch = batch._replace(starts=starts if batch.values.dim() == 2 else None, lengths=lengths, longest=0)
    return operator.run(batch, state, weights, outputs=outputs)


def reads_as_they_are(batch: Batch, weights: Weights) -> bool:
    """Whether values and weights may have less than float32's precision; the state never does."""
    return _on_device(batch) and weights.gates == "sigmoid" and triton.serves(batch, weights)


def _on_device(batch: Batch) -> bool:
    return batch.values.device.type not in ("cpu", "meta")
