"""What was to be reached on a GPU, beside what a run measured: the worst of the cases that a line speaks of."""

from collections.abc import Callable, Iterable, Sequence

from report import Row
from rich import box
from rich.table import Table

OURS, PACKED, PADDED = "towers.RaggedLSTM", "nn.LSTM, packed", "nn.LSTM, padded"
Line = tuple[str, str, float | None]  # what, the bound, what was found (None: no such case was run)


def table(lines: Iterable[Line]) -> Table:
    result = Table(title="reach: the worst case of each line", box=box.SIMPLE_HEAD)
    for heading in ("", "wanted", "found", "result"):
        result.add_column(heading, justify="left" if not heading else "right")
    for what, wanted, found in lines:
        result.add_row(what, wanted, "" if found is None else f"{found:.3g}", verdict(wanted, found))
    return result


def verdict(wanted: str, found: float | None) -> str:
    """ "reached", "not reached" or "not run"; nothing for a line that is only reported."""
    if found is None:
        return "not run"
    sign, _, bound = wanted.rpartition(" ")
    if bound == "reported":
        return ""
    reached = found >= float(bound) if sign == ">=" else found <= float(bound)
    return "reached" if reached else "not reached"


def times_faster(
    rows: Sequence[Row], phase: str, ours: str, theirs: str, wanted: Callable[[Row], bool]
) -> float | None:
    """How many times faster ours is than theirs, where that is least."""
    found = {(row.case, row.implementation): row.milliseconds for row in rows if row.phase == phase and wanted(row)}
    ratios = [
        found[case, theirs] / found[case, ours] for case, name in found if name == ours and (case, theirs) in found
    ]
    return min(ratios, default=None)


def largest(rows: Sequence[Row], key: str, wanted: Callable[[Row], bool]) -> float | None:
    return max((float(str(row.details[key])) for row in rows if wanted(row)), default=None)


def of_lstm(rows: Sequence[Row]) -> list[Line]:
    steps = [row for row in rows if "microseconds_a_step" in row.details]
    usual = [row for row in rows if row not in steps and row.details["precision"] == "float32"]

    def half(low: int, high: int) -> Callable[[Row], bool]:
        def wanted(row: Row) -> bool:
            at = row.details
            return low <= at["hidden"] <= high and at["batch"] >= 32 and (at["share"], at["law"]) == (0.5, "uniform")

        return wanted

    def full(row: Row) -> bool:
        return row.details["hidden"] <= 64 and (row.details["share"], row.details["law"]) == (1.0, "uniform")

    def long(phase: str) -> float | None:
        case = {"hidden": 6, "batch": 4096, "longest": 512, "share": 1.0}
        here = [row for row in usual if row.phase == phase and case.items() <= row.details.items()]
        return max((row.milliseconds for row in here if row.implementation == OURS), default=None)

    def a_step(hidden: int, kind: str) -> float | None:
        case = {"hidden": hidden, "precision": kind}
        here = [row for row in steps if row.phase == "forward" and case.items() <= row.details.items()]
        return largest(here, "microseconds_a_step", lambda row: row.implementation == OURS)

    found: list[Line] = []
    aims = ((">= 10", ">= 8"), (">= 4", ">= 4"), ("reported", "reported"))  # 128: weights are read anew at each step
    for (units, low, high), bounds in zip((("<= 16", 6, 16), ("32-64", 32, 64), ("128", 128, 128)), aims, strict=True):
        for phase, bound in zip(("forward", "training"), bounds, strict=True):
            ratio = times_faster(usual, phase, OURS, PACKED, half(low, high))
            found.append((f"{phase}, times faster than packed, hidden {units}, half real", bound, ratio))
    for phase in ("forward", "training"):
        ratio = times_faster(usual, phase, OURS, PADDED, full)
        found.append((f"{phase}, times faster than padded, no padding, hidden <= 64", ">= 1", ratio))
    found.append(("µs a step, forward, hidden 6", "<= 0.4", a_step(6, "float32")))
    found.append(("µs a step, forward, hidden 64, bfloat16", "<= 1.2", a_step(64, "bfloat16")))
    found.append(("ms, forward, hidden 6, batch 4096, length 512", "<= 0.25", long("forward")))
    found.append(("ms, training, the same", "<= 0.7", long("training")))
    return [*found, ("device waits, forward and training", "0", waits(rows, OURS))]


def of_tower(rows: Sequence[Row]) -> list[Line]:
    many = [row for row in rows if row.details.get("tokens") and row.details["batch"] == 32_768]
    found: list[Line] = []
    for kind in ("tf32", "bfloat16", "float32"):
        here = [row for row in many if row.phase == "forward" and row.details["precision"] == kind]
        share = largest(here, "share_of_copy_bandwidth", lambda row: row.implementation == "towers, vectors")
        ratio = times_faster(here, "forward", "towers, vectors", "torch, packed, vectors", lambda row: True)
        reported = kind == "float32"
        found.append((f"forward, share of the copy's bandwidth, {kind}", "reported" if reported else ">= 0.5", share))
        found.append((f"forward, times faster than plain torch, {kind}", "reported" if reported else ">= 8", ratio))
    return [*found, ("device waits, forward and training", "0", waits(rows, "towers, "))]


def of_host(rows: Sequence[Row]) -> list[Line]:
    found = {row.case: float(str(row.details["host_us"])) for row in rows}
    aims = {"last(), hidden 6": 60, "training step, hidden 6": 200, "tower": 80}
    return [(f"host µs, {case}, kernels not launched", f"<= {aim}", found.get(case)) for case, aim in aims.items()]


def waits(rows: Sequence[Row], ours: str) -> float | None:
    return largest(
        rows, "device_waits", lambda row: row.implementation.startswith(ours) and "device_waits" in row.details
    )
