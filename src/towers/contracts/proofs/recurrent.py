"""Shapes of torch's recurrent operations, padded and packed; the first argument of a rule is not needed here."""

from typing import Any

from torch import Tensor

State = tuple[Tensor, ...]


def lstm(symbols: Any, input: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, ...]:
    """torch.lstm: (input, hx, …) or (data, batch_sizes, hx, …)."""
    return _run(4, 2, input, *rest, **options)


def gru(symbols: Any, input: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, ...]:
    """torch.gru."""
    return _run(3, 1, input, *rest, **options)


def rnn(symbols: Any, input: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, ...]:
    """torch.rnn_tanh and torch.rnn_relu."""
    return _run(1, 1, input, *rest, **options)


def _run(gates: int, states: int, input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    packed = (isinstance(rest[0], Tensor) and not isinstance(rest[1], (list, tuple))) or _is_lstm_packed(rest, states)
    batch_first = False if packed else rest[7] if len(rest) > 7 else False
    given, weights, biases, layers, _, _, bidirectional = rest[1:8] if packed else rest[:7]
    hidden: State = tuple(given) if states == 2 else (given,)
    directions = 2 if bidirectional else 1
    per_layer = len(weights) // (layers * directions)
    width = gates * hidden[-1].shape[2]
    out = weights[1].shape[1]
    _expect(
        input.shape[-1] == weights[0].shape[1], f"input has {input.shape[-1]} features, weights {weights[0].shape[1]}"
    )
    _expect(
        weights[0].shape[0] == width,
        f"weights are for {weights[0].shape[0] // gates} units, the state {hidden[-1].shape[2]}",
    )
    batch = hidden[0].shape[1] if packed else input.shape[0 if batch_first else 1]
    for part, size in zip(hidden, (out, hidden[-1].shape[2]), strict=False):
        wanted = (layers * directions, batch, size)
        _expect(tuple(part.shape) == wanted, f"Expected hidden size {wanted}, got {list(part.shape)}")
    if not packed:
        _expect(input.shape[1 if batch_first else 0] > 0, "Expected sequence length to be larger than 0 in RNN")
    assert per_layer >= 2 + 2 * bool(biases)
    output = input.new_empty(*input.shape[:-1], directions * out)
    return (output, *(part.new_empty(part.shape) for part in hidden))


def _is_lstm_packed(rest: Any, states: int) -> bool:
    return states == 2 and isinstance(rest[0], Tensor)


def _expect(truth: Any, problem: str) -> None:
    if not truth:
        raise RuntimeError(problem)
