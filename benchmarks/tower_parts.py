"""Where one tower's time goes: each part alone, timed beside the whole tower."""

from collections.abc import Callable, Sequence

import torch
from report import Row
from rich import box
from rich.table import Table
from torch import Tensor

from towers import Ragged, Tower
from towers.layers import on_cpu
from towers.optim import KerasAdam

PARTS = ("phrases", "LSTM", "optimizer")


def parts(tower: Tower, ids: Ragged, phase: str) -> dict[str, Callable[[], object]]:
    """Each part by itself; training: forward and backward pass. Phrases: convolution and pool together."""
    vectors, wanted = ids.vectors(), phase == "training"
    with torch.no_grad():
        batch, count = on_cpu.pooled(tower.conv, tower.pool, vectors, None)
    calls = {
        f"part: phrases, {kind}": _there_and_back(
            lambda words=words: on_cpu.pooled_features(tower.conv, tower.pool.size, words),
            tuple(tower.conv.parameters()),
            wanted,
        )
        for kind, words in (("vectors", vectors), ("ids", ids))
    }
    features = batch.values.clone().requires_grad_(wanted)
    batch = batch._replace(values=features)
    calls["part: LSTM"] = _there_and_back(
        lambda: tower.lstm.run_batch(batch, count, outputs=False)[1][0], (features, *tower.lstm.parameters()), wanted
    )
    return calls | ({"part: optimizer": _step(tower)} if wanted else {})


def _there_and_back(call: Callable[[], Tensor], given: Sequence[Tensor], back: bool) -> Callable[[], object]:
    upstream = torch.ones_like(call().detach())

    def run() -> object:
        with torch.set_grad_enabled(back):
            result = call()
        return torch.autograd.grad(result, given, upstream) if back else result

    return run


def _step(tower: Tower) -> Callable[[], object]:
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in tower.parameters()]
    for copy in copies:
        copy.grad = torch.ones_like(copy)
    return KerasAdam([{"params": copies, "fused": True}], lr=1e-6).step


def profile(rows: Sequence[Row]) -> Table:
    """Shares of one tower's time; the rest is checks, Python and autograd.

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
        names = (f"part: phrases, {kind}", "part: LSTM", "part: optimizer")
        found = [times.get((phase, batch, part), 0.0) / whole for part in names]
        shares = [f"{100 * share:.0f}" if share else "" for share in found]
        rest = f"{100 * (1 - sum(found)):.0f}"
        result.add_row(f"{phase}, from {kind}", str(batch), f"{1e3 * whole:.0f}", *shares, rest)
    return result
