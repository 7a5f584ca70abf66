"""What each way costs, in microseconds on one core: the model that "auto" chooses by."""

from typing import NamedTuple


class Cost(NamedTuple):
    """Of a segment: each call, each step of it, each row (one word, or padding) of it."""

    call: float
    step: float
    row: float


def costs(input_size: int, hidden: int, training: bool) -> dict[str, Cost]:
    """The ways' costs for a layer of these sizes."""
    product = 8 * hidden * (input_size + hidden) / 91e3
    width = max(hidden, 16)
    buckets = Cost(60, 0.25 + hidden * 0.02, product + 0.0027 * width + 0.02)
    steps = Cost(40, 12, product + 0.0026 * width)
    if training:
        buckets = Cost(200, 1.2 + hidden * 0.05, 3.2 * buckets.row)
        steps = Cost(120, 24, 3 * product + 0.0075 * width)
    return {"buckets": buckets, "steps": steps}
