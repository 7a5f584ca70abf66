"""The reality check: before a verdict is given, what it claims is tried with real tensors at many sizes."""

import inspect
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice, product
from math import prod
from operator import itemgetter
from typing import Any, cast

import torch
from torch import nn

from towers.contracts.proofs.outcome import Outcome
from towers.contracts.proofs.ranges import Span
from towers.contracts.proofs.reached import codes
from towers.contracts.proofs.relations import some_sizes
from towers.contracts.proofs.symbolic_inputs import Case
from towers.contracts.proofs.symbols import examples
from towers.contracts.proofs.trials import LARGEST_INPUTS, Given, Trial, Trials
from towers.contracts.proofs.verdicts import Finding

SECONDS, SHARE = 0.6, 0.06
"""The time limit of the check: .6 s, or this share of a long limit; a single longer run may exceed it."""

SEARCH = 0.15
"""The share of the time that is left which each part of the search for a condition may take."""

FALLING = 12
"""How many of the cheapest runs are repeated in falling order."""

FEWEST_RUNS = 8
"""The least number of runs, whatever they take, unless one takes over a second."""

LARGEST_SEARCHED = 2**18
"""Numbers in the inputs of a run that looks for a condition: what it makes of them may be a thousand times as many."""

LARGEST_SQUARE = 256
NEAR, FARTHEST = 5000, 1 << 17
"""Up to which of the module's own numbers sizes are run whatever they cost, and up to which if they cost little."""
MOST_FAR, FEWEST_ROWS, FAR_RUNS = 12, 32, 2
"""The largest numbers from which sizes far away are made; the least of which multiples are; and runs of each axis."""
MEASURED, FAR_SECONDS = 2049, 0.2
"""At which size the time of a run is measured, and how long a run at a size far away may take by that."""
"""The largest size that two axes have together: what an attention makes of them may be much larger than they are."""

DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int32)
"""Tried beside the usual dtypes, where the annotations admit them."""


@dataclass
class Reality:
    """What the real runs of one module showed."""

    tried: int = 0
    """The number of all runs."""
    sizes: int = 0
    """The number of choices of sizes at which there was one."""
    planned: int = 0
    untried: str | None = None
    """Why nothing was run, or not all that was planned."""
    remarks: list[str] = field(default_factory=list[str])
    """What is no fault: "not in bfloat16: …", "needs values that …"."""


class RealityCheck:
    """Tries the claims of all cases of one module."""

    def __init__(
        self,
        module: nn.Module,
        given: Given,
        seconds: float,
        search_until: float,
        put_back: Callable[[], None] = lambda: None,
    ) -> None:
        self.trials = Trials(module, given, put_back)
        self.reality = Reality()
        numbers = _numbers_in(module)
        self.numbers, self.far = _near(numbers), _far(numbers)
        self.tables = {1 + part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)}
        """One more than the rows of each table: positions often are indices into one, and no symbol tells."""
        self.slowest = 0.0
        self.remarks: dict[str, list[str]] = {}
        self.began = time.perf_counter(), time.thread_time()
        self.seconds = seconds
        self.search_until = search_until
        """When the search for a condition ends at the latest, as time.perf_counter counts."""
        self.seen: list[tuple[Case, Trial]] = []
        """Every real run in the usual dtype."""
        self.plans: list[tuple[Case, list[dict[str, int]]]] = []
        """The sizes to try of each case that has come up."""
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
        planned = few_of(self.plan(case)) if few else self.plan(case)
        try:
            counted = [(_elements(case, each), each) for each in planned]
        except ValueError:  # no input can be made
            return []
        self.reality.planned += len(planned)
        until = self.spent() + max(0.0, self.seconds - self.spent()) * share
        found: list[Trial] = []
        counted.sort(key=itemgetter(0))
        beyond = [one for one in counted if self.tables & {*one[1].values()}][: FEWEST_RUNS // 2]
        for turn, (elements, each) in enumerate([*beyond, *(one for one in counted if one not in beyond)]):
            if elements > LARGEST_INPUTS:
                continue
            enough = self.reality.sizes >= FEWEST_RUNS and turn > 1
            if self.spent() > until and (enough or self.slowest > 1):
                break
            trial = self._timed(case, each, turn)
            if trial is not None:
                found.append(trial)
                if trial.needs:
                    self.remark(f"needs values that fit: {trial.needs}")
        return found if few else self._falling(case, [*found, *self._far_runs(case, until)], until)

    def _far_runs(self, case: Case, until: float) -> list[Trial]:
        """Runs at the largest sizes of each axis that take little time, even if it grew with the square of the size.

        So does the memory of what compares all words with all others.
        """
        spans, found = case.spans(), list[Trial]()
        least = {name: span.first for name, span in spans.items()}
        for axis in spans if self.far else ():
            if not _possible(case, [{**least, axis: MEASURED}]) or self.spent() > until:
                continue
            start = time.perf_counter()
            first = self._timed(case, {**least, axis: MEASURED}, 0)
            taken = time.perf_counter() - start
            found += [] if first is None else [first]
            if first is None or first.error is not None:
                continue
            light = [size for size in self.far if size > MEASURED and taken * (size / MEASURED) ** 2 < FAR_SECONDS]
            for sizes in _possible(case, [{**least, axis: size} for size in light[:FAR_RUNS]]):
                if self._affordable(case, sizes) and self.spent() < until:
                    trial = self._timed(case, sizes, 0)
                    found += [] if trial is None else [trial]
        return found

    def _falling(self, case: Case, found: list[Trial], until: float) -> list[Trial]:
        """The runs, of which the cheapest were run once more on a fresh copy in falling order, up to a failure."""
        passed = [at for at, trial in enumerate(found[:FALLING]) if trial.error is None]
        if len(passed) < 2 or self.spent() > until:
            return found
        self.trials.start_again()
        for at in reversed(passed):
            trial = self.trials.run(case, found[at].sizes)
            if trial is not None and trial.error is not None:
                return [*found[:at], trial, *found[at + 1 :]]
            if self.spent() > until:
                break
        return found

    def plan(self, case: Case) -> list[dict[str, int]]:
        """As the function, once for each case."""
        known = [planned for of, planned in self.plans if of is case]
        if not known:
            known = [plan(case, self.numbers)]
            self.plans.append((case, known[0]))
        return known[0]

    def gradients(self, case: Case) -> Trial | None:
        """A failure that shows where gradients are on in place of off, or off in place of on, at one of five sizes."""
        with torch.set_grad_enabled(not torch.is_grad_enabled()):
            return self._first_failure(case, None)

    def dtypes(self, case: Case, admitted: Iterable[torch.dtype]) -> None:
        """Remark on dtypes that the annotations admit and that real tensors do not pass in."""
        for dtype in admitted:
            if self.spent() < self.seconds and (trial := self._first_failure(case, dtype)) is not None:
                usual = self.trials.run(case, trial.sizes)
                if usual is not None and usual.error is not None:  # the values do not fit: it is not the dtype
                    continue
                reason = next(iter(trial.message.splitlines()), "")
                self.remark(f"not in {str(dtype).removeprefix('torch.')}: {reason}")

    def with_examples(self, table: list[Trial], outcomes: Sequence[Outcome]) -> list[Trial]:
        """The table with a run at an example of the sizes of each symbolic run."""
        known = [trial.sizes for trial in table]
        for outcome in outcomes:
            sizes = examples(outcome.spans, outcome.case.fits, outcome.relations)
            if sizes not in known and self._affordable(outcome.case, sizes):
                trial = self._timed(outcome.case, sizes, 0)
                table += [] if trial is None else [trial]
        return table

    def at_numbers(self, case: Case, table: Sequence[Trial], numbers: Sequence[int]) -> list[Trial]:
        """The table with runs at numbers of which the symbolic runs spoke: all axes alike, then one at a time."""
        spans = {name: span for name, span in case.spans().items() if not span.single}
        least = {name: span.first for name, span in case.spans().items()}
        wide = [name for name in spans if name != next(iter(least))] or list(spans)  # the first is the batch
        wanted = [{**least, **dict.fromkeys(wide, number)} for number in numbers]
        table = self.further(case, table, wanted, self.share())
        passing = [trial.sizes for trial in table if trial.error is None and trial.sizes in wanted]
        if passing and len(wide) > 1:
            bases = passing[0], passing[-1]
            wanted = [{**base, name: number} for number in numbers for name in wide for base in bases]
            table = self.further(case, table, wanted, self.share())
        return table

    def around(self, case: Case, table: Sequence[Trial]) -> list[Trial]:
        """The table with further runs that change the size of one axis of a passing run."""
        passing = [trial for trial in table if trial.error is None]
        near = [trial for trial in passing if max(trial.sizes.values(), default=0) <= 64] or passing
        spans = {name: span for name, span in case.spans().items() if not span.single}
        wanted = [
            {**base.sizes, name: size}
            for base in (near[len(near) // 2], near[-1], near[0])
            for name, span in spans.items()
            for size in (*_small(span), *(base.sizes[name] * times + more for times in (2, 3, 4, 8) for more in (0, 1)))
        ]
        wanted += [{**passing[0].sizes, name: size} for name in spans for size in (17, 65, 257, *self.numbers)]
        return self.further(case, table, wanted, self.share())

    def further(
        self, case: Case, table: Sequence[Trial], wanted: Iterable[dict[str, int]], until: float = float("inf")
    ) -> list[Trial]:
        """The table with runs at more sizes, as far as there is time."""
        known = {tuple(trial.sizes.values()): trial for trial in table}
        for sizes in _possible(case, wanted):
            if tuple(sizes.values()) not in known and time.perf_counter() < min(until, self.search_until):
                few = _elements(case, sizes) <= LARGEST_SEARCHED
                trial = self._timed(case, sizes, 0) if few else None
                if trial is not None:
                    known[tuple(sizes.values())] = trial
        return list(known.values())

    def share(self) -> float:
        """When one part of the search for a condition ends: the rest is for its proof."""
        now = time.perf_counter()
        return now + SEARCH * (self.search_until - now)

    def bound(self, case: Case, axis: str, passing: Trial, failing: int) -> int | None:
        """The last size of an axis that passes, found by bisection between a passing run and a failing size.

        None where the time is over before: a size that happened to be run is no bound.
        """
        first, last, step = passing.sizes[axis], failing, case.spans()[axis].step
        while abs(last - first) > step and time.perf_counter() < self.search_until:
            middle = first + (last - first) // (2 * step) * step
            middle = middle if middle != first else first + (step if last > first else -step)
            trial = self._timed(case, {**passing.sizes, axis: middle}, 0)
            if trial is None:
                break
            first, last = (middle, last) if trial.error is None else (first, middle)
        return first if abs(last - first) <= step else None

    def spent(self) -> float:
        """Seconds that the check has used: CPU time of this thread, at least half of the wall time."""
        wall, own = self.began
        return max(time.thread_time() - own, (time.perf_counter() - wall) / 2)

    def remark(self, text: str) -> None:
        """Record a remark; of those that differ in numbers alone the first, with their number."""
        text = text.splitlines()[0]
        alike = self.remarks.setdefault(re.sub(r"(?<![a-z])\d+", "#", text), [text])
        alike += [] if text in alike else [text]
        more = len(alike) - 1
        said = f"{alike[0]} (and {more} more with other numbers)" if more else alike[0]
        kept = [each for each in self.reality.remarks if not each.startswith(alike[0])]
        at = next((at for at, each in enumerate(self.reality.remarks) if each.startswith(alike[0])), len(kept))
        self.reality.remarks[:] = [*kept[:at], said, *kept[at:]]

    def trials_of(self, case: Case) -> list[Trial]:
        """The real runs of a case."""
        return [trial for of, trial in self.seen if of is case]

    def close(self, *, out_of_time: bool = False) -> Reality:
        """The result, with the reason if not all sizes were tried."""
        reality = replace(self.reality, tried=self.trials.runs, remarks=[*self.reality.remarks])
        if out_of_time and reality.sizes == 0 and reality.untried is None:
            reality.untried = "a real run took longer than the time limit"
        if reality.untried is None and reality.sizes < reality.planned:
            reality.untried = f"tried at {reality.sizes} of {reality.planned} sizes"
        return reality

    def _first_failure(self, case: Case, dtype: torch.dtype | None) -> Trial | None:
        for sizes in few_of(self.plan(case)):
            if self._affordable(case, sizes) and self.spent() < self.seconds:
                trial = self._timed(case, sizes, 0, dtype)
                if trial is not None and trial.error is not None:
                    return trial
        return None

    def _timed(self, case: Case, sizes: dict[str, int], turn: int, dtype: torch.dtype | None = None) -> Trial | None:
        start = time.perf_counter()
        trial = self.trials.run(case, sizes, turn, dtype)
        self.slowest = max(self.slowest, time.perf_counter() - start)
        self.reality.sizes += dtype is None
        if trial is not None and dtype is None:
            self.seen.append((case, trial))
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
    """The sizes of the module's parameters and buffers, the ints that it holds, and those in code of its methods."""
    tensors = [*module.parameters(), *module.buffers()]
    found = {size for tensor in tensors for size in tensor.shape}
    for part in module.modules():
        for value in vars(part).values():
            items = cast(Any, value) if isinstance(value, (tuple, list)) else (value,)
            found |= {item for item in items if type(item) is int}
        if not type(part).__module__.startswith("torch."):
            methods = [inspect.unwrap(each) for each in vars(type(part)).values() if inspect.isfunction(each)]
            every = (code for method in methods for code in codes(method.__code__))
            found |= {value for code in every for value in code.co_consts if type(value) is int}
    return sorted(number for number in found if 1 < number <= FARTHEST)


def _near(numbers: Sequence[int]) -> list[int]:
    """The numbers around which sizes are run whatever a run costs: most of the small ones, and the largest."""
    near = [number for number in numbers if number <= NEAR]
    return near if len(near) <= 40 else [*near[:30], *near[-10:]]


def _far(numbers: Sequence[int]) -> list[int]:
    """Sizes beyond those, falling: one more than a table has rows, or some times as much, as behind strides."""
    largest = numbers[-MOST_FAR:]
    found = {number + 1 for number in largest if number > NEAR}
    found |= {times * (number + 1) for number in largest for times in (2, 4, 8, 16) if number >= FEWEST_ROWS}
    return sorted((size for size in found if size <= FARTHEST), reverse=True)


def _elements(case: Case, sizes: Mapping[str, int]) -> int:
    """The numbers in all inputs together."""
    counts: list[int] = []
    case.arguments(sizes, lambda shape, dtype: counts.append(prod(shape)))
    return sum(counts)


# What the table of runs says.


def holds_at(conditions: Sequence[str], sizes: Mapping[str, int]) -> bool:
    """Whether the conditions of a verdict, which are Python's expressions on axis names, hold at some sizes."""
    try:
        return all(eval(text, {"__builtins__": {}, "min": min, "max": max}, dict(sizes)) for text in conditions)
    except ZeroDivisionError:  # a remainder by an empty axis
        return False
