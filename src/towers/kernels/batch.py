"""What every LSTM backend takes: sentences, weights and states; and which tensors C code may read."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

State = tuple[Tensor, Tensor]


class Batch(NamedTuple):
    """Sentences, each of which is some neighbouring rows of the values: Ragged, padded and jagged batches alike.

    starts and lengths are int64 and lie beside the values. No lengths: all sentences are `longest` words long.
    """

    values: Tensor  # "rows input_size", or padded "batch words input_size"; what belongs to no sentence is never used
    starts: Tensor | None  # "batch": the row of each sentence's first word; None: that of padded values
    lengths: Tensor | None  # "batch"
    longest: int | None  # no sentence is longer; None: not known without reading the lengths
    dense: bool = False  # whether every row is known to belong to a sentence

    @property
    def rows(self) -> int:
        """Words that the values hold, those of no sentence included."""
        return self.values.shape[:-1].numel()

    def flat(self, batch: int) -> "Batch":
        """The same sentences as rows, for backends that do not read padded values."""
        if self.values.dim() == 2:
            return self
        starts, lengths = (None, None) if self.lengths is None else self.places(batch)
        return self._replace(values=self.values.flatten(0, -2), starts=starts, lengths=lengths)

    def places(self, batch: int) -> tuple[Tensor, Tensor]:
        """starts and lengths, made where they were not given."""
        values, starts, lengths, longest, _ = self
        if starts is None:
            starts = torch.arange(batch, device=values.device) * (self.rows // max(batch, 1))
        if lengths is None:
            lengths = torch.full((batch,), longest or 0, device=values.device)
        return starts, lengths


class Parameters(NamedTuple):
    """The parameters of one layer and direction, named as nn.LSTM's, their gates in its order i, f, g, o."""

    weight_ih: Tensor
    weight_hh: Tensor
    biases: tuple[Tensor, ...]
    weight_hr: Tensor | None


class Weights(NamedTuple):
    """An LSTM's parameters, in nn.LSTM's order and layout, and how they are used."""

    flat: tuple[Tensor, ...]  # of each layer and direction: weight_ih, weight_hh, `biases` biases, weight_hr
    biases: int  # 0, 1 or 2
    projected: bool
    num_layers: int
    bidirectional: bool
    dropout: float  # 0 outside training
    gates: str = "sigmoid"  # Keras's recurrent activation, see `recurrence`

    @property
    def hidden(self) -> int:
        """LSTM units of a layer and direction."""
        return self.flat[0].shape[0] // 4

    def of(self, layer: int, direction: int) -> Parameters:
        """The parameters of a layer and direction."""
        size = 2 + self.biases + self.projected
        first = (layer * (1 + self.bidirectional) + direction) * size
        w_ih, w_hh, *rest = self.flat[first : first + size]
        w_hr = rest.pop() if self.projected else None
        return Parameters(w_ih, w_hh, tuple(rest), w_hr)


def check_sizes(values: Tensor, state: State, weights: Weights) -> None:
    """Refuse sizes with which code on the CPU would read beyond the end of a tensor.

    Raises:
        RuntimeError: sizes or dtypes do not fit each other.
    """
    tensors = (values, *state, *weights.flat)
    found, kind = [part.shape for part in tensors], weights[1:5]
    inputs, (rows, count, width), (_, _, hidden) = found[0][-1], found[1], found[2]
    states = [(rows, count, width if weights.projected else hidden), (rows, count, hidden)]
    fits = rows == weights.num_layers * (1 + weights.bidirectional) and found[1:3] == states
    if not fits or found[3:] != _shapes(inputs, width, hidden, *kind) or len({part.dtype for part in tensors}) > 1:
        dtypes = ", ".join(sorted({str(part.dtype) for part in tensors}))
        own = ["weight_ih", "weight_hh", *["bias"] * weights.biases, *["weight_hr"] * weights.projected]
        names = ", ".join(["x", "h_0", "c_0", *own * (weights.num_layers * (1 + weights.bidirectional))])
        shapes = ", ".join(str(tuple(part.shape)) for part in tensors)
        raise RuntimeError(f"RaggedLSTM: {names} are {shapes} ({dtypes}): they do not fit")


@lru_cache(64)
def _shapes(
    inputs: int, width: int, hidden: int, biases: int, projected: bool, num_layers: int, bidirectional: bool
) -> list[tuple[int, ...]]:
    """Of an LSTM's parameters."""
    shapes: list[tuple[int, ...]] = []
    for _ in range(num_layers):
        own = [(4 * hidden, inputs), (4 * hidden, width), *[(4 * hidden,)] * biases]
        shapes += (own + [(width, hidden)] * projected) * (1 + bidirectional)
        inputs = width * (1 + bidirectional)
    return shapes


_c: Any = torch._C
_torch: Any = torch
is_jit_tracing: Callable[[], bool] = _torch.jit.is_tracing
_is_compiling: Any = torch.compiler.is_compiling
_dispatch_modes, _function_modes, _traced = (
    _c._len_torch_dispatch_stack,
    _c._len_torch_function_stack,
    _c._get_tracing_state,
)
_forward_ad: Any = forward_ad
_transform: Any = _c._functorch.peek_interpreter_stack
_transforms: Any = _c._functorch.get_dynamic_layer_stack_depth  # torch.compile knows this one as a number
is_functorch_wrapped_tensor: Any = _c._functorch.is_functorch_wrapped_tensor
_CLASSES = frozenset((Tensor, nn.Parameter))


def plain() -> bool:
    """Whether this is eager code: nothing records, wraps or transforms the operations of this thread."""
    return not (
        _is_compiling()
        or _dispatch_modes()
        or _function_modes()
        or _transform() is not None
        or _forward_ad._current_level >= 0
        or _traced() is not None
    )


def transformed() -> bool:
    """Whether `torch.func` or forward mode takes derivatives: only torch's own operations have all of them."""
    return _transforms() > 0 or _forward_ad._current_level >= 0


def is_plain(*tensors: Tensor) -> bool:
    """Whether all are ordinary tensors in eager code: not traced, compiled, wrapped by `torch.func`, or dual.

    Only then may code read values, keep results, or use a backward pass of its own.
    """
    return plain() and _CLASSES.issuperset(map(type, tensors)) and not any(map(is_functorch_wrapped_tensor, tensors))


def is_strided(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this is an ordinary strided tensor of that dtype on that device, wrapped by nothing."""
    return (
        type(tensor) in _CLASSES
        and tensor.dtype is dtype
        and tensor.device == device
        and tensor.layout is torch.strided
        and not is_functorch_wrapped_tensor(tensor)
    )


def as_tensors(*tensors: Tensor) -> list[Tensor]:
    """What an operation was called with, without the classes that others gave to tensors: they have done their part."""
    return [part if type(part) in (Tensor, nn.Parameter) else part.as_subclass(Tensor) for part in tensors]


def connected(result: Tensor, *tensors: Tensor) -> Tensor:
    """A fresh tensor of the same numbers, of which each of the tensors has a gradient, if only 0."""
    nothing = [tensor.flatten()[:0].sum() for tensor in tensors if tensor.requires_grad]
    return sum(nothing, result.clone()) if torch.is_grad_enabled() else result.clone()
