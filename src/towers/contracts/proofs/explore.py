# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""As many runs as it takes to cover all sizes: where torch asked about a size, the other answer is run too."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from towers.contracts.proofs.inputs import Case
from towers.contracts.proofs.run import Outcome
from towers.contracts.proofs.spans import Span, Spans, divide
from towers.contracts.proofs.symbols import Guard

MOST_RUNS = 150
"""Runs of one case; a module that asks more than that is not provable."""


@dataclass
class Coverage:
    """What is known of a case: where it holds, where it fails, and what is open."""

    case: Case
    whole: Spans
    passed: list[Outcome] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    open: list[tuple[Outcome, str]] = field(default_factory=list)
    """Runs that hold for their examples only, and why."""
    runs: int = 0

    @property
    def first(self) -> Outcome:
        """The most general run."""
        outcomes = [*self.passed, *self.failed, *(outcome for outcome, _ in self.open)]
        return max(outcomes, key=lambda outcome: sum(not span.single for span in outcome.spans.values()))


Run = Callable[[Spans], Outcome]


def explore(case: Case, run: Run) -> Coverage:
    """Cover every size that the contract allows."""
    return _Explorer(case, run).coverage


class _Explorer:
    def __init__(self, case: Case, run: Run) -> None:
        self.run, whole = run, case.spans()
        self.coverage = Coverage(case, whole)
        self.seen: set[tuple[tuple[str, Span], ...]] = set()
        self.fixed: set[str] = set()
        self.waiting: list[dict[str, Span]] = []
        for region in _small_and_large(whole):
            self.push(region)
        while self.waiting:
            region = self.waiting.pop(0)
            if not self.possible(region):
                continue
            if self.coverage.runs >= MOST_RUNS:
                self.coverage.open.append((self.coverage.first, f"more than {MOST_RUNS} runs would be needed"))
                return
            self.coverage.runs += 1
            self.judge(run(region))
            if self.hopeless():
                return

    def possible(self, region: Spans) -> bool:
        """Whether the conditions that speak of several axes leave anything of a region of single sizes."""
        single = {name: span.first for name, span in region.items() if span.single}
        return len(single) < len(region) or self.coverage.case.fits(single)

    def push(self, region: dict[str, Span]) -> None:
        """Look at a region later, unless it has been seen."""
        key = tuple(sorted(region.items()))
        if key not in self.seen:
            self.seen.add(key)
            self.waiting.append(region)

    def hopeless(self) -> bool:
        """Whether the most general run failed without a question: then nothing but single sizes can hold."""
        failed = self.coverage.failed
        return bool(failed) and len(failed) == self.coverage.runs == 1 and not failed[0].open

    def judge(self, outcome: Outcome) -> None:
        """Take down what a run showed, and push the regions that it says nothing of."""
        unresolved = ""
        for guard in outcome.open:
            axes = guard.relation.free_symbols
            if guard.fixed is not None:
                unresolved = f"{guard.fixed} is made a number at {guard.place}"
                self.sample(outcome, guard.fixed)
            elif len(axes) != 1:
                unresolved = unresolved or f"torch could not decide {guard.text()} at {guard.place}"
            elif self.divided(outcome, guard):
                return
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

    def divided(self, outcome: Outcome, guard: Guard) -> bool:
        """Push the sizes for which a guard is otherwise; whether the run must be done again on every part."""
        [axis] = guard.relation.free_symbols
        name = str(axis)
        span = outcome.spans[name]
        parts = divide(span, guard.relation, axis)
        again = len(parts) > 1 and parts[0].step != span.step
        for part in parts:
            if again or (len(parts) > 1 and not bool(guard.relation.subs(axis, part.first))):
                self.push({**outcome.spans, name: part})
        return again

    def sample(self, outcome: Outcome, name: str) -> None:
        """Some sizes of an axis that the code makes a number, each run alone."""
        span = outcome.spans[name]
        if name not in self.fixed and not span.single:
            self.fixed.add(name)
            sizes = [span.first + step * span.step for step in (0, 1, 2, 3, 5, 12)]
            for size in sizes:
                if size in span:
                    self.push({**outcome.spans, name: Span(size, size)})

    def push_small_sizes(self, outcome: Outcome) -> None:
        """Sizes at which one that was derived from them is 0 or 1: torch takes those for special."""
        for expression in outcome.sizes:
            axes: Any = expression.free_symbols
            if len(axes) != 1:
                continue
            [axis] = axes
            span = outcome.spans[str(axis)]
            for size in range(span.first, span.first + 24 * span.step, span.step):
                if size in span and not span.single and expression.subs(axis, size) in (0, 1):
                    self.push({**outcome.spans, str(axis): Span(size, size)})


def _small_and_large(whole: Spans) -> Iterator[dict[str, Span]]:
    """Each axis at 0, at 1 and above: every combination, the most general first."""
    choices: list[list[Span]] = []
    for span in whole.values():
        large = span.part(2, None)
        small = [part for size in (1, 0) if (part := span.part(size, size)) is not None]
        choices.append([*([large] if large else []), *small])
    combinations = [dict(zip(whole, choice, strict=True)) for choice in product(*choices)]
    return iter(sorted(combinations, key=lambda region: sum(span.single for span in region.values())))
