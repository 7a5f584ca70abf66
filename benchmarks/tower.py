"""One tower and TwoTowers on SICK's sentences, from vectors and from word ids, beside torch, Keras and ONNX Runtime.

The job is the same for all. Forward: from the sentences of a batch to their states (one tower) or logits (two).
Training: one step with loss, gradients and Adam. The time includes packing and the look-up of ids; the table of vectors
is fixed. Keras takes padding for words, so its results are compared with ours on the same padded batch without lengths.
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from others import Elsewhere, Keras, keras_backends, keras_case, keras_python, keras_weights, onnx_tower
from report import Row
from sick import Sentences, sentences
from timing import interleaved
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence
from tower_parts import parts
from tower_parts import profile as profile
from tower_picture import plot as plot
from tower_reach import reach as reach

from towers import Ragged, RaggedLSTM, Tower, TwoTowers
from towers.export import export
from towers.optim import KerasAdam

TITLE = "Towers on SICK's sentences"
KINDS = ("vectors", "ids")


class Case(NamedTuple):
    model: str  # "tower", "two towers"; NO_PADDING with its threads: pairs of 9 and 5 words; ONE_SENTENCE with its LSTM
    batch: int

    @property
    def name(self) -> str:
        return f"{self.model}, batch {self.batch}"


NO_PADDING = {"no padding, 1 thread": 1, "no padding, 2 threads": 2}
ONE_SENTENCE = {f"one sentence, hidden {hidden}": hidden for hidden in (6, 32, 128)}


def cases(quick: bool) -> list[Case]:
    batches = (1, 32) if quick else (1, 5, 32, 256, 1024, 4096)
    usual = [Case(model, batch) for model in ("tower", "two towers") for batch in batches]
    alike = [Case(model, batch) for model in NO_PADDING for batch in batches if batch not in (5, 4096)]
    return [*usual, *(alike[:2] if quick else [*alike, *(Case(model, 1) for model in ONE_SENTENCE)])]


class Job(NamedTuple):
    """A module, its arguments, and the name of the job whose result it must have."""

    module: nn.Module
    given: tuple[Any, ...]
    reference: str = "torch, padded, vectors"


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    torch.manual_seed(0)
    if case.model in NO_PADDING:
        return measure_without_padding(case, device, quick=quick)
    if case.model in ONE_SENTENCE:
        return measure_one_sentence(case, device)
    given = sentences(case.batch, device)
    model = (TwoTowers() if case.model == "two towers" else Tower()).to(device)
    labels = (torch.arange(case.batch, device=device) % 2).float()
    jobs = torch_jobs(model, given)
    check(case, jobs)
    others: dict[str, dict[str, Callable[[], object]]] = {"forward": {}, "training": {}}
    if device.type == "cpu":
        others = elsewhere(case, model, given, labels)
    rows: list[Row] = []
    words = given.left.values.shape[0] + (given.right.values.shape[0] if case.model == "two towers" else 0)
    for phase, floor in (("forward", floors(model, given)), ("training", products(model, given))):
        ours = {name: (forward if phase == "forward" else training)(job, labels) for name, job in jobs.items()}
        own = parts(model, given.left, phase) if isinstance(model, Tower) and device.type == "cpu" else {}
        timings = interleaved({**floor, **ours, **others[phase], **own}, device, seconds=1.0 if quick else 7.0)
        for name, timing in timings.items():
            details = {"batch": case.batch, "model": case.model, "words": words, "sentences": given.source}
            details |= {"spread": timing.spread, "rounds": timing.rounds}
            speed = words / timing.milliseconds * 1e3
            rows.append(Row("tower", case.name, name, phase, timing.milliseconds, timing.time_ratio, speed, details))
    return rows


def measure_without_padding(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Pairs of 9 and 5 words, without lengths: ours eager and compiled, plain torch, and ONNX Runtime."""
    if device.type != "cpu":
        return []
    model, threads = TwoTowers(), torch.get_num_threads()
    left, right = (Ragged.from_padded(torch.randn(case.batch, words, 300)) for words in (9, 5))
    given = Sentences(left, right, "made-up, 9 and 5 words")
    torch.set_num_threads(NO_PADDING[case.model])
    try:
        padded = [part.to_padded()[0] for part in (left, right)]
        jobs = {"towers, padded vectors": Job(model, tuple(padded))}
        if compiles(device):
            jobs["towers, compiled"] = Job(compiled(model), tuple(padded))
        jobs["torch, padded, vectors"] = Job(PlainTowers(model, False), (left.to_padded(), right.to_padded()))
        check(case, jobs)
        calls = {name: forward(job, torch.empty(0)) for name, job in jobs.items()} | exported_job(case, model, given)
        if not quick:
            calls |= programs(case, model, padded)
        timings = interleaved(calls, device, seconds=0.5 if quick else 5.0)
    finally:
        torch.set_num_threads(threads)
    rows: list[Row] = []
    for name, timing in timings.items():
        details = {"batch": case.batch, "model": case.model, "words": 14 * case.batch, "sentences": given.source}
        details |= {"spread": timing.spread, "rounds": timing.rounds}
        speed = 14 * case.batch / timing.milliseconds * 1e3
        rows.append(Row("tower", case.name, name, "forward", timing.milliseconds, timing.time_ratio, speed, details))
    return rows


def programs(case: Case, model: TwoTowers, padded: list[Tensor]) -> dict[str, Callable[[], object]]:
    """The `.pt2` files that `towers export` writes: of torch's operations alone, and with ours."""
    left, right = padded
    batch = {"left": left, "right": right, "left_lengths": torch.full(left.shape[:1], left.shape[1])}
    calls: dict[str, Callable[[], object]] = {}
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for name, own in (("torch.export, portable", False), ("torch.export, with towers", True)):
            path = export(model, Path(folder) / "pair.pt2", format="torch", with_towers=own).path
            module = torch.export.load(path).module()
            compare(case, name, module(**batch), model(*padded), 1e-5)
            calls[name] = torch.no_grad()(lambda module=module: module(**batch))
    return calls


def measure_one_sentence(case: Case, device: torch.device) -> list[Row]:
    """h_n of one sentence of 9 words: RaggedLSTM and nn.LSTM, with the same weights."""
    ours = RaggedLSTM(8, ONE_SENTENCE[case.model]).to(device)
    theirs, x = ours.to_torch(), torch.randn(1, 9, 8, device=device)
    calls = {"RaggedLSTM": forward(Job(ours, (x,)), x), "nn.LSTM": forward(Job(theirs, (x,)), x)}
    found, expected = (call()[1][0] for call in calls.values())
    compare(case, "RaggedLSTM", found, expected, 1e-5)
    timings = interleaved(calls, device, seconds=3.0)
    details = {"batch": 1, "model": case.model, "words": 9, "sentences": "made-up, 9 words"}
    return [
        Row("tower", case.name, name, "forward", timing.milliseconds, timing.time_ratio, 9e3 / timing.milliseconds,
            details | {"spread": timing.spread, "rounds": timing.rounds})
        for name, timing in timings.items()
    ]  # fmt: skip


# The floors: work that every implementation has to do, from vectors or from ids.


def sides_of(model: nn.Module, given: Sentences) -> list[tuple[Tower, Ragged]]:
    if isinstance(model, Tower):
        return [(model, given.left)]
    assert isinstance(model, TwoTowers)
    return [(model.left, given.left), (model.right, given.right)]


def floors(model: nn.Module, given: Sentences) -> dict[str, Callable[[], object]]:
    sides = [(tower.conv.weight.detach().flatten(0, 1), ids) for tower, ids in sides_of(model, given)]
    vectors = [ids.vectors().values for _, ids in sides]
    return {
        "floor: one matrix product": lambda: [F.linear(v, w) for v, (w, _) in zip(vectors, sides, strict=True)],
        "floor: a copy of the rows": lambda: [ids.vectors() for _, ids in sides],
    }


def products(model: nn.Module, given: Sentences) -> dict[str, Callable[[], object]]:
    """The matrix product of the forward pass and the one that gives the weights' gradient."""
    parts = [(tower.conv.weight.detach().flatten(0, 1), ids.vectors().values) for tower, ids in sides_of(model, given)]
    return {"floor: two matrix products": lambda: [F.linear(v, w).t() @ v for w, v in parts]}


# In torch.


class PlainTower(nn.Module):
    """The tower as one writes it in torch: conv2d, max_pool1d, nn.LSTM padded or packed, with a Tower's weights."""

    def __init__(self, tower: Tower, packed: bool) -> None:
        super().__init__()
        self.packed, self.size = packed, tower.pool.size
        self.weight = nn.Parameter(tower.conv.weight.detach().transpose(0, 1).unsqueeze(1).contiguous())
        self.bias = nn.Parameter(tower.conv.bias.detach().clone())
        self.lstm = tower.lstm.to_torch()

    def forward(self, words: Tensor, lengths: Tensor, table: Tensor | None = None) -> Tensor:
        vectors = words if table is None else F.embedding(words, table)
        phrases = F.conv2d(vectors.unsqueeze(1), self.weight, self.bias).squeeze(3).transpose(1, 2)
        pooled = F.max_pool1d(phrases, self.size)
        if self.packed:
            steps = (lengths - 1).cpu()
            return self.lstm(pack_padded_sequence(pooled, steps, batch_first=True, enforce_sorted=False))[1][0][0]
        return self.lstm(pooled)[0][torch.arange(len(words), device=words.device), lengths - 2]


class PlainTowers(nn.Module):
    """Two PlainTowers and the head."""

    def __init__(self, model: TwoTowers, packed: bool) -> None:
        super().__init__()
        self.left, self.right = PlainTower(model.left, packed), PlainTower(model.right, packed)
        self.dense = nn.Linear(6, 16).to(model.dense.weight.device)
        self.logit = nn.Linear(16, 1).to(model.dense.weight.device)
        self.dense.load_state_dict(model.dense.state_dict())
        self.logit.load_state_dict(model.logit.state_dict())

    def forward(self, left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> Tensor:
        return self.logit(F.relu(self.dense(self.left(*left) - self.right(*right)))).squeeze(-1)


def torch_jobs(model: nn.Module, given: Sentences) -> dict[str, Job]:
    sides = [ids for _, ids in sides_of(model, given)]
    jobs = {f"towers, {kind}": Job(model, tuple(of_kind(ids, kind) for ids in sides)) for kind in KINDS}
    padded = [ids.vectors().to_padded() for ids in sides]
    lengths = () if len(sides) == 1 else (padded[0][1], None)
    ours = (*[some for some, _ in padded], *(lengths or (padded[0][1],)))
    jobs["towers, padded vectors"] = Job(model, ours)
    if compiles(given.left.values.device):
        jobs["towers, compiled"] = Job(compiled(model), ours)
    for form in ("padded", "packed"):
        if isinstance(model, TwoTowers):
            plain: nn.Module = PlainTowers(model, form == "packed")
        else:
            assert isinstance(model, Tower)
            plain = PlainTower(model, form == "packed")
        for kind in KINDS:
            parts = [of_kind(ids, kind) for ids in sides]
            tables = [() if part.table is None else (part.table,) for part in parts]
            called = [(*part.to_padded(), *table) for part, table in zip(parts, tables, strict=True)]
            jobs[f"torch, {form}, {kind}"] = Job(plain, called[0] if len(sides) == 1 else tuple(called))
    return jobs


def compiles(device: torch.device) -> bool:
    """Whether torch.compile has the C++ compiler that it takes for what is not one of our operations."""
    return device.type == "cpu" and any(map(shutil.which, ("g++", "clang++")))


def compiled(model: nn.Module, backend: str = "inductor") -> nn.Module:
    torch._dynamo.reset()  # a case compiles for its own sizes, so that no earlier case makes them symbols
    return torch.compile(model, backend=backend)


def of_kind(ids: Ragged, kind: str) -> Ragged:
    return ids if kind == "ids" else ids.vectors()


def forward(job: Job, labels: Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return job.module(*job.given)

    return call


def loss_of(result: Tensor, labels: Tensor) -> Tensor:
    if result.dim() == 1:
        return F.binary_cross_entropy_with_logits(result, labels)
    return result.square().mean()


def training(job: Job, labels: Tensor) -> Callable[[], object]:
    parameters = list(job.module.parameters())
    optimizer = KerasAdam([{"params": parameters, "fused": labels.device.type == "cpu"}], lr=1e-6)

    def call() -> object:
        optimizer.zero_grad()
        loss_of(job.module(*job.given), labels).backward()
        return optimizer.step()

    return call


def check(case: Case, jobs: Mapping[str, Job]) -> None:
    """All jobs agree with plain torch, padded: results to 1e-5, gradients to 1e-4 of their largest entry."""
    results = {name: result_and_gradients(job) for name, job in jobs.items()}
    expected = results["torch, padded, vectors"]
    for name, found in results.items():
        for at, (one, other) in enumerate(zip(found, expected, strict=True)):
            compare(case, name, one, other, 1e-4 if at else 1e-5)


def result_and_gradients(job: Job) -> list[Tensor]:
    result = job.module(*job.given)
    result.square().sum().backward()
    named = sorted((renamed(name), parameter.grad) for name, parameter in job.module.named_parameters())
    gradients = [gradient for name, gradient in named if gradient is not None and "bias_hh" not in name]
    job.module.zero_grad()
    return [result.detach(), *[g.squeeze(1).transpose(0, 1) if g.dim() == 4 else g for g in gradients]]


def renamed(name: str) -> str:
    return name.replace("conv.", "")


def compare(case: Case, name: str, found: Tensor, expected: Tensor, relative: float) -> None:
    distance, allowed = (found - expected.reshape(found.shape)).abs().max(), relative * max(1.0, expected.abs().max())
    if not distance <= allowed:
        raise AssertionError(f"{case.name}: {name} is {distance:.1e} away; at most {allowed:.1e}")


# In Keras and ONNX Runtime.


@cache
def started_keras() -> dict[str, Keras]:
    started = {
        name: Keras(backend, keras_python(), torch.get_num_threads()) for name, backend in keras_backends().items()
    }
    for keras in started.values():
        atexit.register(keras.end)
    return started


def elsewhere(
    case: Case, model: nn.Module, given: Sentences, labels: Tensor
) -> dict[str, dict[str, Callable[[], object]]]:
    sides = sides_of(model, given)
    jobs: dict[str, dict[str, Callable[[], object]]] = {"forward": onnx_jobs(case, sides), "training": {}}
    if isinstance(model, TwoTowers):
        jobs["forward"] |= exported_job(case, model, given)
    started = started_keras()
    table = given.left.table
    assert table is not None
    arrays = {"table": table.numpy()}  # its last row is that of the blank word
    for name, (_, ids) in zip(("left", "right"), sides, strict=False):
        arrays[name] = ids.to_padded(padding=len(table) - 1)[0].numpy()
    for name, (tower, _) in zip(("left", "right"), sides, strict=False):
        arrays |= keras_weights(tower, name)
    if isinstance(model, TwoTowers):
        arrays["labels"] = labels.unsqueeze(1).numpy()
        for name in ("dense", "logit"):
            layer = getattr(model, name)
            arrays |= {f"{name}.0": layer.weight.detach().t().numpy(), f"{name}.1": layer.bias.detach().numpy()}
    with torch.no_grad():
        wanted = model(*[ids.vectors().to_padded()[0] for _, ids in sides])
    wanted = wanted.sigmoid() if isinstance(model, TwoTowers) else wanted
    with keras_case(started, arrays) as results:
        for name, of_kinds in results.items():
            for kind, found in of_kinds.items():
                compare(case, f"{name}, {kind}", torch.tensor(found), wanted.flatten(), 1e-5)
    for phase in ("forward", "training"):
        jobs[phase] |= {f"{n}, {kind}": Elsewhere(k, f"{phase} {kind}") for n, k in started.items() for kind in KINDS}
    return jobs


def exported_job(case: Case, model: TwoTowers, given: Sentences) -> dict[str, Callable[[], object]]:
    """The file that `towers export` writes, in ONNX Runtime with torch's number of threads: head included."""
    if onnx_tower(model.left, None) is None:
        return {}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # waiting threads slow down others
    with tempfile.TemporaryDirectory() as folder:
        path = export(model, Path(folder) / "pair.onnx").path
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (left, lengths), (right, _) = (ids.vectors().to_padded() for ids in (given.left, given.right))
    feed = {"left": left.numpy(), "right": right.numpy(), "left_lengths": lengths.numpy()}
    with torch.no_grad():
        found = torch.tensor(session.run(None, feed)[0])
        compare(case, "ONNX Runtime, exported", found, model(left, right, lengths), 1e-5)
    return {"ONNX Runtime, exported": lambda: session.run(None, feed)}


def onnx_jobs(case: Case, sides: list[tuple[Tower, Ragged]]) -> dict[str, Callable[[], object]]:
    """The towers without the head, whose time is negligible."""
    jobs: dict[str, Callable[[], object]] = {}
    for kind in KINDS:
        runs: list[tuple[Any, np.ndarray, np.ndarray]] = []
        for tower, ids in sides:
            run = onnx_tower(tower, ids.table if kind == "ids" else None)
            if run is None:
                return {}
            padded, lengths = of_kind(ids, kind).to_padded()
            runs.append((run, padded.numpy(), (lengths - 1).int().numpy()))
            with torch.no_grad():
                compare(case, f"ONNX Runtime, {kind}", torch.tensor(run(*runs[-1][1:])), tower(ids), 1e-5)
        jobs[f"ONNX Runtime, {kind}"] = lambda runs=runs: [run(given, steps) for run, given, steps in runs]
    return jobs
