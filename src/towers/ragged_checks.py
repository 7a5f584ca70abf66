"""Checks of what a Ragged is made of: offsets, word ids and lists of sentences."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.contracts import ShapeContractError
from towers.contracts.errors import complaint
from towers.contracts.modes import may_read


def check_offsets(offsets: Tensor, tokens: int) -> None:
    """Refuse offsets that do not rise from 0 to the number of tokens."""
    if int(offsets[0]) != 0 or int(offsets[-1]) != tokens:
        problem = f"offsets runs from {int(offsets[0])} to {int(offsets[-1])}; expected 0 to the {tokens} tokens"
        raise ValueError(complaint("Ragged", problem))
    falling = (offsets.diff() < 0).nonzero()
    if len(falling):
        at = int(falling[0, 0]) + 1
        problem = f"offsets[{at}] is {int(offsets[at])}; it must not be less than offsets[{at - 1}]"
        raise ValueError(complaint("Ragged", f"{problem}, {int(offsets[at - 1])}"))


def clamped(offsets: Tensor, tokens: int) -> Tensor:
    """Unchecked offsets, changed so that they rise from 0 to the number of tokens: nothing is read out of bounds."""
    if len(offsets) == 1:
        return torch.zeros_like(offsets)
    inner = offsets[1:-1].to(torch.int64).clamp(0, tokens)
    rising = inner.cummax(0).values if len(inner) else inner
    return F.pad(F.pad(rising, (1, 0)), (0, 1), value=tokens)


def check_ids(owner: str, values: Tensor, table: Tensor) -> Tensor:
    """Ids as int64. They must be one axis of ints, each a row of the table, on the table's device."""
    kind = str(values.dtype).removeprefix("torch.")
    if values.dim() != 1 or values.dtype not in (torch.int32, torch.int64):
        problem = f"values is {tuple(values.shape)} {kind}; beside a table it must be word ids: one axis of int64"
        raise ShapeContractError(complaint(owner, problem))
    if values.device != table.device:
        raise ShapeContractError(complaint(owner, f"values is on {values.device}; its table on {table.device}"))
    if values.shape[0] and may_read(values):
        low, high = (int(bound) for bound in values.aminmax())
        wrong = low if low < 0 else high
        if not 0 <= wrong < len(table):
            at = int((values == wrong).nonzero()[0, 0])
            problem = f"values[{at}] is {wrong}; the table has {len(table)} rows, from 0"
            raise ValueError(complaint(owner, problem))
    return values.to(torch.int64)


_MANY_ROWS = 16
"""If a table has more rows for each token than this, sorting the tokens is cheaper than a mark for each row."""


def distinct(ids: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The distinct ids in rising order, and for each token the index of its id among them."""
    if rows > _MANY_ROWS * len(ids):
        return ids.unique(return_inverse=True)
    marks = torch.zeros(rows, dtype=torch.bool, device=ids.device).index_fill_(0, ids, True)
    words = marks.nonzero().squeeze(1)
    index = torch.empty(rows, dtype=torch.int64, device=ids.device)
    index[words] = torch.arange(len(words), device=ids.device)
    return words, index.index_select(0, ids)


def check_list(sentences: Iterable[object]) -> None:
    """Refuse sentences that are not tensors whose words have one shape and dtype."""
    first: Tensor | None = None
    for index, item in enumerate(sentences):
        if not isinstance(item, Tensor) or item.dim() == 0:
            problem = f"sentences[{index}] is a {type(item).__name__}; expected a tensor with an axis of words"
            raise ShapeContractError(complaint("Ragged.from_list", problem))
        first = item if first is None else first
        if item.shape[1:] != first.shape[1:] or item.dtype != first.dtype:
            came, wanted = (f"{tuple(t.shape[1:])} {t.dtype}" for t in (item, first))
            problem = f"sentences[{index}] has words of {came}; expected {wanted}, as in sentences[0]"
            raise ShapeContractError(complaint("Ragged.from_list", problem))
