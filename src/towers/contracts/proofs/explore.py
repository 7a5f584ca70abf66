"""As many runs as it takes to cover all sizes: where torch asked about a size, the other answer is run too."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from heapq import heappop, heappush
from itertools import product
from typing import Any, cast

import sympy
from torch.utils._sympy.functions import Max as TorchMax
from torch.utils._sympy.functions import Min as TorchMin

from towers.contracts.proofs.at_sizes import at
from towers.contracts.proofs.divide import divide, sure
from towers.contracts.proofs.implied import never
from towers.contracts.proofs.outcome import Outcome
from towers.contracts.proofs.ranges import Span, Spans
from towers.contracts.proofs.relations import MOST_RELATIONS, Relations, negation, one_number, usable
from towers.contracts.proofs.symbolic_inputs import Case
from towers.contracts.proofs.symbolic_size import spelled
from towers.contracts.proofs.symbols import Guard, examples
from towers.contracts.proofs.time_limit import OutOfTime

MOST_RUNS = 150
"""The largest number of runs for one case; a module that needs more is not provable."""

FEW_SIZES = 64
"""The largest number of sizes of an axis for which each is run alone."""

OUT_OF_TIME = "the time limit was reached before all sizes were covered"

MOST_GUESSES = 8
"""After this number of guards that cannot be solved, no more sizes are run for them."""

BEYOND = (TypeError, ZeroDivisionError, RecursionError, NotImplementedError, AssertionError)
"""What sympy, and torch's functions for it, raise where they cannot say whether a condition holds: (7/2)//(3/2) == 2, a
remainder by 0, one of a negative number, …"""


@dataclass
class Coverage:
    """The result of all runs of a case: the regions that pass, those that fail, and those that are undecided."""

    case: Case
    whole: Spans
    passed: list[Outcome] = field(default_factory=list[Outcome])
    failed: list[Outcome] = field(default_factory=list[Outcome])
    open: list[tuple[Outcome, str]] = field(default_factory=list[tuple[Outcome, str]])
    """Runs that passed for their example sizes only, each with the reason."""
    runs: int = 0
    unsure: int = 0
    """The number of guards on one axis for which it is not known at which sizes they hold."""

    @property
    def first(self) -> Outcome:
        """The most general run."""
        outcomes = [*self.passed, *self.failed, *(outcome for outcome, _ in self.open)]
        outcomes = outcomes or [Outcome(self.case, self.whole)]
        return max(outcomes, key=lambda outcome: sum(not span.single for span in outcome.spans.values()))

    def ended(self) -> "Coverage":
        """What is known now, where the time is over; runs that have not ended do not change it any more."""
        left = (Outcome(self.case, self.whole), OUT_OF_TIME)
        return replace(self, passed=[*self.passed], failed=[*self.failed], open=[*self.open, left])


Run = Callable[[Spans, Relations], Outcome]


def explore(coverage: Coverage, run: Run, relations: Relations = (), patience: float = float("inf")) -> None:
    """Cover every size that the contract, and the relations, allow.

    Once a failure is known, `patience` is the time, as time.perf_counter counts, after which no more is run.
    """
    _Explorer(coverage, run, relations, patience)


class _Explorer:
    def __init__(self, coverage: Coverage, run: Run, relations: Relations, patience: float) -> None:
        self.run, self.coverage = run, coverage
        case, whole = coverage.case, coverage.whole
        self.seen: set[Any] = set()
        self.fixed: set[str] = set()
        self.waiting: list[tuple[tuple[int, ...], dict[str, Span], Relations]] = []
        for spans in _small_and_large(whole):
            self.push(spans, relations)
        while self.waiting:
            if coverage.failed and time.perf_counter() > patience:
                self.coverage.open.append((coverage.first, OUT_OF_TIME))
                return
            _, spans, relations = heappop(self.waiting)
            if self.pinned(spans) and self.fails_in_general():
                continue
            if not self.possible(spans, relations):
                if relations and not any(never(each, spans) for each in relations):
                    texts = " and ".join(map(spelled, relations))
                    self.coverage.open.append((coverage.first, f"no sizes were found for which {texts}"))
                continue
            if self.coverage.runs >= MOST_RUNS:
                self.coverage.open.append((self.coverage.first, f"more than {MOST_RUNS} runs would be needed"))
                return
            self.coverage.runs += 1
            try:
                self.judge(run(spans, relations))
            except OutOfTime:
                self.coverage.open.append((Outcome(case, spans), OUT_OF_TIME))
                return

    def turn(self, spans: Spans, relations: Relations) -> tuple[int, ...]:
        """The order of regions: those of large sizes first, for small ones often fail; then as they came."""
        ended = sum(span.last is not None and self.coverage.whole[name].last is None for name, span in spans.items())
        return self.pinned(spans), ended, len(relations), len(self.seen)

    def possible(self, spans: Spans, relations: Relations = ()) -> bool:
        return _possible(self.coverage.case, spans, relations)

    def push(self, spans: dict[str, Span], relations: Relations = ()) -> None:
        """Put a region into the queue, unless it has been there before."""
        key = (tuple(sorted(spans.items())), frozenset(relations))
        if key not in self.seen:
            self.seen.add(key)
            heappush(self.waiting, (self.turn(spans, relations), spans, relations))

    def pinned(self, region: Spans) -> int:
        """The number of axes that a region fixes to one size, though the contract allows more."""
        return sum(span.single and not self.coverage.whole[name].single for name, span in region.items())

    def fails_in_general(self) -> bool:
        """Whether the runs with no axis fixed failed and none passed; then single sizes need not be run."""
        held = any(not self.pinned(outcome.spans) for outcome in self.coverage.passed)
        return not held and any(not self.pinned(outcome.spans) for outcome in self.coverage.failed)

    def judge(self, outcome: Outcome) -> None:
        """Record the result of a run, and put the regions that it does not cover into the queue."""
        try:
            self.take_down(outcome)
        except BEYOND as error:
            if outcome.error is not None and not outcome.unprovable:
                self.coverage.failed.append(outcome)
                self.coverage.unsure += 1
            else:
                problem = f"sympy cannot compute with torch's questions about sizes ({type(error).__name__}: {error})"
                self.coverage.open.append((outcome, problem))

    def take_down(self, outcome: Outcome) -> None:
        """As `judge`, for guards that sympy can compute with."""
        unresolved = ""
        for guard in sorted(outcome.open, key=_hardness):
            if outcome.sure_of(guard):  # perhaps by what those on one axis have claimed
                continue
            if guard.fixed is not None:
                if self.each_alone(outcome, guard.fixed):
                    return
                unresolved = f"{guard.fixed} is made a number at {guard.place}"
                self.sample(outcome, guard.fixed)
                continue
            if one_number(guard.relation) and self.parted(outcome, guard):
                continue
            if any(self.divided(outcome, guard, axis) for axis in _axes(guard, outcome)):
                return
            if len(guard.relation.free_symbols) == 1:
                self.claim(outcome, guard)
                [axis] = guard.relation.free_symbols
                if not sure(outcome.spans[str(axis)], guard.relation, axis) and not outcome.sure_of(guard):
                    self.coverage.unsure += 1
                    unresolved = unresolved or f"torch could not decide {guard.text()} at {guard.place}"
            else:
                if self.parted(outcome, guard):
                    continue
                if outcome.error is None and self.peeled(outcome, guard):
                    return
                unresolved = unresolved or f"torch could not decide {guard.text()} at {guard.place}"
        coverage = self.coverage
        if outcome.unprovable:
            coverage.open.append((outcome, outcome.message + (f" at {outcome.place}" if outcome.place else "")))
        elif outcome.error is not None:
            coverage.failed.append(outcome)
        elif unresolved:
            coverage.open.append((outcome, unresolved))
        else:
            coverage.passed.append(outcome)
            self.push_small_sizes(outcome)

    def divided(self, outcome: Outcome, guard: Guard, axis: Any) -> bool:
        """Queue the sizes for which a guard has the other answer; True if the whole region is run again in parts."""
        name, alone = str(axis), len(guard.relation.free_symbols) == 1
        span = outcome.spans[name]
        if self.coverage.unsure >= MOST_GUESSES:
            return False
        parts = divide(span, guard.relation, axis, alone=alone)
        again = len(parts) > 1 and parts[0].step != span.step
        for part in parts:
            if again or (len(parts) > 1 and not at(guard.relation, axis)(part.first)):
                self.push({**outcome.spans, name: part}, outcome.relations)
        return again

    def parted(self, outcome: Outcome, guard: Guard) -> bool:
        """Queue the sizes for which a guard on axes has the other answer; True if the run holds for the rest."""
        relations = outcome.relations
        if len(relations) >= MOST_RELATIONS or not usable(guard.relation):
            return False
        other = (*relations, negation(guard.relation))
        if not self.possible(outcome.spans, other):  # but that none is found does not prove that there is none
            return False
        self.push(dict(outcome.spans), other)
        outcome.relations = (*relations, guard.relation)
        return True

    def claim(self, outcome: Outcome, guard: Guard) -> None:
        """Narrow the region of a run to the sizes for which a guard on one axis has the answer that it had."""
        [axis] = guard.relation.free_symbols
        span = outcome.spans[str(axis)]
        parts = divide(span, guard.relation, axis)
        true = [part for part in parts if at(guard.relation, axis)(part.first)]
        if len(parts) > 1 and len(true) == 1:
            outcome.spans = {**outcome.spans, str(axis): true[0]}

    def peeled(self, outcome: Outcome, guard: Guard) -> bool:
        """Run the smallest size of an axis alone and the others again: guards on several axes are often about it."""
        for axis in _axes(guard, outcome):
            span = outcome.spans[str(axis)]
            if span.first < 4 * span.step and not span.single:
                for part in span.around(span.first):
                    self.push({**outcome.spans, str(axis): part}, outcome.relations)
                return True
        return False

    def each_alone(self, outcome: Outcome, name: str) -> bool:
        """Run each size of an axis alone if there are few; False if there are more."""
        span = outcome.spans[name]
        if span.single or span.last is None or (span.last - span.first) // span.step >= FEW_SIZES:
            return False
        for size in range(span.first, span.last + 1, span.step):
            self.push({**outcome.spans, name: Span(size, size)}, outcome.relations)
        return True

    def sample(self, outcome: Outcome, name: str) -> None:
        """Run some sizes of an axis alone, because the code turns its size into a Python int."""
        span = outcome.spans[name]
        if name not in self.fixed and not span.single:
            self.fixed.add(name)
            sizes = [span.first + step * span.step for step in (0, 1, 2, 3, 5, 12)]
            for size in sizes:
                if size in span:
                    self.push({**outcome.spans, name: Span(size, size)}, outcome.relations)

    def push_small_sizes(self, outcome: Outcome) -> None:
        """Run the sizes for which a derived size is 0 or 1, since torch treats these as special."""
        whole, widest = self.coverage.whole, dict[str, Span]()
        for factor in {factor for size in outcome.sizes for factor in _factors(size)}:
            [axis, *more] = factor.free_symbols
            name = str(axis)
            span = outcome.spans.get(name)
            if more or span is None or span.single:
                continue
            if factor.is_polynomial():
                for size in _special_sizes(factor, axis, span):
                    self.push({**outcome.spans, name: Span(size, size)}, outcome.relations)
            elif (part := _where_one(factor, axis, span)) is not None:
                widest[name] = max(part, widest.get(name, part), key=lambda each: each.last or 0)
        if all(span in (whole[name], whole[name].part(2, None)) for name, span in outcome.spans.items()):
            for name, part in widest.items():
                self.push({**outcome.spans, name: part}, outcome.relations)


def _possible(case: Case, spans: Spans, relations: Relations = ()) -> bool:
    """Whether the conditions on several axes allow any sizes of a region."""
    try:
        examples(spans, case.fits, relations)
    except ValueError:
        return False
    return True


@cache
def _special_sizes(factor: Any, axis: Any, span: Span) -> tuple[int, ...]:
    """The small sizes of an axis for which a size derived from it is 0 or 1."""
    near = range(span.first, span.first + 24 * span.step, span.step)
    return tuple(size for size in near if size in span and at(factor, axis)(size) in (0, 1))


@cache
def _where_one(factor: Any, axis: Any, span: Span) -> Span | None:
    """The small sizes of an axis for which a quotient is 1, as one region, if they are not all."""
    near = [size for size in range(span.first, span.first + 65 * span.step, span.step) if size in span]
    found = [size for size in near if at(factor, axis)(size) == 1]
    part = span.part(found[0], found[-1]) if found else None
    return part if part is not None and part != span else None


@cache
def _factors(size: Any) -> tuple[Any, ...]:
    """The factors of a size: batch and words-1 for batch*words-batch."""
    parts = sympy.Mul.make_args(cast(Any, sympy.factor(size) if size.is_polynomial() else size))
    return tuple(part for part in parts if part.free_symbols)


def _hardness(guard: Guard) -> tuple[bool, bool]:
    """The order of guards: what those on one axis claim answers others, and of `max(1, time-3)` one part is left."""
    return len(guard.relation.free_symbols) > 1, guard.relation.has(TorchMax, TorchMin)


def _axes(guard: Guard, outcome: Outcome) -> list[Any]:
    """The axes of a guard, in the order of the arguments."""
    return [axis for name in outcome.spans for axis in guard.relation.free_symbols if str(axis) == name]


def try_numbers_told(coverage: Coverage, run: Run) -> None:
    """Where every run failed, run the sizes that the guards or the message name."""
    failed = coverage.failed[0]
    told = {int(number) for number in re.findall(r"(?<![\w.-])\d+\b", failed.message)}
    told |= {int(number) for guard in failed.open for number in guard.relation.atoms(sympy.Integer)}
    for name, span in failed.spans.items():
        for size in sorted(told):
            region = {**failed.spans, name: Span(size, size)}
            if size in span and size > 1 and not span.single and _possible(coverage.case, region):
                outcome = run(region, ())
                coverage.runs += 1
                if outcome.error is None:
                    coverage.passed.append(outcome)


def _small_and_large(whole: Spans) -> Iterator[dict[str, Span]]:
    """Each axis at 0, at 1 and above: every combination, the most general first."""
    choices: list[list[Span]] = []
    for span in whole.values():
        large = span.part(2, None)
        small = [part for size in (1, 0) if (part := span.part(size, size)) is not None]
        choices.append([*([large] if large else []), *small])
    combinations = [dict(zip(whole, choice, strict=True)) for choice in product(*choices)]
    return iter(sorted(combinations, key=lambda region: sum(span.single for span in region.values())))
