"""The verdict that follows from all runs of a case, and the conditions on axes under which the module holds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

from towers.contracts.proofs.explore import OUT_OF_TIME, Coverage
from towers.contracts.proofs.implied import never
from towers.contracts.proofs.outcome import Outcome
from towers.contracts.proofs.ranges import Span, Spans
from towers.contracts.proofs.relations import Relations, turned
from towers.contracts.proofs.symbolic_size import spelled
from towers.contracts.proofs.symbols import examples

Verdict = Literal["proven", "holds if", "specialised", "failed", "not provable"]
WORST_FIRST: tuple[Verdict, ...] = ("failed", "specialised", "holds if", "not provable", "proven")


@dataclass(frozen=True)
class Guess:
    """Conditions under which a module may hold: still to be tried and proven."""

    texts: tuple[str, ...]
    """In axis names, as Python computes them."""
    ways: tuple[tuple[tuple[str, ...], Relations], ...]
    """The alternatives, each with its conditions as `where` takes them and with relations between axes."""


@dataclass
class Finding:
    """The verdict on one way to call a module."""

    verdict: Verdict
    label: str
    """Which optional arguments were given."""
    conditions: tuple[str, ...] = ()
    """Where it holds, in axis names; empty where it holds everywhere or nowhere."""
    message: str = ""
    """Why it is not proven."""
    place: str = ""
    outcome: Outcome | None = None
    """The run that shows it."""
    runs: int = 0
    guesses: tuple[Guess, ...] = ()
    """What the symbolic runs suggest, where they do not prove it."""


def judged(coverage: Coverage) -> Finding:
    """The verdict of all runs of one case."""
    label, runs = coverage.case.label, coverage.runs
    if not coverage.failed:
        if not coverage.open:
            return Finding("proven", label, outcome=coverage.first, runs=runs)
        outcome, reason = coverage.open[0]
        return Finding("not provable", label, (), reason, outcome.place, outcome, runs)
    worst = max(coverage.failed, key=lambda each: sum(not span.single for span in each.spans.values()))
    general = [each for each in coverage.passed if not _special(each.spans, coverage.whole)]
    found = Finding("failed", label, (), worst.message, worst.place, worst, runs)
    if coverage.unsure or coverage.open:  # so where it holds is not known
        return found
    if any(outcome.relations for outcome in (*coverage.passed, *coverage.failed)):
        found.guesses = _between_axes(coverage, general)
        return found
    if coverage.passed and (fixed := _fixed(coverage)):
        found.verdict, found.conditions = "specialised", fixed
    elif coverage.passed and (general or not _everywhere(worst.spans, coverage.whole)):
        found.verdict, found.conditions = "holds if", _conditions(coverage, general)
    return found


def unjudged(coverage: Coverage) -> Finding:
    """The verdict where even judging took too long."""
    return Finding("not provable", coverage.case.label, (), OUT_OF_TIME, "", coverage.first, coverage.runs)


def without_half_truths(findings: Sequence[Finding]) -> None:
    """Turn conditions into failures if another way to call the module is not provable: they hold for one way only."""
    if any(finding.verdict == "not provable" for finding in findings):
        for finding in findings:
            if finding.conditions:
                finding.message += f" (so called it holds if {' and '.join(finding.conditions)})"
                finding.verdict, finding.conditions = "failed", ()


def _between_axes(coverage: Coverage, general: Sequence[Outcome]) -> tuple[Guess, ...]:
    """Where the runs passed, some of them under relations between axes: all of it, and each alone."""
    ways: dict[str, tuple[tuple[str, ...], Relations]] = {}
    special = [each for each in coverage.passed if _special(each.spans, coverage.whole)]
    for each in (*general, *special):
        at = examples(each.spans, each.case.fits, each.relations)
        if any(eval(text, {"__builtins__": {}, "min": min, "max": max}, dict(at)) for text in ways):
            continue
        narrow = _narrow(each.spans, coverage.whole)
        where = tuple(text for name in narrow for text in each.spans[name].texts(name, coverage.whole[name].first))
        further = [text for text in where if not _told_by(text, each.relations, coverage.whole)]
        told = [spelled(turned(relation, list(coverage.whole))) for relation in each.relations]
        if text := " and ".join([*further, *told]):
            ways[text] = (where, each.relations)
    guesses = [Guess((text,), (way,)) for text, way in ways.items()]
    return (Guess((" or ".join(ways),), tuple(ways.values())), *guesses) if len(guesses) > 1 else tuple(guesses)


MOST_BELOW = 16
"""Of a bound that relations may tell, the sizes below it that are looked at one by one."""


def _told_by(bound: str, relations: Relations, whole: Spans) -> bool:
    """Whether a relation says a lower bound too: for none of the smaller sizes can it hold."""
    name, _, size = bound.partition(" >= ")
    if not size.isdigit() or int(size) > whole[name].first + MOST_BELOW:
        return False
    below = [Span(small, small) for small in range(whole[name].first, int(size)) if small in whole[name]]
    return all(any(never(each, {**whole, name: span}) for each in relations) for span in below)


def _special(spans: Spans, whole: Spans) -> bool:
    """Whether only single sizes of some axis were run."""
    return any(span.single and not whole[name].single for name, span in spans.items())


def _everywhere(spans: Spans, whole: Spans) -> bool:
    """Whether a region is the most general one of all."""
    return all(span == (whole[name].part(2, None) or whole[name]) for name, span in spans.items())


def _fixed(coverage: Coverage) -> tuple[str, ...]:
    """The axes of which one single size holds and all others fail."""
    found: list[str] = []
    for name, whole in coverage.whole.items():
        holds = {each.spans[name] for each in coverage.passed}
        if len(holds) == 1 and next(iter(holds)).single and not whole.single:
            found.append(next(iter(holds)).text(name))
    return tuple(found)


def _conditions(coverage: Coverage, general: Sequence[Outcome]) -> tuple[str, ...]:
    """The sizes for which it holds: outside the failing regions or, if that is shorter, in the general ones."""
    whole = coverage.whole
    failed = [each.spans for each in coverage.failed]
    failed = [spans for spans in failed if not any(_inside(spans, other, whole) for other in failed)]
    if not general or all(len(_narrow(spans, whole)) == 1 for spans in failed):
        return negated(failed, whole)
    parts = [
        [text for name in _narrow(each.spans, whole) for text in each.spans[name].texts(name, whole[name].first)]
        for each in general
    ]
    if len(parts) == 1 and parts[0]:
        return tuple(as_equalities(parts[0]))
    regions = [" and ".join(texts) for texts in parts]
    return (" or ".join(regions),) if all(regions) else negated(failed, whole)


def _inside(spans: Spans, other: Spans, whole: Spans) -> bool:
    """Whether another region is narrow on fewer axes, and as narrow on those."""
    own, others = _narrow(spans, whole), _narrow(other, whole)
    return len(others) < len(own) and all(spans[name] == other[name] for name in others)


def _narrow(spans: Spans, whole: Spans) -> list[str]:
    """The axes that have fewer sizes than the contract allows, the special 0 and 1 aside."""
    return [name for name, span in spans.items() if span not in (whole[name], whole[name].part(2, None))]


def negated(failed: Sequence[Spans], whole: Spans) -> tuple[str, ...]:
    """The sizes outside of some regions, as conditions: "time % 2 == 0", "batch != 1", "time <= 200"."""
    alone: dict[str, list[Span]] = {}
    several: list[str] = []
    for spans in sorted(failed, key=lambda spans: len(_narrow(spans, whole))):
        narrow = _narrow(spans, whole)
        if len(narrow) == 1:
            alone.setdefault(narrow[0], []).append(spans[narrow[0]])
        elif narrow and not any(spans[name].within(span) for name in narrow for span in alone.get(name, ())):
            several.append("not (" + " and ".join(spans[name].text(name, whole[name].first) for name in narrow) + ")")
    found = [text for name, spans in alone.items() for text in as_equalities(_without(name, spans, whole[name]))]
    return tuple(dict.fromkeys([*found, *several]))


def as_equalities(texts: Sequence[str]) -> list[str]:
    """Two bounds of an axis that leave one size as one condition: "height == 32"."""
    least = {tuple(text.split(" >= ")) for text in texts if " >= " in text}
    equal = {f"{name} <= {size}": f"{name} >= {size}" for name, size in least if f"{name} <= {size}" in texts}
    kept = [text for text in texts if text not in equal.values()]
    return [text.replace(" <= ", " == ") if text in equal else text for text in kept]


def _without(name: str, spans: Sequence[Span], whole: Span) -> list[str]:
    step = lcm(*(span.step for span in spans))
    ends = [span.first if _endless(span, whole) else span.last or 0 for span in spans]
    if step > whole.step and max(ends) < _FAR:
        far = whole.first + -(-(max(ends) + 1 - whole.first) // step) * step  # from here on only the remainder counts
        failing = [size for size in range(whole.first, far + step, whole.step) if _in_any(size, spans, whole)]
        left = {size % step for size in range(far, far + step, whole.step) if size not in failing}
        if 0 < len(left) < step // whole.step:
            rests = " or ".join(f"{name} % {step} == {rest}" for rest in sorted(left))
            return [rests, *_besides(name, [size for size in failing if size % step in left], whole, step, left)]
        spans = _runs([size for size in failing if size < far], far if not left else None, whole)
    texts: list[str] = []
    reach = whole.first
    for span in _joined(spans, whole.step):
        if span.last is None:
            texts.append(f"{name} <= {span.first - whole.step}")
            break  # what follows lies in it
        elif span.first <= reach:
            reach = max(reach, span.last + whole.step)
        elif span.single:
            texts.append(f"{name} != {span.first}")
        else:
            texts.append(f"not {span.first} <= {name} <= {span.last}")
    return [*([f"{name} >= {reach}"] if reach > whole.first else []), *texts]


_FAR = 10_000
"""Larger sizes are not examined one by one."""


def _besides(name: str, wrong: Sequence[int], whole: Span, step: int, left: set[int]) -> list[str]:
    """Further conditions where only some remainders hold and some sizes with those remainders fail."""
    if not wrong:
        return []
    some = [size for size in range(whole.first, wrong[-1] + step + 1, whole.step) if size % step in left]
    if list(wrong) == some[: len(wrong)]:
        return [f"{name} >= {some[len(wrong)]}"]
    return [f"{name} != {size}" for size in wrong]


def _runs(sizes: Sequence[int], far: int | None, whole: Span) -> list[Span]:
    """Sizes, and all from `far` on, as regions without gaps."""
    runs: list[Span] = []
    for size in sizes:
        if runs and runs[-1].last == size - whole.step:
            runs[-1] = replace(runs[-1], last=size)
        else:
            runs.append(Span(size, size, whole.step))
    if far is not None:
        joined = runs and runs[-1].last == far - whole.step
        runs[-1:] = [replace(runs[-1], last=None)] if joined else [*runs[-1:], Span(far, None, whole.step)]
    return runs


def _joined(spans: Sequence[Span], step: int) -> list[Span]:
    """Regions in order, those that follow on each other as one."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: span.first):
        if joined and joined[-1].last == span.first - step and joined[-1].step == span.step == step:
            joined[-1] = replace(joined[-1], last=span.last)
        else:
            joined.append(span)
    return joined


def _endless(span: Span, whole: Span) -> bool:
    """Whether a region goes on as far as the axis does."""
    return span.last is None or (whole.last is not None and span.last + span.step > whole.last)


def _in_any(size: int, spans: Sequence[Span], whole: Span) -> bool:
    return any(size in (replace(span, last=None) if _endless(span, whole) else span) for span in spans)
