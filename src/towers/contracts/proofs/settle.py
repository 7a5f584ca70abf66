"""What real runs make of a verdict: it stands, it is failed at a size, or it holds under a condition that is proven."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch

from towers.contracts.errors import ShapeContractError
from towers.contracts.proofs.explore import Coverage
from towers.contracts.proofs.guesses import at_ends, is_exact, numbers_told, sizes_told, supposed
from towers.contracts.proofs.reality import DTYPES, RealityCheck, holds_at
from towers.contracts.proofs.trials import Trial
from towers.contracts.proofs.verdicts import Finding, Guess
from towers.contracts.specs import tensors

ROUNDS = 2
"""How often conditions are looked for; once more where runs at the ends of the first ones refute them."""


class Prover(Protocol):
    """What can prove a case under further conditions."""

    def proves(self, coverage: Coverage, guess: Guess) -> bool:
        """Whether it is proven there."""
        ...


def settle(
    check: RealityCheck, prover: Prover, coverage: Coverage, finding: Finding, *, few: bool, share: float
) -> None:
    """Compare what a finding claims with real runs, and change it where they differ."""
    case = coverage.case
    for needed in dict.fromkeys(each for outcome in coverage.passed for each in outcome.needs):
        check.remark(f"needs values that fit: {needed}")
    if finding.verdict in ("failed", "holds if", "specialised") and not check.confirm(finding, case):
        finding.message = f"real tensors pass where symbolic ones fail: {finding.message}"
        finding.verdict, finding.conditions = "not provable", ()
    table = check.table(case, few=few, share=share)
    if table and finding.verdict in ("failed", "holds if", "specialised"):
        table = check.with_examples(table, [*coverage.passed[:8], *coverage.failed[:8]])
    if table and finding.verdict in ("failed", "not provable") and (numbers := numbers_told(coverage)):
        table = check.at_numbers(case, table, numbers)
    if table and finding.verdict != "proven" and (wanted := sizes_told(coverage)):
        table = check.further(case, table, wanted, check.share())
    broken, narrow = _differences(finding, table)
    mixed = {trial.error is None for trial in table} == {True, False}
    if broken or narrow or (finding.verdict in ("failed", "not provable") and mixed):
        before = replace(finding)
        _refute(finding, broken, narrow)  # which stands if the time is over before a condition is found
        if any(trial.later for trial in (*broken, *table)):  # it is not these sizes that fail
            return
        guess = None
        for _ in range(ROUNDS):
            count = len(table)
            table, guesses = supposed(check, coverage, table, before.guesses)
            guess, table = _found(check, prover, coverage, table, guesses, before)
            if guess is not None or len(table) == count:
                break
        if guess is not None:
            finding.message, finding.place = before.message, before.place
            _claim(finding, guess.texts, broken)
    if check.reality.untried is not None:
        return
    if finding.verdict == "proven":
        way = "off" if torch.is_grad_enabled() else "on"
        trial = check.gradients(case)
        if trial is not None and (way == "on" or isinstance(trial.error, ShapeContractError)):
            _fail(finding, [trial])
            finding.message = f"with gradients {way}: {finding.message}"
        elif trial is not None:  # what computes gradients itself needs them
            check.remark(f"not with gradients off: {trial.message}")
    if not few and finding.verdict == "proven":
        check.dtypes(case, _admitted(coverage))


def _found(
    check: RealityCheck,
    prover: Prover,
    coverage: Coverage,
    table: Sequence[Trial],
    guesses: Sequence[Guess],
    before: Finding,
) -> tuple[Guess | None, Sequence[Trial]]:
    """The first condition that is proven and that no further run refutes, and the table with these runs."""
    for guess in guesses:
        if before.verdict != "failed" and _single(guess.texts) is not None:
            continue  # what fails is not known on symbols: another size may pass, where no run was
        table = check.further(coverage.case, table, at_ends(guess.texts, coverage.whole), check.share())
        everywhere = before.verdict == "proven"  # on symbols: then under each condition too
        if is_exact(guess, table) and (everywhere or prover.proves(coverage, guess)):
            return guess, table
    return None, table


def settle_by(table: Sequence[Trial], finding: Finding) -> None:
    """Compare what a finding claims with the real runs that there were before the time was over."""
    _refute(finding, *_differences(finding, table))


def _differences(finding: Finding, table: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
    """Runs that fail where the finding claims that it holds (or cannot tell), and those that pass where it must not."""
    if finding.verdict == "failed":
        return [], []
    broken: list[Trial] = []
    narrow: list[Trial] = []
    for trial in table:
        claimed = holds_at(finding.conditions, trial.sizes)
        if claimed and trial.error is not None:
            broken.append(trial)
        elif not claimed and trial.error is None:
            narrow.append(trial)
    return broken, narrow


def _claim(finding: Finding, conditions: Sequence[str], broken: Sequence[Trial]) -> None:
    finding.verdict = "holds if" if _single(conditions) is None else "specialised"
    finding.conditions = tuple(conditions)
    if broken:
        finding.message, finding.place = broken[0].message, f"{broken[0].at} (a real run)"


def _single(conditions: Sequence[str]) -> str | None:
    """The axis of which the conditions leave one size, where they say no more."""
    axis, _, size = conditions[0].partition(" == ")
    return axis if len(conditions) == 1 and axis.isidentifier() and size.isdigit() else None


def _refute(finding: Finding, broken: Sequence[Trial], narrow: Sequence[Trial]) -> None:
    if broken:
        _fail(finding, broken)
    elif narrow:
        finding.verdict, finding.conditions = "failed", ()
        finding.message += f" (no condition was found that is exact: it holds at {narrow[0].at} too)"


def _fail(finding: Finding, broken: Sequence[Trial]) -> None:
    first = next((trial for trial in broken if not trial.later), broken[0])
    symbolic = finding.place or ("the symbolic runs passed" if finding.verdict == "proven" else finding.message)
    finding.verdict, finding.conditions = "failed", ()
    finding.message, finding.place = first.message, f"{first.at} (a real run; {symbolic})"


def _admitted(coverage: Coverage) -> list[torch.dtype]:
    """The further dtypes that the annotations of floating and integer arguments admit."""
    specs = [spec for arguments in coverage.case.subject.signature.arguments.values() for spec in tensors(arguments)]
    return [dtype for dtype in DTYPES if any(spec.dtypes is None or dtype in spec.dtypes for spec in specs)]
