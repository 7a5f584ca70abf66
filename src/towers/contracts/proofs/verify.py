"""`verify` and `trace`."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from towers.contracts.proofs.copies import Emptied, own_signature
from towers.contracts.proofs.explore import Coverage, explore, try_numbers_told
from towers.contracts.proofs.proof import ContractVerdict, Proof, ShapeTrace, TraceRow
from towers.contracts.proofs.ranges import Span, Spans
from towers.contracts.proofs.samples import real_run, sizes_to_try
from towers.contracts.proofs.stateful import earlier_sizes
from towers.contracts.proofs.symbolic_inputs import Case, read_subject
from towers.contracts.proofs.symbolic_run import Outcome, Step, run
from towers.contracts.proofs.verdicts import WORST_FIRST, Finding, judged
from towers.contracts.signature import several


def verify(module: nn.Module, *args: Any, where: str | Sequence[str] = (), **kwargs: Any) -> Proof:
    """Prove every contract of a module for all sizes, on symbolic sizes and without data.

    Inputs are made from the contract of its `forward`: every free axis ranges over all sizes from 1 on, unless a
    condition narrows it (or widens it to 0); optional tensors are given and left out, in every combination of up to
    four (of more: none, each, each two, and all). A module that keeps sizes from one call for the next, as attributes
    or buffers, is called again after calls of other sizes. A copy of the module is run on
    meta: nothing of the module itself is touched, its hooks run on the copy. jaxtyping annotations without `@contract`
    are read too.

    What is proven is that shapes and dtypes fit. Values lie outside of it, those of indices too, also where they are
    made from a size: that an embedding has too few rows for `torch.arange(words)` is not seen. An argument that is no
    tensor has its default, the module the mode that it is in, and `*name` stands for 0, 1 and 2 axes.

    Args:
        module: any module whose `forward` has a contract, by `@contract`, `attach` or bare annotations.
        args, kwargs: inputs to use in place of made ones; the sizes of tensors do not matter where the contract
            names their axes. Tensors in a list, a dataclass or another record keep their sizes: it holds for those.
        where: further conditions on axes, as `contract` takes them: "time % 2 == 0".

    Raises:
        ValueError: `forward` has no contract; an argument can be made from no annotation and was not given; a
            condition cannot be read or leaves no size; or the module cannot be copied.
    """
    start = time.perf_counter()
    prover = _Prover(module, several(where, "verify: where"), args, kwargs)
    coverages = [prover.cover(case) for case in prover.subject.cases()]
    findings = [judged(coverage) for coverage in coverages]
    told = [_sampled(module, each, found) for each, found in zip(coverages, findings, strict=True)]
    samples = "; ".join(dict.fromkeys(filter(None, told)))
    worst = min(findings, key=lambda finding: WORST_FIRST.index(finding.verdict))
    assert worst.outcome is not None
    spans: dict[str, str] = {}
    for coverage in coverages:
        spans |= {name: _range(name, span) for name, span in coverage.whole.items()}
    return Proof(
        type(module).__name__,
        worst.verdict,
        tuple(findings),
        _contracts(coverages, findings),
        spans,
        _trace(module, worst.outcome),
        sum(coverage.runs for coverage in coverages),
        time.perf_counter() - start,
        samples,
    )


def trace(module: nn.Module, *args: Any, where: str | Sequence[str] = (), **kwargs: Any) -> ShapeTrace:
    """The walk of the shapes through a module: what each boundary demands beside what arrives, in symbols.

    Given real inputs, in numbers too.

    Raises:
        ValueError: as `verify`.
    """
    prover = _Prover(module, several(where, "trace: where"), args, kwargs)
    case = prover.subject.cases()[0]
    outcome = prover.run(case, {name: span.part(2, None) or span for name, span in case.spans().items()})
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    return _trace(module, outcome, prover.numbers(case) if tensors else None)


class _Prover:
    """The runs of one module."""

    def __init__(self, module: nn.Module, where: Sequence[str], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.fake.cache_enabled = False  # no two runs have the same symbols
        self.emptied = Emptied(module, self.fake)
        signature = own_signature(self.emptied.copy())
        if signature is None:
            kind = type(module).__name__
            raise ValueError(
                f"{kind}.forward has no contract: annotate its tensors and decorate it with @contract, or "
                f'attach(module, "batch 8 -> batch 6")'
            )
        self.subject = read_subject(module, signature, where, args, kwargs)

    def run(self, case: Case, spans: Spans, earlier: Mapping[str, int] | None = None) -> Outcome:
        """One run."""
        return run(self.emptied, self.fake, case, spans, earlier)

    def cover(self, case: Case) -> Coverage:
        """All runs of a case; an error of an operation counts only if a real run has it too."""
        coverage = explore(case, lambda spans: self.run(case, spans))
        if coverage.failed and not coverage.passed:
            try_numbers_told(coverage, lambda spans: self.run(case, spans))
        for outcome in [each for each in coverage.failed if each.message.startswith(f"{type(each.error).__name__}: ")]:
            sizes = {name: span.example(11 + 6 * at) for at, (name, span) in enumerate(outcome.spans.items())}
            if case.fits(sizes) and real_run(self.subject.instance, case, sizes) is None:
                coverage.failed.remove(outcome)
                coverage.open.append((outcome, f"torch cannot do it on symbolic sizes: {outcome.message}"))
        if coverage.passed and not coverage.failed and coverage.first.keeps:
            self.call_again(coverage)
        return coverage

    def call_again(self, coverage: Coverage) -> None:
        """Run a module that keeps sizes after calls of other sizes: what then fails, fails for all sizes."""
        for earlier in earlier_sizes(coverage.case):
            again = self.run(coverage.case, coverage.first.spans, earlier)
            coverage.runs += 1
            if again.error is not None:
                told = ", ".join(f"{name} = {size}" for name, size in earlier.items())
                again.message = f"in a call after one of {told}: {again.message}"
                if again.unprovable:
                    coverage.open.append((again, again.message))
                    continue
                coverage.passed.clear()
                coverage.failed.append(again)
                return

    def numbers(self, case: Case) -> Outcome:
        """The run at the sizes of the inputs that were given."""
        sizes: dict[str, Span] = {}
        for name in case.axes():
            size = _size_given(case, name)
            sizes[name] = Span(size, size)
        return self.run(case, sizes)


def _size_given(case: Case, axis: str) -> int:
    """The size that an axis has in the inputs given."""
    from towers.contracts.bindings import Bindings
    from towers.contracts.check import Check

    check = Check(Bindings(case.subject.signature, {"self": case.subject.instance, **case.subject.values}))
    check.check_arguments()
    return check.names.axis_size(axis)


def _sampled(module: nn.Module, coverage: Coverage, finding: Finding) -> str:
    """Run what could not be proven on real tensors; a failure there is the finding."""
    if finding.verdict != "not provable":
        return ""
    count = 0
    for sizes in sizes_to_try(coverage.case):
        error = real_run(module, coverage.case, sizes)
        if error is not None:
            finding.verdict, finding.message = "failed", str(error) if isinstance(error, TypeError) else repr(error)
            finding.conditions = ()
            at = ", ".join(f"{name} = {size}" for name, size in sizes.items())
            finding.place = f"{at} (a real run; {finding.place or 'no symbolic one was possible'})"
            return ""
        count += 1
    return f"it held in {count} small real runs at different sizes"


def _contracts(coverages: Sequence[Coverage], findings: Sequence[Finding]) -> tuple[ContractVerdict, ...]:
    found: dict[tuple[str, str], list[Any]] = {}
    for coverage, finding in zip(coverages, findings, strict=True):
        outcomes = [*coverage.passed, *coverage.failed, *(outcome for outcome, _ in coverage.open)]
        for outcome in outcomes:
            broken = _innermost(outcome.steps)
            for step in outcome.steps:
                if not step.demand:
                    continue
                verdict = finding.verdict if step is broken or not step.failed else "not provable"
                verdict = verdict if step.failed or finding.verdict == "not provable" else "proven"
                entry = found.setdefault((step.path, step.contract), ["proven", 0])
                entry[0] = min(entry[0], verdict, key=WORST_FIRST.index)
                entry[1] += 1
    return tuple(ContractVerdict(path, name, verdict, calls) for (path, name), (verdict, calls) in found.items())


def _innermost(steps: Sequence[Step]) -> Step | None:
    return next((step for step in reversed(steps) if step.failed and step.demand), None)


def _trace(module: nn.Module, outcome: Outcome, numbers: Outcome | None = None) -> ShapeTrace:
    same = [] if numbers is None else numbers.steps
    pairs = [*same, *([None] * (len(outcome.steps) - len(same)))]
    rows = [
        TraceRow(
            step.path,
            step.kind,
            outcome.shown(step.came),
            outcome.shown(step.went),
            step.demand,
            "" if number is None else f"{outcome.shown(number.came)} -> {outcome.shown(number.went)}",
            step.failed,
        )
        for step, number in zip(outcome.steps, pairs, strict=False)
    ]
    return ShapeTrace(type(module).__name__, tuple(rows), outcome.message)


def _range(name: str, span: Span) -> str:
    low = span.text(name, lowest=-1)
    return low or f"{name} >= {span.first}"
