"""Where one tower's time goes: each part alone, timed beside the whole tower."""

from collections.abc import Callable, Sequence

import torch
from report import Row
from rich import box
from rich.table import Table

from towers import Ragged, Tower
from towers.kernels import Batch
from towers.optim import KerasAdam

PARTS = ("LSTM", "optimizer")


def parts(tower: Tower, ids: Ragged, phase: str) -> dict[str, Callable[[], object]]:
    """Each part by itself; training: forward and backward pass."""
    vectors, training = ids.vectors(), phase == "training"
    calls: dict[str, Callable[[], object]] = {}
    rows = vectors.values.shape[0] - tower.kernel_words + 1
    features = torch.rand(rows, tower.pool.features, requires_grad=training)
    steps = vectors.lengths - tower.kernel_words + 1
    batch, weights = Batch(features, vectors.offsets[:-1], steps, None), list(tower.lstm.parameters())
    upstream = torch.ones(len(vectors), tower.hidden)

    def lstm() -> object:
        with torch.set_grad_enabled(training):
            states = tower.lstm.run_batch(batch, len(vectors), outputs=False)[1][0][-1]
        return torch.autograd.grad(states, (features, *weights), upstream) if training else states

    calls["part: LSTM"] = lstm
    return calls | ({"part: optimizer": _step(tower)} if training else {})


def _step(tower: Tower) -> Callable[[], object]:
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in tower.parameters()]
    for copy in copies:
        copy.grad = torch.ones_like(copy)
    return KerasAdam([{"params": copies, "fused": True}], lr=1e-6).step


def profile(rows: Sequence[Row]) -> Table:
    """Shares of one tower's time; the rest is phrases, checks, Python and autograd.

    A part alone may take longer than inside the tower, where its input was written just before: then shares are above
    100, and the rest is below 0.
    """
    result = Table(title="Where one tower's time goes, in %", box=box.SIMPLE_HEAD)
    for heading in ("", "batch", "µs", *PARTS, "rest"):
        result.add_column(heading, justify="left" if not heading else "right")
    times = {
        (row.phase, row.details["batch"], row.implementation): row.milliseconds
        for row in rows
        if row.details["model"] == "tower"
    }
    for phase, batch, name in sorted(times, key=lambda key: (key[0], key[2] != "towers, vectors", int(str(key[1])))):
        kind = name.removeprefix("towers, ")
        if not name.startswith("towers, ") or kind not in ("vectors", "ids"):
            continue
        whole = times[phase, batch, name]
        found = [times.get((phase, batch, f"part: {part}"), 0.0) / whole for part in PARTS]
        shares = [f"{100 * share:.0f}" if share else "" for share in found]
        rest = f"{100 * (1 - sum(found)):.0f}"
        result.add_row(f"{phase}, from {kind}", str(batch), f"{1e3 * whole:.0f}", *shares, rest)
    return result
