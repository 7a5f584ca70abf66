"""What each way costs, in microseconds: the model that "auto" chooses by.

Linear in what a segment has: a call, its steps, its rows (words and padding), each also times `hidden`, and the
multiply-adds of its rows. Fitted by `benchmarks/lstm_costs.py` to measurements of single segments on two cores: hidden
6 to 128, batch 1 to 512, 2 to 32 steps, input_size = hidden, each on one thread, as all of them are run. The median
error is 3 to 7 %, the worst 34 %, and 69 % for "native" with a single sentence, to which the weights belong alone. What
was measured lies in `benchmarks/results/cpu/lstm-costs.json`: "native" is the cheapest in 297 of 300 cases,
and at most a tenth behind in the others.
"""

from functools import lru_cache
from typing import NamedTuple


class Cost(NamedTuple):
    """Of a segment: each call, each step of it, each row of it."""

    call: float
    step: float
    row: float


class Constants(NamedTuple):
    """As fitted; `row_products` is for 1000 multiply-adds."""

    call: float
    step: float
    step_hidden: float
    row: float
    row_hidden: float
    row_products: float


FORWARD = {
    "native": Constants(18.9, 0, 0.0113, 0.0308, 0.000255, 0.0226),
    "buckets": Constants(148, 0, 0.0256, 0.0737, 0.000496, 0.0226),
    "steps": Constants(173, 13.3, 0.11, 0.0308, 0.00282, 0.0235),
}
TRAINING = {
    "native": Constants(55.3, 0, 0.025, 0.0705, 0, 0.0722),
    "buckets": Constants(416, 0, 0.0506, 0.201, 0.00276, 0.0763),
    "steps": Constants(405, 20.4, 0.204, 0.256, 0, 0.0847),
}
SHARED = {  # "buckets" on the faster of one and two threads
    False: Constants(110, 0, 0.0282, 0.0418, 0.000282, 0.0117),
    True: Constants(331, 0.391, 0.0647, 0.129, 0.00159, 0.0368),
}
ONE_THREAD = 400.0  # of that cost, below which a second thread does not pay
SORTING = 200.0  # that a batch is sorted and laid out, beside what its segments cost
PIECES = ((2500.0, 1), (6000.0, 2), (12_000.0, 4), (float("inf"), 8))  # up to this cost, this many blocks
SIDE_BY_SIDE = 0.7  # the share of the time that blocks take together on two cores


class Ways(NamedTuple):
    """What is known of whole runs: set by hand after `benchmarks/lstm.py` on two busy cores."""

    alone: float  # up to this cost a second thread slows oneDNN down, as the two wait for each other at each step
    shared: float  # beyond it, the share of the time that it takes on two
    laying: float  # that a word is copied to where the walk reads it
    laying_hidden: float  # … times hidden


RUNS = {False: Ways(250, 0.55, 0.08, 0.0022), True: Ways(700, 0.85, 0.35, 0.003)}  # by training


@lru_cache(64)
def costs(input_size: int, hidden: int, training: bool) -> dict[str, Cost]:
    """The ways' costs for a layer of these sizes."""
    return {way: _cost(fitted, input_size, hidden) for way, fitted in (TRAINING if training else FORWARD).items()}


@lru_cache(64)
def shared(input_size: int, hidden: int, training: bool) -> Cost:
    """That of "buckets" with all threads at each step."""
    return _cost(SHARED[training], input_size, hidden)


def _cost(fitted: Constants, input_size: int, hidden: int) -> Cost:
    products = 4 * hidden * (input_size + hidden) / 1000
    return Cost(
        fitted.call,
        fitted.step + fitted.step_hidden * hidden,
        fitted.row + fitted.row_hidden * hidden + fitted.row_products * products,
    )
