"""What the suite `scale` runs in processes of its own, each of which prints what it measured, as one line of JSON.

python benchmarks/scale_child.py predict | ray  OPTION…    towers predict with these options
python benchmarks/scale_child.py index ITEMS PART [FILE]   an index, added in parts, searched, and saved if named
python benchmarks/scale_child.py mapped FILE               that file, loaded and searched
"""

import json
import os
import sys
from pathlib import Path

import torch

from towers import TwoTowers
from towers.cli import main
from towers.search import Index

QUERIES, K = 64, 10


def memory(name: str) -> int:
    """What the system says about this process's memory, in bytes: VmHWM (the peak), VmRSS, RssAnon."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def predict(options: list[str]) -> dict[str, int]:
    if code := main(["predict", *options]):
        sys.exit(code)
    return {"peak": memory("VmHWM")}


def ray(options: list[str]) -> dict[str, int]:
    """Ray has a CPU for reading and one for each of two actors, whatever the machine has."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        return predict(["--engine", "ray", *options])
    finally:
        ray.shutdown()


def warm() -> tuple[TwoTowers, torch.Tensor]:
    """A model and queries; memory for what is loaded at first use does not count."""
    torch.manual_seed(0)
    model, queries = TwoTowers(), torch.rand(QUERIES, 6) * 2 - 1
    small = Index(model)
    small.add(torch.rand(9000, 6))
    small.search(queries, K)
    return model, queries


def index(items: int, part: int, file: str | None = None) -> dict[str, int]:
    """Bytes at the peak beyond those before, and what of them is laid out. The caller's one part of all items is there
    before; where there are several, each is made as it is added."""
    model, queries = warm()
    whole = torch.rand(items, 6) if part == items else None
    own = Index(model)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    for first in range(0, items, part):
        own.add(torch.rand(min(part, items - first), 6) if whole is None else whole)
    own.search(queries, K)
    grown, laid_out = memory("VmHWM") - before, own._laid_out()
    size = laid_out.blocks.nbytes + laid_out.ids.nbytes + (laid_out.boxes.fields.nbytes if laid_out.boxes else 0)
    if file is not None:
        own.save(file)
    return {"grown": grown, "rows": 4 * model.dense.out_features * items, "laid_out": size}


def mapped(file: str) -> dict[str, int]:
    """Bytes that are this process's own, beyond those before: pages of the file are the system's to drop."""
    model, queries = warm()
    before = memory("RssAnon")
    own = Index.load(file, model)
    loaded = memory("RssAnon") - before
    own.search(queries, K)
    return {"grown": max(0, loaded, memory("RssAnon") - before), "rows": 4 * model.dense.out_features * len(own)}


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "index":
        found = index(int(given[0]), int(given[1]), *given[2:])
    else:
        found = mapped(*given) if what == "mapped" else {"predict": predict, "ray": ray}[what](given)
    print(json.dumps(found))
