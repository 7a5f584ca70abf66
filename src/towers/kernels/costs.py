"""What each way costs, in microseconds: the model that "auto" chooses by.

Linear in what a segment has: a call, its steps, its rows (words and padding), each also times `hidden`, and the
multiply-adds of its rows. Fitted by `benchmarks/lstm_costs.py` to measurements of single segments on two cores: hidden
6 to 128, batch 1 to 512, 2 to 32 steps, input_size = hidden, each on the faster of one and two threads. The median
error is 4 to 6 %, the worst 39 %. What was measured lies in `benchmarks/results/cpu/lstm-costs.json`.
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
    "buckets": Constants(110, 0, 0.0282, 0.0418, 0.000282, 0.0117),
    "steps": Constants(138, 13.2, 0.117, 0.03, 0.00262, 0.0114),
}
TRAINING = {
    "buckets": Constants(331, 0.391, 0.0647, 0.129, 0.00159, 0.0368),
    "steps": Constants(337, 20.8, 0.182, 0.19, 0.00214, 0.0434),
}
SORTING = 200.0  # that a batch is sorted and laid out, beside what its segments cost
ONE_THREAD = 400.0  # below which a second thread does not pay


@lru_cache(64)
def costs(input_size: int, hidden: int, training: bool) -> dict[str, Cost]:
    """The ways' costs for a layer of these sizes."""
    products = 4 * hidden * (input_size + hidden) / 1000
    return {
        way: Cost(
            fitted.call,
            fitted.step + fitted.step_hidden * hidden,
            fitted.row + fitted.row_hidden * hidden + fitted.row_products * products,
        )
        for way, fitted in (TRAINING if training else FORWARD).items()
    }
