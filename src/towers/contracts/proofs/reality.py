"""The reality check: before a verdict is given, what it claims is tried with real tensors at many sizes."""

import inspect
import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, product
from math import gcd, prod
from operator import itemgetter
from typing import Any, cast

import torch
from torch import nn

from towers.contracts.proofs.outcome import Outcome
from towers.contracts.proofs.ranges import Span, Spans
from towers.contracts.proofs.relations import some_sizes
from towers.contracts.proofs.symbolic_inputs import Case
from towers.contracts.proofs.symbols import examples
from towers.contracts.proofs.trials import LARGEST_INPUTS, Given, Trial, Trials
from towers.contracts.proofs.verdicts import Finding, Guess

SECONDS, SHARE = 0.6, 0.06
"""The time limit of the check: .6 s, or this share of a long limit; a single longer run may exceed it."""

FEWEST_RUNS = 8
"""The least number of runs, whatever they take, unless one takes over a second."""

LARGEST_SQUARE = 256
"""The largest size that two axes have together: what an attention makes of them may be much larger than they are."""

DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int32)
"""Tried beside the usual dtypes, where the annotations admit them."""


@dataclass
class Reality:
    """What the real runs of one module showed."""

    tried: int = 0
    planned: int = 0
    untried: str | None = None
    """Why nothing was run, or not all that was planned."""
    remarks: list[str] = field(default_factory=list[str])
    """What is no fault: "not in bfloat16: …", "needs values that …"."""


class RealityCheck:
    """Tries the claims of all cases of one module."""

    def __init__(self, module: nn.Module, given: Given, seconds: float, search_until: float) -> None:
        self.trials = Trials(module, given)
        self.reality = Reality()
        self.numbers = _numbers_in(module)
        self.slowest = 0.0
        self.began = time.perf_counter(), time.thread_time()
        self.seconds = seconds
        self.search_until = search_until
        """When the search for a condition ends at the latest, as time.perf_counter counts."""
        self.reality.untried = self.trials.refused()

    def confirm(self, finding: Finding, case: Case) -> bool:
        """Whether a symbolic failure is confirmed by a real run at a size in its region."""
        if self.reality.untried is not None or finding.outcome is None:
            return True
        spans, relations = finding.outcome.spans, finding.outcome.relations
        tries = [{name: span.example(prime) for name, span in spans.items()} for prime in (3, 11)]
        tries.append({name: span.example(3 + 4 * at) for at, (name, span) in enumerate(spans.items())})
        if relations:
            tries = [tries[0] | chosen for chosen in islice(some_sizes(relations, spans), 3)]
        for sizes in tries:
            try:
                affordable = case.fits(sizes) and self._affordable(case, sizes)
            except ValueError:  # no input can be made: what the contract says of it is the failure
                return True
            if affordable:
                trial = self._timed(case, sizes, 0)
                if trial is None or trial.error is not None or trial.needs:
                    return True
                if any(self.trials.attempt(case, sizes, (kind,) * 3, None) for kind in (1, 2)):
                    return True
        return False

    def table(self, case: Case, *, few: bool, share: float = 1.0) -> list[Trial]:
        """Real runs of a case at many sizes, the cheapest first; `share` of what time is left."""
        if self.reality.untried is not None and not self.reality.untried.startswith("tried at"):
            return []
        planned = few_of(plan(case, self.numbers)) if few else plan(case, self.numbers)
        try:
            counted = [(_elements(case, each), each) for each in planned]
        except ValueError:  # no input can be made
            return []
        self.reality.planned += len(planned)
        until = self.spent() + max(0.0, self.seconds - self.spent()) * share
        found: list[Trial] = []
        for turn, (elements, each) in enumerate(sorted(counted, key=itemgetter(0))):
            if elements > LARGEST_INPUTS:
                continue
            enough = self.reality.tried >= FEWEST_RUNS and turn > 1
            if self.spent() > until and (enough or self.slowest > 1):
                break
            trial = self._timed(case, each, turn)
            if trial is not None:
                found.append(trial)
                if trial.needs:
                    self.remark(f"needs values that fit: {trial.needs}")
        return found

    def gradients(self, case: Case) -> Trial | None:
        """A failure that shows with gradients on alone, at one of five sizes."""
        with torch.enable_grad():
            return self._first_failure(case, None)

    def dtypes(self, case: Case, admitted: Iterable[torch.dtype]) -> None:
        """Remark on dtypes that the annotations admit and that real tensors do not pass in."""
        for dtype in admitted:
            if self.spent() < self.seconds and (trial := self._first_failure(case, dtype)) is not None:
                reason = next(iter(trial.message.splitlines()), "")
                self.remark(f"not in {str(dtype).removeprefix('torch.')}: {reason}")

    def with_examples(self, table: list[Trial], outcomes: Sequence[Outcome]) -> list[Trial]:
        """The table with a run at an example of the sizes of each symbolic run, up to eight."""
        known = [trial.sizes for trial in table]
        for outcome in outcomes[:8]:
            sizes = examples(outcome.spans, outcome.case.fits, outcome.relations)
            if sizes not in known and self._affordable(outcome.case, sizes):
                trial = self._timed(outcome.case, sizes, 0)
                table += [] if trial is None else [trial]
        return table

    def around(self, case: Case, table: Sequence[Trial]) -> list[Trial]:
        """The table with further runs that change the size of one axis of a passing run."""
        passing = [trial for trial in table if trial.error is None]
        near = [trial for trial in passing if max(trial.sizes.values(), default=0) <= 64] or passing
        known = {tuple(trial.sizes.values()): trial for trial in table}
        spans = {name: span for name, span in case.spans().items() if not span.single}
        wanted = [
            {**base.sizes, name: size}
            for base in (near[len(near) // 2], near[-1], near[0])
            for name, span in spans.items()
            for size in (*_small(span), *(base.sizes[name] * times + more for times in (2, 3, 4, 8) for more in (0, 1)))
        ]
        wanted += [{**passing[0].sizes, name: size} for name in spans for size in (17, 65, 257, *self.numbers)]
        for sizes in _possible(case, wanted):
            if tuple(sizes.values()) not in known and time.perf_counter() < self.search_until:
                trial = self._timed(case, sizes, 0) if self._affordable(case, sizes) else None
                if trial is not None:
                    known[tuple(sizes.values())] = trial
        return list(known.values())

    def bound(self, case: Case, axis: str, passing: Trial, failing: int) -> int:
        """The last size of an axis that passes, found by bisection between a passing run and a failing size."""
        first, last, step = passing.sizes[axis], failing, case.spans()[axis].step
        while abs(last - first) > step and time.perf_counter() < self.search_until:
            middle = first + (last - first) // (2 * step) * step
            middle = middle if middle != first else first + (step if last > first else -step)
            trial = self._timed(case, {**passing.sizes, axis: middle}, 0)
            if trial is None:
                break
            first, last = (middle, last) if trial.error is None else (first, middle)
        return first

    def spent(self) -> float:
        """Seconds that the check has used: CPU time of this thread, at least half of the wall time."""
        wall, own = self.began
        return max(time.thread_time() - own, (time.perf_counter() - wall) / 2)

    def remark(self, text: str) -> None:
        """Record a remark, once."""
        text = text.splitlines()[0]
        if text not in self.reality.remarks:
            self.reality.remarks.append(text)

    def close(self) -> Reality:
        """The result, with the reason if not all sizes were tried."""
        reality = self.reality
        if reality.untried is None and reality.tried < reality.planned:
            reality.untried = f"tried at {reality.tried} of {reality.planned} sizes"
        return reality

    def _first_failure(self, case: Case, dtype: torch.dtype | None) -> Trial | None:
        for sizes in few_of(plan(case, self.numbers)):
            if self._affordable(case, sizes) and self.spent() < self.seconds:
                trial = self._timed(case, sizes, 0, dtype)
                if trial is not None and trial.error is not None:
                    return trial
        return None

    def _timed(self, case: Case, sizes: dict[str, int], turn: int, dtype: torch.dtype | None = None) -> Trial | None:
        start = time.perf_counter()
        trial = self.trials.run(case, sizes, turn, dtype)
        self.slowest = max(self.slowest, time.perf_counter() - start)
        self.reality.tried += dtype is None
        return trial

    def _affordable(self, case: Case, sizes: Mapping[str, int]) -> bool:
        return _elements(case, sizes) <= LARGEST_INPUTS


def plan(case: Case, numbers: Sequence[int]) -> list[dict[str, int]]:
    """The sizes to try: all small ones for one or two axes, else samples; around the module's own numbers; large ones.

    The same for the same module.
    """
    spans = case.spans()
    chance = random.Random(0)
    small = {name: _small(span) for name, span in spans.items()}
    usual = {name: sizes[min(2 + at, len(sizes) - 1)] for at, (name, sizes) in enumerate(small.items())}
    if prod(map(len, small.values())) <= 100:
        found = [dict(zip(small, sizes, strict=True)) for sizes in product(*small.values())]
    else:
        found = [usual, {name: sizes[0] for name, sizes in small.items()}]
        found += [dict.fromkeys(small, size) for size in range(10)]
        for one, other in combinations(small, 2):
            found += [{**usual, one: a, other: b} for a, b in product(small[one][:3], small[other][:3])]
        found += [{**usual, name: size} for name, sizes in small.items() for size in sizes]
        found += [{name: chance.choice(sizes) for name, sizes in small.items()} for _ in range(60)]
    special = {*(n + more for n in numbers for more in (-1, 0, 1)), *(2**k + 1 for k in range(3, 11))}
    for name, span in spans.items():
        drawn = [span.first + chance.randrange(2000) * span.step for _ in range(3)]
        found += [{**usual, name: size} for size in sorted({*special, *drawn})]
    square = sorted({32, 64, 128, LARGEST_SQUARE, *(number for number in numbers if number <= LARGEST_SQUARE)})
    for one, other in combinations(spans, 2):  # as those of images are
        found += [{**usual, one: size, other: size} for size in square]
    return _possible(case, found)


def few_of(sizes: Sequence[dict[str, int]]) -> list[dict[str, int]]:
    """Five of many choices of sizes, from the first to the last of the small ones."""
    return [sizes[at * (min(len(sizes), 60) - 1) // 4] for at in range(5)] if len(sizes) > 5 else list(sizes)


def _possible(case: Case, found: Iterable[dict[str, int]]) -> list[dict[str, int]]:
    spans, kept = case.spans(), dict[tuple[int, ...], dict[str, int]]()
    for sizes in found:
        if all(sizes[name] in span for name, span in spans.items()) and case.fits(sizes):
            kept.setdefault(tuple(sizes.values()), sizes)
    return list(kept.values())


def _small(span: Span) -> list[int]:
    """The sizes up to 9, or the first nine, of an axis."""
    last = span.first + 8 * span.step if span.last is None else min(span.last, span.first + 8 * span.step)
    sizes = list(range(span.first, last + 1, span.step))
    return [size for size in sizes if size <= max(9, sizes[min(3, len(sizes) - 1)])]


def _numbers_in(module: nn.Module) -> list[int]:
    """The sizes of the module's parameters and buffers, the ints that it holds, and those in the code of `forward`."""
    tensors = [*module.parameters(), *module.buffers()]
    found = {size for tensor in tensors for size in tensor.shape}
    for part in module.modules():
        for value in vars(part).values():
            items = cast(Any, value) if isinstance(value, (tuple, list)) else (value,)
            found |= {item for item in items if type(item) is int}
        code = getattr(inspect.unwrap(type(part).forward), "__code__", None)
        if code is not None and not type(part).__module__.startswith("torch."):
            found |= {value for value in code.co_consts if type(value) is int}
    return sorted(number for number in found if 1 < number <= 5000)[:40]


def _elements(case: Case, sizes: Mapping[str, int]) -> int:
    """The numbers in all inputs together."""
    counts: list[int] = []
    case.arguments(sizes, lambda shape, dtype: counts.append(prod(shape)))
    return sum(counts)


# What the table of runs says.


def holds_at(conditions: Sequence[str], sizes: Mapping[str, int]) -> bool:
    """Whether the conditions of a verdict, which are Python's expressions on axis names, hold at some sizes."""
    return all(eval(text, {"__builtins__": {}, "min": min, "max": max}, dict(sizes)) for text in conditions)


def supposed(
    check: RealityCheck, case: Case, table: Sequence[Trial], whole: Spans, told: Sequence[Guess]
) -> tuple[Sequence[Trial], list[Guess]]:
    """The table with more runs, and the conditions that hold where the runs passed and nowhere else.

    They are those that the symbolic runs told, some on single axes, and some between two. Bounds are sharpened by more
    runs. What is found are guesses: they are still to be proven.
    """
    if {trial.error is None for trial in table} != {True, False}:
        return table, []
    table = check.around(case, table)
    alone: list[str] = []
    for name in whole:
        passing = {trial.sizes[name]: trial for trial in table if trial.error is None}
        rests = {_but(name, trial) for trial in table if trial.error is None}
        failing = {trial.sizes[name] for trial in table if trial.error is not None and _but(name, trial) in rests}
        if failing - passing.keys():
            alone += _alone(check, case, name, passing, failing - passing.keys())
    guesses = [*told, *([Guess(tuple(alone), ((tuple(alone), ()),))] if alone else []), *_between(list(whole))]
    return table, [
        each for each in guesses if all(holds_at(each.texts, one.sizes) == (one.error is None) for one in table)
    ]


def _between(names: Sequence[str]) -> Iterable[Guess]:
    """Conditions between two axes, and those that hold too where an axis is 1, as what broadcasts does."""
    for one, other in product(names, names):
        if one < other:
            yield from map(_any_of, (f"{one} == {other}", f"{one} <= {other}", f"{one} >= {other}"))
            yield from (_any_of(f"{one} == {other}", f"{name} == 1") for name in (one, other))
            yield _any_of(f"{one} == 1", f"{other} == 1")
        if one != other:
            yield _any_of(f"{one} % {other} == 0")


def _any_of(*texts: str) -> Guess:
    return Guess((" or ".join(texts),), tuple(((text,), ()) for text in texts))


def _but(name: str, trial: Trial) -> tuple[int, ...]:
    """The sizes of all other axes."""
    return tuple(size for axis, size in trial.sizes.items() if axis != name)


def _alone(
    check: RealityCheck, case: Case, name: str, passing: Mapping[int, Trial], failing: Collection[int]
) -> list[str]:
    """Conditions on one axis: a single size, a remainder, bounds."""
    good, bad = sorted(passing), sorted(failing)
    span = case.spans()[name]
    if len(good) == 1 and good[0] + span.step in failing and good[0] - span.step in {*failing, span.first - span.step}:
        return [f"{name} == {good[0]}"]
    texts: list[str] = []
    inside = [size for size in bad if good[0] < size < good[-1]]
    if inside:
        whole = gcd(*(size - good[0] for size in good))
        for divisor in (each for each in range(64, 1, -1) if whole % each == 0):  # the largest that all passing share
            rest = good[0] % divisor
            if not any(size % divisor == rest for size in inside):
                texts.append(f"{name} % {divisor} == {rest}")
                bad = [size for size in bad if size % divisor == rest]
                break
    if bad and bad[0] < good[0]:
        near = max(size for size in bad if size < good[0])
        texts.append(f"{name} >= {check.bound(case, name, passing[good[0]], near)}")
    if bad and bad[-1] > good[-1]:
        near = min(size for size in bad if size > good[-1])
        texts.append(f"{name} <= {check.bound(case, name, passing[good[-1]], near)}")
    return texts
