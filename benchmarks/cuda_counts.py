"""What tiles of like lengths and products over real rows save: counted from lengths, on any machine.

    python benchmarks/run.py cuda --sass

A program of the wide LSTM walks as far as the longest of its sentences, and a multiprocessor has places for some
programs at once. "steps" is how far the place that ends last has walked: programs begin in their order, each at the
first place that is free. "real" is the share of the rows of all steps that belong to sentences. "rows" is what the
products multiply, of padded input with and without the rows of padding; the table has the share that is left.
"""

import heapq
from collections.abc import Iterator
from unittest.mock import patch

import torch
from cuda_lstm import Case, lengths_of
from rich import box
from rich.table import Table
from torch import Tensor

from towers.kernels.triton import lstm_products, lstm_shared, lstm_wide

MULTIPROCESSORS = 132  # of an H100 or H200
SIZES = (("hidden 32", 32, "tf32x3"), ("hidden 64", 64, "tf32x3"), ("hidden 64, bfloat16", 64, "bfloat16"),
         ("hidden 128", 128, "tf32x3"), ("hidden 128, bfloat16", 128, "bfloat16"))  # fmt: skip
LAWS = (("uniform", 64), ("SICK's", 34))


def walk(lengths: Tensor, sentences: int, places: int) -> tuple[float, int]:
    """The share of real rows, and the steps of the place that ends last."""
    longest = torch.nn.functional.pad(lengths, (0, -len(lengths) % sentences)).view(-1, sentences).amax(1)
    ends = [0] * places
    for steps in longest.tolist():
        heapq.heappush(ends, heapq.heappop(ends) + steps)
    return int(lengths.sum()) / (int(longest.sum()) * sentences), max(ends)


def measure() -> Iterator[dict[str, object]]:
    for name, hidden, precision in SIZES:
        options = lstm_wide.tile(hidden, precision, 227 * 1024)
        sentences, places = options["B"], MULTIPROCESSORS * max(1, lstm_shared.WARPS // options["num_warps"])
        for law, longest in LAWS:
            for batch in (256, 4096, 32_768):
                lengths = lengths_of(Case(hidden, batch, law=law, longest=longest))
                with patch.object(lstm_shared, "multiprocessors", lambda device: MULTIPROCESSORS):
                    order = lstm_shared.longest_first(lengths, batch * longest, sentences, options["num_warps"])
                ordered = lengths if order is None else lengths[order]
                before, now = walk(lengths, sentences, places), walk(ordered, sentences, places)
                tile, words = lstm_products.ROWS["TILE"], int(lengths.sum())
                yield {
                    "case": f"{name}, batch {batch}, {law} lengths of at most {longest}",
                    "programs": -(-batch // sentences), "places": places, "sorted": order is not None,
                    "real_before": round(before[0], 3), "real": round(now[0], 3),
                    "steps_before": before[1], "steps": now[1],
                    "rows_before": batch * longest, "rows": -(-words // tile) * tile,
                }  # fmt: skip


def table(rows: list[dict[str, object]]) -> Table:
    result = Table(
        title="counted: a tile's real rows, the walk of the last place, rows of products", box=box.SIMPLE_HEAD
    )
    for heading in ("case", "batch", "lengths", "programs", "places", "real", "steps", "rows"):
        result.add_column(heading, justify="left" if heading == "case" else "right", no_wrap=True)
    for row in rows:
        size, batch, lengths = str(row["case"]).rsplit(", ", 2)
        named = (size, batch.removeprefix("batch "), lengths.replace("lengths of at most", "<="))
        counted = (str(row["programs"]), str(row["places"]))
        pairs = (f"{row['real_before']:.0%} -> {row['real']:.0%}", f"{row['steps_before']} -> {row['steps']}")
        result.add_row(*named, *counted, *pairs, f"{row['rows'] / row['rows_before']:.0%}")
    return result
