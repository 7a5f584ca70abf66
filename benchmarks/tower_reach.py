"""The aims of the towers beside what one run measured, as ratios; of one tower also what the floor would reach."""

from collections.abc import Callable, Sequence

from report import Row
from rich import box
from rich.table import Table

Times = dict[str, float]  # milliseconds of each implementation in one case and phase


def _keras(times: Times, kind: str) -> float | None:
    found = [ms for name, ms in times.items() if name.startswith("Keras") and name.endswith(kind)]
    return min(found) if found else None


def _against_keras(kind: str) -> Callable[[Times], float | None]:
    def ratio(times: Times) -> float | None:
        best = _keras(times, kind)
        return None if best is None else best / times[f"towers, {kind}"]

    return ratio


def _against_product(times: Times) -> float:
    return times["towers, vectors"] / times["floor: one matrix product"]


def _against_vectors(times: Times) -> float:
    return times["towers, vectors"] / times["towers, ids"]


# Text, phase, smallest and largest batch, the ratio, the aim, and whether the aim is a lower (or an upper) bound.
AIMS: tuple[tuple[str, str, int, int, Callable[[Times], float | None], float, bool], ...] = (
    ("forward from vectors: best Keras's time over ours", "forward", 256, 4096, _against_keras("vectors"), 5, True),
    ("forward from vectors: best Keras's time over ours", "forward", 32, 32, _against_keras("vectors"), 2, True),
    ("training from vectors: best Keras's time over ours", "training", 256, 4096, _against_keras("vectors"), 4, True),
    ("training from vectors: best Keras's time over ours", "training", 32, 32, _against_keras("vectors"), 2, True),
    ("forward from vectors: our time over its product's", "forward", 1024, 4096, _against_product, 1.4, False),
    ("forward: time from vectors over that from ids", "forward", 256, 4096, _against_vectors, 3, True),
    ("forward from ids: best Keras's time over ours", "forward", 256, 4096, _against_keras("ids"), 10, True),
)


# Of pairs: text, phase, case, what ours is called, the others, and for each batch the aim; `least`: theirs over ours.
PEERS = ("Keras", "torch, padded", "torch, packed", "ONNX Runtime")
PAIRS: tuple[tuple[str, str, str, str, tuple[str, ...], bool, dict[int, float]], ...] = (
    ("no padding, vectors: our time over ONNX Runtime's, 1 thread", "forward", "no padding, 1 thread",
     "towers, padded vectors", ("ONNX Runtime, exported",), False, {1: 0.8, 32: 0.8, 256: 0.75, 1024: 0.7}),
    ("no padding, vectors: our time over ONNX Runtime's, 2 threads", "forward", "no padding, 2 threads",
     "towers, padded vectors", ("ONNX Runtime, exported",), False, {1: 0.8, 32: 0.8, 256: 0.7, 1024: 0.65}),
    ("a pair with lengths: our time over ONNX Runtime's", "forward", "two towers",
     "towers, padded vectors", ("ONNX Runtime, exported",), False, {1: 1.0}),
    ("a pair from ids: our time over ONNX Runtime's", "forward", "two towers",
     "towers, ids", ("ONNX Runtime, ids",), False, {1: 0.8}),
    ("SICK's lengths, vectors: the best other's time over ours", "forward", "two towers",
     "towers, vectors", PEERS, True, {1: 1.1, 32: 2, 256: 3.5, 1024: 3.5, 4096: 3.5}),
    ("SICK's lengths, ids: the best other's time over ours", "forward", "two towers",
     "towers, ids", PEERS, True, {1: 1.25, 32: 2.5, 256: 5, 1024: 5, 4096: 5}),
    ("training, vectors: the best other's time over ours", "training", "two towers",
     "towers, vectors", PEERS, True, {5: 2, 32: 3}),
    *[(f"h_n of one sentence, hidden {hidden}: nn.LSTM's time over RaggedLSTM's", "forward",
       f"one sentence, hidden {hidden}", "RaggedLSTM", ("nn.LSTM",), True, {1: 1.2}) for hidden in (6, 32, 128)],
)  # fmt: skip


FLOORS = {"forward": "floor: one matrix product", "training": "floor: two matrix products"}


def _at_best(times: Times, phase: str, ratio: Callable[[Times], float | None]) -> float | None:
    """The ratio if the towers took no longer than their floors: the product alone, or a copy of the rows."""
    floors = {"towers, vectors": FLOORS[phase], "towers, ids": "floor: a copy of the rows"}
    if ratio is _against_vectors:  # here the time from vectors is the one measured
        del floors["towers, vectors"]
    return ratio(times | {name: times[floor] for name, floor in floors.items() if floor in times})


def reach(rows: Sequence[Row]) -> Table:
    """A line for each aim and batch: one tower on SICK's sentences, then pairs."""
    result = Table(title="Reach: one tower, and pairs", box=box.SIMPLE_HEAD)
    for heading in ("", "batch", "aim", "measured", "", "the floor alone"):
        result.add_column(heading, justify="left" if not heading else "right")
    for what, phase, first, last, ratio, aim, at_least in AIMS:
        for batch, times in _times(rows, phase).items():
            measured = ratio(times) if first <= batch <= last else None
            if measured is not None:
                met = measured >= aim if at_least else measured <= aim
                words = ("at least" if at_least else "at most", "yes" if met else "no")
                best = f"{_at_best(times, phase, ratio):.2f}"
                result.add_row(what, str(batch), f"{words[0]} {aim:g}", f"{measured:.2f}", words[1], best)
    for what, phase, model, ours, others, least, aims in PAIRS:
        for batch, times in _times(rows, phase, model).items():
            theirs = [ms for name, ms in times.items() if name.startswith(others)]
            if batch in aims and theirs and ours in times:
                measured = min(theirs) / times[ours] if least else times[ours] / min(theirs)
                met = measured >= aims[batch] if least else measured <= aims[batch]
                words = ("at least" if least else "at most", "yes" if met else "no")
                result.add_row(what, str(batch), f"{words[0]} {aims[batch]:g}", f"{measured:.2f}", words[1], "")
    return result


def _times(rows: Sequence[Row], phase: str, model: str = "tower") -> dict[int, Times]:
    found: dict[int, Times] = {}
    for row in rows:
        if row.details["model"] == model and row.phase == phase:
            found.setdefault(int(str(row.details["batch"])), {})[row.implementation] = row.milliseconds
    return found
