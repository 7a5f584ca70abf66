"""Shapes of torch's recurrent operations, padded and packed; the first argument of a rule is not needed here."""

from typing import Any

from torch import Tensor, nn

from towers.contracts.proofs.fast_meta import made_like


def lstm(symbols: Any, input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """torch.lstm: (input, (h, c), …) or (data, batch_sizes, (h, c), …)."""
    return _run(4, input, *rest) if isinstance(rest[0], Tensor) else _run(4, input, None, *rest)


def gru(symbols: Any, input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """torch.gru: (input, h, …) or (data, batch_sizes, h, …)."""
    return _run(3, input, *rest) if isinstance(rest[1], Tensor) else _run(3, input, None, *rest)


def rnn(symbols: Any, input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """torch.rnn_tanh and torch.rnn_relu: as torch.gru."""
    return _run(1, input, *rest) if isinstance(rest[1], Tensor) else _run(1, input, None, *rest)


def _run(gates: int, input: Tensor, batch_sizes: Tensor | None, given: Any, weights: Any, *how: Any) -> Any:
    """`how` is has_biases, num_layers, dropout, train, bidirectional and, if padded, batch_first."""
    layers, bidirectional, batch_first = how[1], how[4], len(how) > 5 and how[5]
    directions = 2 if bidirectional else 1
    state: tuple[Tensor, ...] = (given,) if isinstance(given, Tensor) else tuple(given)
    hidden, out = state[-1].shape[2], weights[1].shape[1]
    came, wanted = input.shape[-1], weights[0].shape[1]
    _expect(came == wanted, f"input.size(-1) must be equal to input_size. Expected {wanted}, got {came}")
    _expect(
        weights[0].shape[0] == gates * hidden, f"weights are for {weights[0].shape[0] // gates} units, not {hidden}"
    )
    batch = state[0].shape[1] if batch_sizes is not None else input.shape[0 if batch_first else 1]
    for part, width in zip(state, (out, hidden), strict=False):
        shape = (layers * directions, batch, width)
        _expect(tuple(part.shape) == shape, f"Expected hidden size {shape}, got {list(part.shape)}")
    if batch_sizes is None:
        _expect(input.shape[1 if batch_first else 0] > 0, "Expected sequence length to be larger than 0 in RNN")
    return made_like(input, *input.shape[:-1], directions * out), *(made_like(part, *part.shape) for part in state)


def expected_hidden_size(module: nn.RNNBase, input: Tensor, batch_sizes: Tensor | None) -> tuple[Any, ...]:
    """nn.RNNBase.get_expected_hidden_size, which makes the number of packed sentences an int."""
    if batch_sizes is None:
        return nn.RNNBase.get_expected_hidden_size(module, input, batch_sizes)
    rows = module.num_layers * (2 if module.bidirectional else 1)
    return rows, batch_sizes[0], module.proj_size or module.hidden_size


def _expect(truth: Any, problem: str) -> None:
    if not truth:
        raise RuntimeError(problem)
