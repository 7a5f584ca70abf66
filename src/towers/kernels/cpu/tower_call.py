"""A tower in C, and two with their head, forward and backward: one call each, and one node of torch's graph.

The door has checked weights and sentences before: all sizes are known then, and only lengths, offsets and ids are left
for the C code to check.
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from towers.kernels.cpu.door import (
    Accepted,
    PairWeights,
    TowerWeights,
    Words,
    as_before,
    is_eager,
    pair_weights,
    tower_weights,
)
from towers.kernels.cpu.threads import parallel_at, warn_of_one_thread

# The structs of `tower.h`, all of whose entries have eight bytes. The C code copies them, so bytes will do.
_SENTENCES = 15
_ABSENT = (0,) * _SENTENCES
_NOTHING = (0,) * 6  # is kept
_JOB = struct.Struct(f"={2 * _SENTENCES + 5}q").pack
_LOGITS = struct.Struct("=8q56x8q56x5q").pack  # the same job, nothing kept
_BACKWARD = struct.Struct(f"={_SENTENCES + 10}q").pack
_PAIR_BACKWARD = struct.Struct(f"={2 * (_SENTENCES + 10) + 6}q").pack
_DONE, _, _WRONG_IDS, _NO_MEMORY, _ALONE = range(5)


def _numbers(of: Words, weights: TowerWeights) -> tuple[int, ...]:
    rows, ids, offsets, lengths, _, span, tokens, words, shares = of
    return (
        weights.of_shares if shares else weights.at,
        rows.data_ptr(),
        0 if ids is None else ids.data_ptr(),
        0 if offsets is None else offsets.data_ptr(),
        0 if lengths is None else lengths.data_ptr(),
        words,
        tokens,
        span,
    )


# What is kept for the backward pass.


class Kept(NamedTuple):
    """What forward leaves for the backward pass of one tower or two. C code trusts the first two, which are indices."""

    places: Tensor | None
    chosen: Tensor
    numbers: Tensor  # of each tower, then the states of both


def _kept(sides: tuple[tuple[Words, TowerWeights], ...], states: int = 0) -> Kept:
    """Room for the backward pass of these towers, and for this number of states."""
    like = sides[0][0].rows
    indices = sum([_places_of(words) for words, _ in sides])
    return Kept(
        torch.empty(indices, dtype=torch.int64, device="cpu") if indices else None,
        torch.empty(sum([_chosen_of(*side) for side in sides]), dtype=torch.int32, device="cpu"),
        like.new_empty(sum([_numbers_of(*side) for side in sides]) + states),
    )


def _places_of(words: Words) -> int:
    return 0 if words.offsets is None and words.lengths is None else 4 * words.batch + 2 + words.tokens


def _chosen_of(words: Words, weights: TowerWeights) -> int:
    return words.tokens * weights.features


def _numbers_of(words: Words, weights: TowerWeights) -> int:
    return words.tokens * (weights.features + 6 * weights.lanes)


def _at(kept: Kept, sides: tuple[tuple[Words, TowerWeights], ...]) -> tuple[list[tuple[int, ...]], int]:
    """The addresses of each tower, in the order of `Sentences` of `tower.h`; and where the states are."""
    size = kept.numbers.itemsize
    indices = 0 if kept.places is None else kept.places.data_ptr()
    chosen, first, found = kept.chosen.data_ptr(), kept.numbers.data_ptr(), list[tuple[int, ...]]()
    for words, weights in sides:
        lanes = size * words.tokens * weights.lanes
        gates = first + size * words.tokens * weights.features
        of_places = _places_of(words)
        found.append((indices if of_places else 0, chosen, first, gates, gates + 4 * lanes, gates + 5 * lanes))
        indices, chosen = indices + 8 * of_places, chosen + 4 * _chosen_of(words, weights)
        first = gates + 6 * lanes
    return found, first


# One tower.


def states(words: Words, weights: TowerWeights) -> Tensor | None:
    """The last states "batch hidden"; None: lengths or offsets are wrong.

    Raises:
        IndexError: an id is not one of a word.
    """
    result = words.rows.new_empty((words.batch, weights.hidden))
    return result if _forward(words, weights, result, _NOTHING) else None


def states_and_kept(words: Words, weights: TowerWeights) -> tuple[Tensor, Kept] | None:
    """Also what the backward pass needs."""
    result = words.rows.new_empty((words.batch, weights.hidden))
    side = ((words, weights),)
    kept = _kept(side)
    ((at,), _) = _at(kept, side)
    return (result, kept) if _forward(words, weights, result, at) else None


def _forward(words: Words, weights: TowerWeights, result: Tensor, kept: tuple[int, ...]) -> bool:
    threads = torch.get_num_threads()
    job = _JOB(*_numbers(words, weights), result.data_ptr(), *kept, *_ABSENT, 0, 0,
               words.batch, threads, parallel_at() if threads > 1 else 0)  # fmt: skip
    return _done(weights.forward(job), words)


def backward(
    words: Words, weights: TowerWeights, kept: Kept, gradient: Tensor, *, wants_rows: bool
) -> tuple[Tensor | None, ...]:
    """The gradients of the rows (None unless wanted), of the convolution's weight (None for shares), of the others."""
    given = _empty_gradients(words, weights, wants_rows)
    ((at,), _) = _at(kept, ((words, weights),))
    _done(weights.backward(_BACKWARD(*_backward_numbers(words, weights, at, 0, gradient.data_ptr(), given))), words)
    return given


def _empty_gradients(words: Words, weights: TowerWeights, wants_rows: bool) -> tuple[Tensor | None, ...]:
    rows, (kernel_positions, filters, width) = words.rows, weights.shape
    hidden, features = weights.hidden, weights.features
    of_rows = of_weight = None
    if words.shares or wants_rows:
        some = words.ids is not None or words.lengths is not None
        of_rows = torch.zeros_like(rows) if some else torch.empty_like(rows)
    if not words.shares:
        of_weight = rows.new_empty((kernel_positions, filters, width))
    sizes = (filters,), (4 * hidden, features), (4 * hidden, hidden), (4 * hidden,)
    return of_rows, of_weight, *[rows.new_empty(size) for size in sizes]


def _backward_numbers(
    words: Words, weights: TowerWeights, kept: tuple[int, ...], states: int, gradient: int,
    given: tuple[Tensor | None, ...],
) -> list[int]:  # fmt: skip
    threads = torch.get_num_threads()
    return [
        *_numbers(words, weights), states, *kept, words.batch, threads, parallel_at() if threads > 1 else 0, gradient,
        *[0 if one is None else one.data_ptr() for one in given],
    ]  # fmt: skip


# Two towers with their head.


def logits(left: Words, right: Words, weights: PairWeights) -> Tensor | None:
    """The logits "batch" of pairs; None: there are not as many of both, or lengths or offsets are wrong.

    Raises:
        IndexError: an id is not one of a word.
    """
    if left.batch != right.batch:
        return None
    result, threads = left.rows.new_empty((left.batch,)), torch.get_num_threads()
    job = _LOGITS(*_numbers(left, weights.left), *_numbers(right, weights.right),
                  weights.at, result.data_ptr(), left.batch, threads, parallel_at() if threads > 1 else 0)  # fmt: skip
    return result if _done(weights.left.forward(job), left, right) else None


def logits_and_kept(left: Words, right: Words, weights: PairWeights) -> tuple[Tensor, Kept] | None:
    """Also what the backward pass needs."""
    if left.batch != right.batch:
        return None
    result, sides = left.rows.new_empty((left.batch,)), ((left, weights.left), (right, weights.right))
    of_states = left.batch * weights.left.hidden
    kept = _kept(sides, 2 * of_states)
    (first, second), at = _at(kept, sides)
    places = at, at + of_states * kept.numbers.itemsize
    threads = torch.get_num_threads()
    job = _JOB(*_numbers(left, weights.left), places[0], *first, *_numbers(right, weights.right), places[1], *second,
               weights.at, result.data_ptr(), left.batch, threads, parallel_at() if threads > 1 else 0)  # fmt: skip
    return (result, kept) if _done(weights.left.forward(job), left, right) else None


def pair_backward(
    left: Words, right: Words, weights: PairWeights, kept: Kept, gradient: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients of both towers' rows, of the weights of the left, of the right, and of the head.

    `wanted` says which; a tower of which none is wanted gets none.
    """
    sides, hidden = ((left, weights.left), (right, weights.right)), weights.left.hidden
    (at_left, at_right), states = _at(kept, sides)
    jobs, given = list[int](), list[tuple[Tensor | None, ...]]()
    for side, (words, own) in enumerate(sides):
        some = wanted[side] or any(wanted[2 + 5 * side : 7 + 5 * side])
        given.append(_empty_gradients(words, own, wanted[side]) if some else (None,) * 6)
        at = states + side * words.batch * hidden * kept.numbers.itemsize
        jobs += _backward_numbers(words, own, (at_left, at_right)[side], at, 0, given[side])
    sizes = (weights.units, hidden), (weights.units,), (1, weights.units), (1,)
    of_head = [gradient.new_empty(size) for size in sizes]
    job = _PAIR_BACKWARD(*jobs, weights.at, gradient.data_ptr(), *[one.data_ptr() for one in of_head])
    _done(weights.backward(job), left, right)
    return given[0][0], given[1][0], *given[0][1:], *given[1][1:], *of_head


def _done(answer: int, *of: Words) -> bool:
    """Whether there is a result; not where lengths or offsets are wrong."""
    if answer == _DONE:
        return True
    if answer >= _ALONE:
        warn_of_one_thread("torch's threads could not be started")
        answer -= _ALONE
    if answer == _NO_MEMORY:
        raise MemoryError("no memory is left for a tower's states")
    if answer == _WRONG_IDS:
        tables = " or ".join(str(words.words) for words in of if words.ids is not None)
        raise IndexError(f"PhraseConv: an id of a word is not one of the {tables} words of its table")
    return answer == _DONE


# As nodes of torch's graph.

Again = Callable[..., Tensor]
"""The same result in torch's own operations, from Words and weights as forward had them, then the rows and weights."""


def differentiable_states(
    words: Words, weights: TowerWeights, accepted: Accepted, tensors: tuple[Tensor, ...], again: Again
) -> Tensor | None:
    """The last states "batch hidden", differentiable; None: lengths, offsets or ids are wrong.

    The row "towers, vectors" of training of `python benchmarks/run.py tower` is what it gains.
    """
    found = states_and_kept(words, weights)
    if found is None:
        return None
    return _Tower.apply(((words, weights, accepted, again), *found), words.rows, *tensors)


def differentiable_logits(
    left: Words, right: Words, weights: PairWeights, accepted: Accepted, tensors: tuple[Tensor, ...], again: Again
) -> Tensor | None:
    """The logits "batch" of pairs, differentiable; None: lengths, offsets or ids are wrong, or the batches differ.

    The same row of "two towers" is what it gains beside a node for each tower and torch's own for the head.
    """
    found = logits_and_kept(left, right, weights)
    if found is None:
        return None
    return _Pair.apply(((left, right, weights, accepted, again), *found), left.rows, right.rows, *tensors)


# Indices stay outside of what hooks of the graph may change; what they can change is checked again.


def _without_rows(words: Words) -> Any:
    return words._replace(rows=words.rows.shape)


def _with_rows(words: Any, rows: Tensor, dtype: torch.dtype) -> Words:
    ids = None if words.ids is None else as_before("a tower's ids", words.ids, (words.tokens,), torch.int64)
    return words._replace(rows=as_before("a tower's sentences", rows, words.rows, dtype), ids=ids)


def _with_numbers(kept: Any, numbers: Tensor, dtype: torch.dtype) -> Kept:
    return kept._replace(numbers=as_before("a tower's kept numbers", numbers, kept.numbers, dtype))


def _as_accepted(before: TowerWeights, now: TowerWeights | None) -> None:
    if now is None or now[:3] != before[:3]:
        raise RuntimeError("a tower's weights came back from torch's graph with another type, dtype or size")


class _Tower(torch.autograd.Function):
    """What forward found before becomes a node; its backward pass is one call too."""

    @staticmethod
    def forward(ctx: Any, given: Any, *tensors: Tensor) -> Tensor:
        (words, *how), result, kept = given
        ctx.how = (_without_rows(words), *how, kept._replace(numbers=kept.numbers.shape))
        ctx.save_for_backward(*tensors, kept.numbers)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (rows, *tensors, numbers) = gradients, ctx.saved_tensors
        words, weights, accepted, again, kept = ctx.how
        if not is_eager(gradient):
            again = partial(again, words, weights)
            return None, *_by_torch(again, [rows, *tensors], gradient, ctx.needs_input_grad[1:])
        now: Any = tower_weights(accepted, tuple(tensors), weights.pool)
        _as_accepted(weights, now)
        words, kept = _with_rows(words, rows, weights.dtype), _with_numbers(kept, numbers, weights.dtype)
        gradient = as_before("a tower's gradient", gradient, (words.batch, weights.hidden), weights.dtype)
        return None, *backward(words, now, kept, gradient, wants_rows=ctx.needs_input_grad[1])


class _Pair(torch.autograd.Function):
    """The same for two towers and the dense layers."""

    @staticmethod
    def forward(ctx: Any, given: Any, *tensors: Tensor) -> Tensor:
        (left, right, *how), result, kept = given
        ctx.how = (_without_rows(left), _without_rows(right), *how, kept._replace(numbers=kept.numbers.shape))
        ctx.save_for_backward(*tensors, kept.numbers)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (*rows, numbers) = gradients, ctx.saved_tensors
        (of_left, of_right, *tensors), wanted = rows, ctx.needs_input_grad[1:]
        left, right, weights, accepted, again, kept = ctx.how
        if not is_eager(gradient):
            return None, *_by_torch(partial(again, left, right, weights), rows, gradient, wanted)
        now: Any = pair_weights(accepted, tuple(tensors), weights.left.pool, weights.right.pool)
        for side in (0, 1):
            _as_accepted(weights[side], now and now[side])
        dtype = weights.left.dtype
        left, right = _with_rows(left, of_left, dtype), _with_rows(right, of_right, dtype)
        kept, gradient = (
            _with_numbers(kept, numbers, dtype),
            as_before("a logit's gradient", gradient, (left.batch,), dtype),
        )
        return None, *pair_backward(left, right, now, kept, gradient, wanted)


def _by_torch(again: Again, tensors: list[Tensor], gradient: Tensor, wanted: tuple[bool, ...]) -> list[Tensor | None]:
    """The same gradients by torch's own operations: they have gradients themselves, and can be batched."""
    twice = torch.is_grad_enabled()
    with torch.enable_grad():
        if twice:  # a weight that is given twice has a gradient for each time
            tensors = [one.view_as(one) for one in tensors]
        else:
            tensors = [one.detach().requires_grad_(want) for one, want in zip(tensors, wanted, strict=True)]
        inputs = [one for one, want in zip(tensors, wanted, strict=True) if want]
        options = {"create_graph": twice, "allow_unused": True, "materialize_grads": True}
        found = iter(torch.autograd.grad(again(*tensors), inputs, gradient, **options))
    return [next(found) if want else None for want in wanted]
