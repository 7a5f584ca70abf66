"""Modules whose truth at every size was found by running them: what verify says of them is so, or it says that it
cannot tell."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from towers.contracts import verify

sys.path.insert(0, str(Path(__file__).parents[2] / "zoo"))

from truth import axes, claimed, grid, truth_differs

FILES = ("truth_sequences", "truth_images", "truth_tensors", "truth_reports")
ALL = [known for file in FILES for known in import_module(file).KNOWN]
NAMES = [known.module.__name__ for known in ALL]
FEW = (
    "NoTranspose",
    "TwoBounds",
    "PooledNorm",
    "OfBothViews",
    "NearestRepeated",
    "ToCommonSize",
    "EvenKernel",
    "AlibiKept",
    "SplitInFour",
)
"""Run each time: one of each kind, the quick ones."""


def test_there_are_enough_of_them_and_half_are_after_public_reports_and_code():
    assert len(ALL) >= 100
    assert len(set(NAMES)) == len(ALL)
    sources = [known.source for known in ALL if known.source is not None]
    assert len(sources) >= len(ALL) / 2
    assert all(source.startswith("https://github.com/") for source in sources)


@pytest.mark.parametrize("known", ALL, ids=NAMES)
def test_the_truth_is_so_on_real_tensors(known: Any, request: pytest.FixtureRequest):
    slow = request.config.getoption("--slow")
    assert truth_differs(known, None if slow else 10) == []


@pytest.mark.parametrize("name", FEW)
def test_verify_says_what_is_so(name: str):
    assert told(ALL[NAMES.index(name)]) == "right"


@pytest.mark.slow
def test_verify_says_nothing_that_is_not_so_and_finds_most_conditions():
    answers = {known.module.__name__: told(known) for known in ALL}
    assert [name for name, answer in answers.items() if answer == "wrong"] == []
    conditional = [known for known in ALL if holds_at_some_sizes(known)]
    exact = [known for known in conditional if answers[known.module.__name__] == "right"]
    assert len(exact) >= 0.75 * len(conditional), sorted(answers.items())
    unknown = [name for name, answer in answers.items() if answer == "not provable"]
    assert len(unknown) <= 0.08 * len(ALL), unknown


def holds_at_some_sizes(known: Any) -> bool:
    """And fails at others."""
    return len({claimed(known.holds, at) for at in grid(axes(known.module()))}) == 2


def told(known: Any) -> str:
    """What verify says beside the truth: "right", "wrong", "not provable", or "failed" of what holds at some sizes."""
    module = known.module()
    proof = verify(module, seconds=600)
    if proof.verdict == "not provable":
        return proof.verdict
    sizes = list(grid(axes(module)))
    truth = [claimed(known.holds, at) for at in sizes]
    says = [proof.verdict != "failed" and all(claimed(text, at) for text in proof.conditions) for at in sizes]
    if says == truth:
        return "right"
    return "failed" if proof.verdict == "failed" and not all(truth) else "wrong"
