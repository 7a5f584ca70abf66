"""`verify` and `trace`."""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from towers.contracts.errors import ShapeContractError
from towers.contracts.expressions import conditions as read_conditions
from towers.contracts.proofs.copies import Emptied, is_compiled, own_signature, uncompiled
from towers.contracts.proofs.depends import read_beside
from towers.contracts.proofs.explore import OUT_OF_TIME, Coverage, explore, try_numbers_told
from towers.contracts.proofs.flow import Passed
from towers.contracts.proofs.outcome import Outcome, Step
from towers.contracts.proofs.outside import Outside
from towers.contracts.proofs.proof import ContractVerdict, Port, Proof, ShapeTrace, TraceRow
from towers.contracts.proofs.ranges import Span, Spans
from towers.contracts.proofs.reality import SECONDS, SHARE, Reality, RealityCheck
from towers.contracts.proofs.relations import Relations
from towers.contracts.proofs.settle import settle, settle_by
from towers.contracts.proofs.stateful import earlier_sizes
from towers.contracts.proofs.symbolic_inputs import MOST_OPTIONAL, Case, ModuleSubject, read_subject
from towers.contracts.proofs.symbolic_run import run
from towers.contracts.proofs.time_limit import Abandoned, OutOfTime, ask, limited, sooner, within
from towers.contracts.proofs.trials import Given, as_if_nothing_ran
from towers.contracts.proofs.verdicts import WORST_FIRST, Finding, Guess, judged, unjudged, without_half_truths
from towers.contracts.signature import several
from towers.contracts.specs import tensors


def verify(
    module: nn.Module,
    *args: Any,
    where: str | Sequence[str] = (),
    seconds: float = 10.0,
    values: Given | None = None,
    **kwargs: Any,
) -> Proof:
    """Prove every contract of a module for all sizes: on symbolic sizes without data, then tried with real tensors.

    Inputs are made from the contract of its `forward`: every free axis ranges over all sizes from 1 on, unless a
    condition narrows it (or widens it to 0); optional tensors are given and left out, in every combination of up to
    four (of more: none, each, each two, and all). A module that keeps sizes from one call for the next, as attributes
    or buffers, is called again after calls of other sizes. jaxtyping annotations without `@contract` are read too.

    What is proven is that shapes and dtypes fit. Before that is said, copies of the module run on the CPU with real
    tensors of many sizes and values of several kinds: a failure there is a failure of the module. An argument that is
    no tensor has its default, and a bool, a Literal, an Enum or what may be None each of its values; the module has the
    mode that it is in, and `*name` stands for 0, 1 and 2 axes.

    Nothing of the module itself is touched. Random state, default dtype, grad and autocast modes are put back, and so
    is what hooks and functions of yours write elsewhere: globals, closures, class attributes, default arguments,
    lists, dicts, tensors and generators, the results that functools.cache keeps; and what they set for the whole
    process: torch's flags, hooks of all modules, os.environ, the working directory, logging and the like.
    `assumptions` names what cannot be put back, such as a file that was written. What other threads write to the same
    places meanwhile is lost.

    Args:
        module: any module whose `forward` has a contract, by `@contract`, `attach` or bare annotations.
        args, kwargs: inputs to use in place of made ones; the sizes of tensors do not matter where the contract
            names their axes. Tensors in a list, a dataclass or another record keep their sizes: it holds for those.
        where: further conditions on axes, as `contract` takes them: "time % 2 == 0".
        seconds: the time limit of proof and real runs together. A proof that is not done by then is "not provable". The
            module runs in a thread of its own, with torch's modes and the context variables of this one. A call into C
            that does not return is left to that thread; one that never lets another thread run cannot be left.
        values: for the name of an argument a function of its shape that makes its values for the real runs.

    Raises:
        ValueError: `forward` has no contract; an argument can be made from no annotation and was not given; a
            condition cannot be read or leaves no size; `values` names no argument; or the module cannot be copied, or
            not within 10 s.

    >>> from towers import Tower
    >>> from towers.contracts import verify
    >>> verify(Tower()).verdict
    'proven'
    """
    start = time.perf_counter()
    end, seconds, module = start + seconds, seconds * WITHIN, uncompiled(module)
    check_seconds = max(min(SECONDS, seconds * RESERVE), SHARE * seconds)
    with nullcontext() if limited() else _one_at_a_time, as_if_nothing_ran() as process:
        conditions = several(where, "verify: where")
        prover = _prover_within(module, conditions, args, kwargs, values or {}, start + seconds)
        try:
            if unknown := (values or {}).keys() - (known := prover.subject.signature.arguments).keys():
                raise ValueError(f"values: {min(unknown)} is none of {', '.join(known)}")
            coverages = prover.cover_all(prover.until - check_seconds, PATIENCE * seconds)
            findings, reality = _settled(prover, coverages, values or {}, check_seconds, end)
        finally:
            prover.outside.put_back()
        without_half_truths(findings)
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
        (*assumptions(prover.subject), *_texts_read(coverages), *_left_outside(prover), *process.assumptions()),
        reality.tried,
        reality.untried,
        tuple(reality.remarks),
    )


WITHIN = 0.95
"""The share of the time limit after which the work is asked to end; at the limit it is left behind."""

COPYING = 10.0
"""Seconds that the first copy may take, whatever the time limit is: without a copy there is no verdict."""

RESERVE = 0.1
"""The share of a short time limit that the proof leaves to the real runs: without them it is still one, but not without
its own end. What time the proof does not need they have too."""

PATIENCE = 0.15
"""After this share of the time, the search for more failures ends where one is known: the rest is for conditions."""

_one_at_a_time = threading.RLock()
"""Proofs of two threads wait for each other: what each puts back in the end must be what it found."""


def _prover_within(
    module: nn.Module,
    where: Sequence[str],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    values: Given,
    until: float,
) -> "_Prover":
    seconds = max(COPYING, until - time.perf_counter())
    try:
        return within(seconds, lambda: _Prover(module, where, args, kwargs, until, values.values()))
    except OutOfTime:
        kind = type(module).__name__
        raise ValueError(f"{kind}: verify runs a copy, and copying took over {seconds:.0f} s") from None


def _settled(
    prover: "_Prover", coverages: Sequence[Coverage], values: Given, seconds: float, end: float
) -> tuple[list[Finding], Reality]:
    """The findings after the reality check and a search for conditions; all ends by `end`.

    The check has `seconds`, and of a short time limit what the proof has left, up to SECONDS.
    """
    seconds = max(seconds, min(SECONDS, prover.until - time.perf_counter()))
    checks: list[RealityCheck] = []
    findings: list[Finding] = []
    settled = 0
    usual = [at for at, coverage in enumerate(coverages) if not (coverage.case.members or coverage.case.options)]

    def work() -> None:
        nonlocal settled
        findings.extend(map(judged, coverages))
        checks.append(RealityCheck(prover.subject.instance, values, seconds, prover.until, prover.outside.put_back))
        for at, (coverage, finding) in enumerate(zip(coverages, findings, strict=True)):
            main = at in (usual[0], usual[-1])
            settle(checks[0], prover, coverage, finding, few=not main, share=1 / (len(findings) - at))
            settled += 1

    try:
        within(end - time.perf_counter(), work)
        return findings, checks[0].close()
    except OutOfTime as error:
        prover.abandoned |= isinstance(error, Abandoned)
        judgements = [replace(finding) for finding in findings]  # whatever has not ended may still change its own
        judgements += [unjudged(coverage) for coverage in coverages[len(judgements) :]]
        if not checks:
            return judgements, Reality(untried="copying it took longer than the time limit")
        for coverage, finding in list(zip(coverages, judgements, strict=True))[settled:]:
            settle_by(checks[0].trials_of(coverage.case), finding)
        return judgements, checks[0].close(out_of_time=True)


def trace(module: nn.Module, *args: Any, where: str | Sequence[str] = (), **kwargs: Any) -> ShapeTrace:
    """The shapes at each module and contract of a run, in axis names: those that are expected and those that arrive.

    Args:
        module: any module whose `forward` has a contract.
        args, kwargs: real inputs; with them the shapes are shown in numbers too.
        where: further conditions on axes, as for `verify`.

    Raises:
        ValueError: as `verify`.

    >>> import torch
    >>> from towers import FeaturePool
    >>> from towers.contracts import trace
    >>> print(trace(FeaturePool(2), torch.zeros(3, 4, 32)))
      (itself): FeaturePool  (batch, steps, 32) -> (batch, steps, 16)
          batch steps {self.filters}, batch -> batch steps {self.features}
          (3, 4, 32) -> (3, 4, 16)
      (itself): Ragged.from_padded  (batch, steps, 32) -> (batch, steps, 32)
          batch words ..., batch
          (3, 4, 32) -> (3, 4, 32)
    """
    module = uncompiled(module)
    prover = _Prover(module, several(where, "trace: where"), args, kwargs)
    try:
        case = prover.subject.cases()[0]
        outcome = prover.run(case, {name: span.part(2, None) or span for name, span in case.spans().items()})
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        return _trace(module, outcome, prover.numbers(case) if tensors else None)
    finally:
        prover.outside.put_back()


class _Prover:
    """The symbolic runs of one module."""

    def __init__(
        self,
        module: nn.Module,
        where: Sequence[str],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        until: float = float("inf"),
        others: Iterable[Any] = (),
    ) -> None:
        self.until, self.abandoned = until, False
        """When the time limit passes, as time.perf_counter counts; whether a run is left that could not be ended."""
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.fake.cache_enabled = False  # no two runs have the same symbols
        self.emptied = Emptied(module, self.fake)
        copied: dict[int, Any] = {}
        twin = self.emptied.copy(copied)
        self.outside = Outside(twin, set(map(id, copied.values())), [*args, *kwargs.values(), *others])
        signature = own_signature(twin)
        if signature is None:
            kind = type(module).__name__
            raise ValueError(
                f"{kind}.forward has no contract: annotate its tensors and decorate it with @contract, or "
                f'attach(module, "batch 8 -> batch 6")'
            )
        self.subject = read_subject(module, signature, where, args, kwargs)

    def run(
        self, case: Case, spans: Spans, relations: Relations = (), earlier: Mapping[str, int] | None = None
    ) -> Outcome:
        """One run."""
        try:
            return run(self.emptied, self.fake, case, spans, relations, earlier)
        finally:
            self.outside.put_back(last=False)

    def cover_all(self, until: float, patience: float) -> list[Coverage]:
        """All runs of all cases, until the time limit; `patience`: how long a case goes on once a failure is known."""
        coverages = [Coverage(case, case.spans()) for case in self.subject.cases()]
        done = 0

        def work() -> None:
            nonlocal done
            for coverage in coverages:
                self.cover(coverage, time.perf_counter() + patience)
                done += 1

        try:
            within(until - time.perf_counter(), work)
        except OutOfTime as error:
            self.abandoned = isinstance(error, Abandoned)
            coverages = [each if at < done else each.ended() for at, each in enumerate(coverages)]
        return coverages

    def cover(self, coverage: Coverage, patience: float, relations: Relations = ()) -> None:
        """All runs of a case, as far as the time limit allows; none beside one that could not be ended."""
        try:
            if self.abandoned:
                raise OutOfTime
            ask()
            one = partial(self.run, coverage.case)
            explore(coverage, one, relations, patience)
            if coverage.failed and not coverage.passed and not coverage.open:
                try_numbers_told(coverage, one)
            if coverage.passed and not coverage.failed and coverage.first.keeps:
                self.call_again(coverage)
        except OutOfTime:
            coverage.open.append((Outcome(coverage.case, coverage.whole), OUT_OF_TIME))

    def proves(self, coverage: Coverage, guess: Guess) -> bool:
        """Whether a case is proven under further conditions, or under each alternative of them."""
        for texts, relations in guess.ways:
            conditions = tuple(condition for text in texts for condition in read_conditions(text))
            subject = replace(self.subject, assumed=(*self.subject.assumed, *conditions))
            try:
                case = replace(coverage.case, subject=subject)
                narrowed = Coverage(case, case.spans())
                with sooner(self.until - time.perf_counter()):
                    self.cover(narrowed, 0.0, relations)
            except ValueError:
                return False
            coverage.runs += narrowed.runs
            if judged(narrowed).verdict != "proven":
                return False
        return True

    def call_again(self, coverage: Coverage) -> None:
        """Call a module that keeps sizes again, after calls of other sizes; a failure then is one for all sizes."""
        for earlier in earlier_sizes(coverage.case):
            again = self.run(coverage.case, coverage.first.spans, coverage.first.relations, earlier)
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
    """The size of an axis in the given inputs."""
    from towers.contracts.bindings import Bindings
    from towers.contracts.check import Check

    check = Check(Bindings(case.subject.signature, {"self": case.subject.instance, **case.subject.values}))
    check.check_arguments()
    return check.names.axis_size(axis)


def assumptions(subject: ModuleSubject) -> tuple[str, ...]:
    """What the verdict is for, beyond sizes: dtype, device and memory layout of the inputs, and other arguments."""
    made = [*subject.required, *subject.optional]
    found = [spec for name in made for spec in tensors(subject.signature.arguments.get(name, ()))]
    try:
        dtypes = dict.fromkeys(str(subject.dtype(spec)).removeprefix("torch.") for spec in found)
    except ValueError:  # a dtype_of that names no parameter: the verdict says so
        dtypes = {}
    texts = [f"inputs are {' or '.join(dtypes)}"] if dtypes else []
    texts.append("inputs are contiguous and on the CPU")
    for name, usual in subject.usual.items():
        if name not in (*made, "self") and name in subject.signature.arguments:
            values = [usual, *subject.varied().get(name, ())]
            texts.append(f"{name} is {' or '.join(map(repr, values))}")
    if len(subject.optional) > MOST_OPTIONAL:
        texts.append("of all combinations of optional tensors none, each, two and all were run")
    if not subject.all_options():
        texts.append("of all combinations of these those that differ least from the defaults were run")
    texts.append("the module is in training mode" if subject.instance.training else "the module is in eval mode")
    if any(map(is_compiled, subject.instance.modules())):
        texts.append("what torch.compile makes does the same as eager code, which was run")
    return (*texts, *read_beside(subject.instance))


def _left_outside(prover: "_Prover") -> tuple[str, ...]:
    """What is not as it was before, outside of the module."""
    running = "one run could not be ended when the time was over: what it still writes outside of its copy stays"
    texts = [*prover.outside.assumptions(), *([running] if prover.abandoned else [])]
    return (*texts, *(prover.emptied.rebinding.assumptions() if prover.emptied.rebinding else ()))


def _texts_read(coverages: Sequence[Coverage]) -> tuple[str, ...]:
    """That no text of a size decides what is run, where one was made: it is a symbol's name in a proof."""
    outcomes = [each for coverage in coverages for each in (*coverage.passed, *(open for open, _ in coverage.open))]
    readers = dict.fromkeys(text for outcome in outcomes for text in outcome.texts)
    keyed = dict.fromkeys(text for outcome in outcomes for text in outcome.hashes)
    texts = (f"no text of a size decides what is run (made in {' and '.join(readers)})",) if readers else ()
    return (*texts, f"no size is a key that was there before (asked in {' and '.join(keyed)})") if keyed else texts


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
        steps = [step for outcome in outcomes for step in outcome.steps if step.demand]
        if steps and not steps[0].path and not any(step.failed for step in steps):  # only real runs show a failure
            entry = found[steps[0].path, steps[0].contract]
            entry[0] = min(entry[0], finding.verdict, key=WORST_FIRST.index)
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
            step.kind != step.contract,
            step.outer,
            tuple(_port(outcome, one) for one in step.arrived),
            tuple(_port(outcome, one) for one in step.left),
        )
        for step, number in zip(outcome.steps, pairs, strict=False)
    ]
    error = outcome.error
    wrong = (error.argument, error.axis) if isinstance(error, ShapeContractError) else ("", None)
    return ShapeTrace(type(module).__name__, tuple(rows), outcome.message, *wrong)


def _port(outcome: Outcome, passed: Passed) -> Port:
    if len(passed.shapes) == 1:
        shape = tuple(outcome.shown(torch.Size([size]))[1:-1] for size in passed.shapes[0])
    else:
        shape = tuple(outcome.shown(one) for one in passed.shapes)
    return Port(passed.name, shape, passed.demand, passed.texts, passed.sources)


def _range(name: str, span: Span) -> str:
    low = span.text(name, lowest=-1)
    return low or f"{name} >= {span.first}"
