"""The sweep of the suite `lstm` as a short text and as a picture."""

from collections.abc import Iterable, Mapping, Sequence
from math import exp, log
from pathlib import Path

from matplotlib.figure import Figure
from report import COLOURS, Row, save

PADDED, PACKED, OURS = "padded nn.LSTM", "packed nn.LSTM", "towers.RaggedLSTM"
PHASES = ("forward", "training")

Times = Mapping[str, float]  # implementation -> milliseconds


def summary(rows: Sequence[Row]) -> str:
    """The time of nn.LSTM, the better of padded and packed, over that of RaggedLSTM, over all cases."""
    lines = ["Time of nn.LSTM, the better of padded and packed, over that of RaggedLSTM (above 1: it is faster).", ""]
    for phase in PHASES:
        cases = by_case(rows, phase)
        if not cases:
            continue
        ratios = [better(times) / times[OURS] for _, times in cases]
        low = [ratio for ratio, (row, _) in zip(ratios, cases, strict=True) if row.details["real_share"] <= 0.55]
        even = [times[PADDED] / times[OURS] for row, times in cases if row.details["law"] == "equal"]
        slow = [ratio for ratio, (_, times) in zip(ratios, cases, strict=True) if below(ratio, times)]
        worst = sorted(zip(ratios, (row.case for row, _ in cases), strict=True))[:12]
        lines += [
            f"{phase}: {len(ratios)} cases",
            f"  geometric mean                    {geometric(ratios):.2f}",
            f"  … share of real positions <= 0.5  {geometric(low):.2f}",
            f"  … beside packed                   {geometric(times[PACKED] / times[OURS] for _, times in cases):.2f}",
            f"  … no padding, beside padded       {geometric(even):.2f}, worst {min(even, default=0):.2f}",
            f"  below 0.95 (0.90 under 100 µs)    {len(slow)}",
            f"  below 0.90, below 0.75            {sum(r < 0.9 for r in ratios)}, {sum(r < 0.75 for r in ratios)}",
            "  worst cases:",
            *(f"    {ratio:5.2f}  {case}" for ratio, case in worst),
            "",
        ]
    return "\n".join(lines)


def by_case(rows: Sequence[Row], phase: str) -> list[tuple[Row, Times]]:
    """For each case of a phase one of its rows, and the times of all, from the ratios within rounds."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.phase == phase:
            found.setdefault(row.case, {})[row.implementation] = row
    return [
        (case[PADDED], {name: row.time_ratio * case[PADDED].milliseconds for name, row in case.items()})
        for case in found.values()
    ]


def better(times: Times) -> float:
    return min(times[PADDED], times[PACKED])


def below(ratio: float, times: Times) -> bool:
    return ratio < (0.9 if better(times) < 0.1 else 0.95)


def geometric(ratios: Iterable[float]) -> float:
    logs = [log(ratio) for ratio in ratios]
    return exp(sum(logs) / len(logs)) if logs else float("nan")


def plot(rows: Sequence[Row], title: str, about: dict[str, object], path: Path) -> None:
    """Two panels for each phase: times as fast by share of real positions, and words per second by batch size."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2, squeeze=False)
    for (left, right), phase in zip(panels, PHASES, strict=True):
        cases = by_case(rows, phase)
        _by_share(left, cases, phase)
        _by_batch(right, rows, phase)
    figure.suptitle(f"{title}\n{about['name']}, {about['threads']} threads, torch {about['torch']}", fontsize=11)
    save(figure, path)


def _by_share(axes, cases: Sequence[tuple[Row, Times]], phase: str) -> None:
    shares = sorted({row.details["share"] for row, _ in cases if row.details["share"] is not None})
    for colour, batch in zip(COLOURS, sorted({row.details["batch"] for row, _ in cases}), strict=False):
        points = []
        for share in shares:
            here = [
                better(times) / times[OURS]
                for row, times in cases
                if (row.details["share"], row.details["batch"]) == (share, batch)
            ]
            points.append(geometric(here))
        axes.plot(shares, points, marker="o", color=colour, label=f"batch {batch}")
    axes.axhline(1, color="#444444")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_xlabel("share of real positions")
    axes.set_title(f"{phase}: times as fast as the better of padded and packed", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _by_batch(axes, rows: Sequence[Row], phase: str) -> None:
    hidden = 32 if any(row.details["hidden"] == 32 for row in rows) else rows[0].details["hidden"]
    for colour, name in zip(COLOURS[2::-1], (PADDED, PACKED, OURS), strict=True):
        points = sorted(
            (row.details["batch"], row.words_per_second)
            for row in rows
            if (row.implementation, row.phase, row.details["hidden"]) == (name, phase, hidden)
            and row.details["share"] in (0.5,)
            and row.details["law"] == "uniform"
        )
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("batch")
    axes.set_title(f"{phase}: real words per second, hidden {hidden}, half real, uniform", fontsize=10)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
