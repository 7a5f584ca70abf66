"""RaggedLSTM: an LSTM over sentences of different lengths."""

import warnings
from contextlib import nullcontext
from numbers import Real
from typing import Any, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from towers.contracts import ShapeContractError
from towers.contracts.errors import complaint
from towers.contracts.modes import autocast, may_read
from towers.contracts.operations import operation
from towers.convert import like_input, to_ragged
from towers.kernels import Backend, Batch, State, Weights, reads_as_they_are
from towers.kernels import backend as chosen_backend
from towers.kernels import run as run_kernels
from towers.kernels.batch import is_jit_tracing
from towers.kernels.cpu.door import Accepted
from towers.kernels.recurrence import GATES, Gates
from towers.layers.axis_order import in_every_order, is_steps_first, is_unbatched
from towers.layers.drop_in import DropIn
from towers.layers.eager_triton import run_on_gpu
from towers.layers.from_torch import from_torch, to_torch
from towers.layers.plain_lstm import run_plain, run_word_ids
from towers.layers.validation import at_least_one, is_int, refuse
from towers.ragged import Ragged


class RaggedLSTM(DropIn):
    """nn.LSTM for sentences of different lengths: its parameters, initial values, attributes and results.

    Takes padded input (with lengths), a PackedSequence, a jagged nested tensor or Ragged, and returns the same kind.
    It computes in float32 at least; under autocast output and h_n have autocast's dtype, c_n stays float32.
    The C code (`backend` says whether it runs) gives a sentence the same bits whatever stands beside it.
    On an NVIDIA GPU with Triton, up to 128 units without a projection run in kernels of our own
    (`towers.kernels.triton`), which do not wait for the GPU; all else goes through cuDNN, padded. Above 64 units in
    float32 their weights are read anew at each step; bfloat16 weights, or TF32 products where torch allows them, are
    faster.

    In place of an nn.LSTM:

        nn.LSTM                          here
        batch_first=False, its default   True is the default; `from_torch` keeps the other's own. With False, padded
                                         input and output are (steps, batch, …); Ragged, jagged and packed ignore it
        sizes, dropout, bidirectional    the same; sizes may be NumPy's ints. `bias` may be "single" too
        parameters, state_dict           the same names, shapes and initial values, both ways (`from_torch`, `to_torch`)
        lstm(input, hx)                  the same, unbatched input too; hx may be a list. `lengths` is new: unbatched
                                         input has one number, and output past a sentence's end is 0
        output                           contiguous, whatever batch_first is
        h_n, c_n                         tensors of their own, which may be changed in place
        no sentences, no steps           empty output, and h_n and c_n as they came (nn.LSTM refuses no steps)
        RuntimeError, TypeError          ShapeContractError (a TypeError) of input that does not fit, ValueError of
                                         arguments of the constructor
        isinstance                       an nn.RNNBase, not an nn.LSTM: quantize_dynamic leaves it as it is
        mode, all_weights                the same, and so are _all_weights and _flat_weights_names
        _flat_weights                    a tuple, made anew at each reading: nothing can be written into it
        flatten_parameters()             does nothing; reset_parameters() is the same
        a weight that is replaced        seen by the next call: pruning, weight drop, functional_call, DataParallel
        a parametrized weight            computed when it is read: weight_ih_l0 three times in a call, others once
                                         (nn.LSTM: each twice)
        torch.jit.script                 an nn.LSTM of the same parameters takes its place, with a warning

    Args:
        input_size, hidden_size, num_layers, dropout, bidirectional, proj_size: as nn.LSTM's.
        bias: True for nn.LSTM's two biases, which are added; "single" for one trainable bias, as in Keras (then only
            `bias_ih_l{k}` exists, and loading a state_dict with two sums them); False for none.
        batch_first: whether padded input is (batch, steps, input_size), or (steps, batch, input_size).
        recurrent_activation: the function of the gates: "sigmoid", as nn.LSTM's; or Keras's "hard_sigmoid", that of
            Keras 3 (relu6(x + 3) / 6), and "hard_sigmoid_keras2", that of Keras 1 and 2 (clip(0.2 x + 0.5, 0, 1)).
            These two run step by step in torch's own operations, without kernels of ours.

    Raises:
        ValueError: an argument is none of those, or sizes do not fit.

    >>> import torch
    >>> from towers import RaggedLSTM
    >>> lstm = RaggedLSTM(5, 3)
    >>> output, (h_n, c_n) = lstm(torch.randn(2, 4, 5), lengths=torch.tensor([4, 2]))
    >>> output.shape, h_n.shape  # (batch, steps, hidden_size) and (1, batch, hidden_size)
    (torch.Size([2, 4, 3]), torch.Size([1, 2, 3]))
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool | Literal["single"] = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        recurrent_activation: Gates = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if type(batch_first) is not bool:
            refuse(self, f"batch_first ({batch_first!r}) must be True or False")
        if not (isinstance(bias, bool) or bias == "single"):
            refuse(self, f'bias ({bias!r}) must be True, False or "single"')
        if type(bidirectional) is not bool:
            refuse(self, f"bidirectional ({bidirectional!r}) must be True or False")
        if type(dropout) is bool or not isinstance(dropout, Real) or not 0 <= dropout <= 1:
            refuse(self, f"dropout ({dropout!r}) must be a probability, from 0 to 1")
        sizes = at_least_one(self, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        self.input_size, self.hidden_size, self.num_layers = sizes
        if not is_int(proj_size) or not 0 <= proj_size < hidden_size:
            refuse(self, f"proj_size ({proj_size}) must be less than hidden_size ({hidden_size}), or 0 for none")
        if recurrent_activation not in GATES:
            refuse(self, f"recurrent_activation ({recurrent_activation!r}) must be one of {', '.join(GATES)}")
        if dropout and num_layers == 1:
            problem = f"dropout ({dropout}) lies between layers: with num_layers=1 it does nothing"
            warnings.warn(complaint(type(self).__name__, problem), stacklevel=2)
        self.recurrent_activation = recurrent_activation
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, int(proj_size)
        self.accepted = Accepted()
        self._in_order = [name for names in self.names() for name in names]
        for name, shape in self._parameter_shapes().items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    # Its sizes and parameters.

    @property
    def state_rows(self) -> int:
        """The first axis of h_n and c_n: layers x directions."""
        return self.num_layers * (1 + self.bidirectional)

    @property
    def state_width(self) -> int:
        """The width of h_n: `proj_size` where there is a projection, else `hidden_size`."""
        return self.proj_size or self.hidden_size

    @property
    def output_width(self) -> int:
        """The width of the output: that of h_n for each direction."""
        return self.state_width * (1 + self.bidirectional)

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        gates = 4 * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for names in self.names():
            for name in names:
                width = self.input_size if "_l0" in name else self.output_width
                shapes[name] = {
                    "weight_ih": (gates, width),
                    "weight_hh": (gates, self.state_width),
                    "weight_hr": (self.proj_size, self.hidden_size),
                }.get(name[:9], (gates,))
        return shapes

    def extra_repr(self) -> str:
        """Its sizes, and what is not as usual, for `repr`."""
        usual: dict[str, object] = {"num_layers": 1, "bias": True, "batch_first": True, "dropout": 0.0}
        usual |= {"bidirectional": False, "proj_size": 0, "recurrent_activation": "sigmoid"}
        others = [f"{name}={getattr(self, name)!r}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join([str(self.input_size), str(self.hidden_size), *others])

    # The run.

    @in_every_order(where=("0 <= lengths <= steps",), dtype_of="weight_ih_l0")
    def forward(
        self,
        input: Float[Tensor | Ragged | PackedSequence, "batch steps {self.input_size}"],
        hx: tuple[
            Float[Tensor, "{self.state_rows} batch {self.state_width}"],
            Float[Tensor, "{self.state_rows} batch {self.hidden_size}"],
        ]
        | None = None,
        *,
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> tuple[
        Float[Tensor | Ragged | PackedSequence, "batch steps {self.output_width}"],
        tuple[
            Float[Tensor, "{self.state_rows} batch {self.state_width}"],
            Float[Tensor, "{self.state_rows} batch {self.hidden_size}"],
        ],
    ]:
        """Output of every step, and the states at each sentence's own end; a sentence of length 0 keeps its state.

        Output past a padded sentence's end is 0. The axes are in the order of `batch_first`; one sentence (steps,
        input_size), its states and its length have no axis for the batch.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or lengths stand beside input that has its own.
            ValueError: a length is negative or above `steps`.
        """
        return self._run(input, hx, lengths, outputs=True)

    @in_every_order(where=("0 <= lengths <= steps",), dtype_of="weight_ih_l0")
    def last(
        self,
        input: Float[Tensor | Ragged | PackedSequence, "batch steps {self.input_size}"],
        hx: tuple[
            Float[Tensor, "{self.state_rows} batch {self.state_width}"],
            Float[Tensor, "{self.state_rows} batch {self.hidden_size}"],
        ]
        | None = None,
        *,
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "{self.state_rows} batch {self.state_width}"]:
        """Only h_n, each sentence's at its own end, as `forward` has it; faster, as nothing else is made.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or lengths stand beside input that has its own.
            ValueError: a length is negative or above `steps`.
        """
        return self._run(input, hx, lengths, outputs=False)[1][0]

    @in_every_order(where=("0 <= lengths <= steps",), dtype_of="weight_ih_l0")
    def backend(
        self,
        input: Float[Tensor | Ragged | PackedSequence, "batch steps {self.input_size}"],
        hx: tuple[
            Float[Tensor, "{self.state_rows} batch {self.state_width}"],
            Float[Tensor, "{self.state_rows} batch {self.hidden_size}"],
        ]
        | None = None,
        *,
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Backend:
        """Which code `forward` would run for this input, "native", "triton" or "torch", and why; `print` it.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or lengths stand beside input that has its own.
            ValueError: a length is negative or above `steps`, or TOWERS_NATIVE is set to something unknown.
        """
        if isinstance(input, Tensor) and not input.is_nested:
            batch, count = _batch_of_padded(input, lengths), input.shape[0]
        else:
            ragged = to_ragged(input, lengths, owner=self)
            batch, count = _batch_of_ragged(ragged), ragged.batch
        dtype = torch.promote_types(self.weight_ih_l0.dtype, torch.float32)
        weights = self._weights()
        if not reads_as_they_are(batch, weights):
            batch, weights = batch._replace(values=batch.values.to(dtype)), self._weights(dtype)
        return chosen_backend(batch, count, weights)

    def _run(self, input: Any, hx: State | None, lengths: Tensor | None, *, outputs: bool) -> tuple[Any, State]:
        """From any kind of input to a batch for the kernels, and back to the same kind."""
        if is_unbatched(input):
            hx = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
            lengths = None if lengths is None else lengths.reshape(1)
            output, (h_n, c_n) = self._padded(input.unsqueeze(0), hx, lengths, outputs)
            return None if output is None else output.squeeze(0), (h_n.squeeze(1), c_n.squeeze(1))
        if is_steps_first(self, input):
            output, state = self._padded(input.transpose(0, 1), hx, lengths, outputs)
            return None if output is None else output.transpose(0, 1).contiguous(), state
        if isinstance(input, Tensor) and not input.is_nested:
            return self._padded(input, hx, lengths, outputs)
        ragged = to_ragged(input, lengths, owner=self, keep_ids=True)
        found = run_word_ids(self, ragged, hx, outputs=outputs)
        if found is None:
            ragged = ragged.vectors()
            found = (run_plain if ragged.values.is_cpu else run_on_gpu)(self, ragged, hx, None, outputs=outputs)
        output, state = found or self.run_batch(_batch_of_ragged(ragged), ragged.batch, hx, outputs=outputs)
        return output if output is None else like_input(ragged.with_values(output), input), state

    def _padded(
        self, input: Tensor, hx: State | None, lengths: Tensor | None, outputs: bool
    ) -> tuple[Tensor | None, State]:
        """Of a batch, batch first."""
        found = (run_plain if input.is_cpu else run_on_gpu)(self, input, hx, lengths, outputs=outputs)
        return found or self.run_batch(_batch_of_padded(input, lengths), input.shape[0], hx, outputs=outputs)

    def run_batch(
        self, batch: Batch, count: int, hx: State | None = None, *, outputs: bool
    ) -> tuple[Tensor | None, State]:
        """As `forward`, for `count` sentences as the kernels take them: what other layers call.

        `outputs` says whether the outputs of all steps are wanted; without them only the last states are made.
        """
        own, values = self.weight_ih_l0, batch.values
        dtype = torch.promote_types(own.dtype, torch.float32)  # a state loses too much in less
        if hx is None:
            zeros = own.new_zeros(self.state_rows, count, self.hidden_size, dtype=dtype)
            hx = (zeros[..., : self.proj_size] if self.proj_size else zeros, zeros)
        self._guard(values, count, hx)
        mixed = torch.is_autocast_enabled("cpu") if own.is_cpu else autocast(own.device)
        if not mixed and own.dtype == values.dtype == dtype and own.is_cpu:
            return run(batch, hx, self._weights(), outputs=outputs)
        with torch.autocast(own.device.type, enabled=False) if mixed else nullcontext():
            weights = self._weights()
            if not reads_as_they_are(batch, weights):
                batch, weights = batch._replace(values=values.to(dtype)), self._weights(dtype)
            output, (h_n, c_n) = run(batch, (hx[0].to(dtype), hx[1].to(dtype)), weights, outputs=outputs)
        small = torch.get_autocast_dtype(own.device.type) if mixed else own.dtype
        state = (h_n.to(small), c_n.to(dtype if mixed else small))
        return None if output is None else output.to(small), state

    def _guard(self, values: Tensor, batch: int, state: State) -> None:
        """Refuse sizes that do not fit even where contracts are off: torch's CPU path would read out of bounds."""
        rows, width, hidden = self.state_rows, self.state_width, self.hidden_size
        expected = ((self.input_size,), (rows, batch, width), (rows, batch, hidden))
        found = (values.shape[-1:], state[0].shape, state[1].shape)
        if found == expected:
            return
        for name, part, wanted in zip(("input", "hx[0]", "hx[1]"), found, expected, strict=True):
            if part != wanted:
                raise ShapeContractError(complaint("RaggedLSTM.forward", f"{name} is {tuple(part)}; expected {wanted}"))

    def _weights(self, dtype: torch.dtype | None = None) -> Weights:
        own = self._parameters
        flat = [getattr(self, name) if (part := own.get(name)) is None else part for name in self._in_order]
        for name, part in zip(self._in_order, flat, strict=True):
            if part is None:
                refuse(self, f"{name} is None; an LSTM without biases is RaggedLSTM(…, bias=False)")
        if dtype not in (None, flat[0].dtype):
            flat = [part.to(dtype) for part in flat]
        biases = {True: 2, "single": 1, False: 0}[self.bias]
        dropout = self.dropout if self.training else 0.0
        return Weights(tuple(flat), biases, self.proj_size > 0, self.num_layers, self.bidirectional, dropout,
                       self.recurrent_activation)  # fmt: skip

    # To and from nn.LSTM.

    @classmethod
    def from_torch(cls, lstm: nn.LSTM, *, bias: bool | Literal["single"] | None = None) -> Self:
        """With the sizes, the `batch_first` and a copy of the weights of an nn.LSTM; `bias="single"` sums its two.

        What is frozen stays frozen, parametrizations are copied, and so is the mode (train or eval); hooks are not.

        Raises:
            ValueError: `lstm` is no nn.LSTM, or has a `forward` of its own; `bias` asks for biases that it lacks, drops
                those that it has, or sums biases that have parametrizations; or a weight is not a parameter.
        """
        return from_torch(cls, lstm, bias)

    def to_torch(self) -> nn.LSTM:
        """An nn.LSTM with the same `batch_first` and a copy of the weights, as `from_torch` copies them.

        After `bias="single"` its second bias is zero.

        Raises:
            ValueError: its gates are no sigmoids, which nn.LSTM's are; or a weight is not a parameter.
        """
        if self.recurrent_activation != "sigmoid":
            refuse(self, f"recurrent_activation ({self.recurrent_activation!r}) is not what an nn.LSTM has")
        return to_torch(self)

    def __prepare_scriptable__(self) -> nn.LSTM:
        """What torch.jit.script takes in its place: an nn.LSTM of the same parameters, which takes no `lengths`."""
        problem = "torch.jit.script puts an nn.LSTM of the same parameters in its place, in your module too"
        warnings.warn(complaint("RaggedLSTM", problem), stacklevel=2)
        lstm = self.to_torch()
        for name, parameter in self.named_parameters(recurse=False):
            setattr(lstm, name, parameter)
        return lstm

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Sum the two biases of an nn.LSTM where this one has a single bias."""
        if self.bias == "single":
            for name in [name for name in state_dict if name.startswith(f"{prefix}bias_hh_l")]:
                kept = name.replace("bias_hh_l", "bias_ih_l")
                if kept in state_dict:
                    state_dict[kept] = state_dict[kept] + state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # pyright: ignore[reportUnknownMemberType]


def _batch_of_padded(input: Tensor, lengths: Tensor | None) -> Batch:
    words = input.shape[1]
    if lengths is None:
        return Batch(input, None, None, words)
    lengths = lengths.to(input.device, torch.int64)
    if not may_read(lengths):
        lengths = lengths.clamp(0, words)  # they were not checked: nothing is read out of bounds
    return Batch(input, None, lengths, words)


def _run_shape(batch: Batch, state: State, weights: Weights, *, outputs: bool) -> tuple[Tensor | None, State]:
    """What `verify` takes for the kernels."""
    values, (h_0, c_0) = batch.values, state
    width = h_0.shape[2] * (1 + weights.bidirectional)
    output = values.new_empty(*values.shape[:-1], width) if outputs else None
    return output, (torch.empty_like(h_0), torch.empty_like(c_0))


run = operation(_run_shape)(run_kernels)


def _batch_shape(ragged: Ragged) -> Batch:
    """What `verify` takes for `_batch_of_ragged`."""
    if ragged.uniform is not None:
        return Batch(ragged.values, None, None, ragged.uniform)
    lengths = ragged.offsets.new_empty(ragged.batch)
    return Batch(ragged.values, lengths, lengths, None, dense=True)


@operation(_batch_shape)
def _batch_of_ragged(ragged: Ragged) -> Batch:
    if ragged.uniform is not None and not is_jit_tracing():
        return Batch(ragged.values, None, None, ragged.uniform)
    return Batch(ragged.values, ragged.offsets[:-1], ragged.offsets.diff(), None, dense=True)
