"""A file of public style moves over from jaxtyping + beartype to contracts, and gives the same verdicts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from jaxtyping import TypeCheckError
from torch import nn

from towers.contracts import ShapeContractError
from towers.contracts.testing import Inputs, assert_contract, broken_inputs, valid_inputs

from . import moved

OFTEN = settings(
    max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
VERSIONS = ("jaxtyping", "contract", "unchecked")


def part(version: str, name: str) -> Any:
    """A function of the file, a module that it defines, or a method of one ("SelfAttention.split")."""
    spoken, (first, *rest) = moved.module(version), name.split(".")
    sizes = {
        "Stem": {"mel": 6, "width": 8},
        "SelfAttention": {"width": 8, "heads": 2},
        "FeedForward": {"width": 8},
        "Block": {"width": 8, "heads": 2},
    }
    found = getattr(spoken, first)
    if isinstance(found, type):
        torch.manual_seed(0)
        found = found(**sizes.get(first, {})).eval()
    for name in rest:
        found = getattr(found, name)
    return found


PARTS = (
    "compress", "length_mask", "rotate", "attend", "loss", "Stem", "SelfAttention", "SelfAttention.split", "FeedForward",
    "Block", "Encoder", "Recogniser", "Recogniser.recur",
)  # fmt: skip


def options(name: str) -> dict[str, Any]:
    """What the file's own annotations leave out: rotary positions need an even width, a target is one of the classes."""
    return {
        "rotate": {"assuming": ("width % 2 == 0",)},
        "loss": {"assuming": ("0 <= target < classes",)},
        "Encoder": {"assuming": ("1 <= lengths <= time",)},
        "Recogniser": {"assuming": ("1 <= lengths <= time",)},
    }.get(name, {})


def verdict(call: Callable[..., Any], inputs: Inputs) -> tuple[str, Any]:
    try:
        return "accepts", call(*inputs.args, **inputs.kwargs)
    except (TypeCheckError, ShapeContractError):
        return "refuses", None


def test_every_annotated_function_is_moved():
    assert moved.ANNOTATED == len(PARTS) == 13
    assert "jaxtyped" not in moved.MOVED.partition('"""\n')[2]
    assert moved.MOVED.count("@contract\n") == moved.ANNOTATED
    assert not set(moved.MOVED.splitlines()) - {*moved.SOURCE.splitlines()} - {
        "@contract", "    @contract", "from jaxtyping import Bool, Float, Int", "from towers.contracts import contract",
    }  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_the_same_results_where_the_inputs_fit(name: str):
    theirs, ours, unchecked = (part(version, name) for version in VERSIONS)

    @OFTEN
    @given(valid_inputs(ours, **options(name)))
    def compare(inputs: Inputs) -> None:
        results = [verdict(call, inputs) for call in (theirs, ours, unchecked)]
        assert [answer for answer, _ in results] == ["accepts"] * 3
        for _, result in results[1:]:
            torch.testing.assert_close(result, results[0][1], rtol=0, atol=0, equal_nan=True)

    compare()


@pytest.mark.parametrize("name", PARTS)
def test_the_same_refusals_where_they_do_not(name: str):
    theirs, ours = (part(version, name) for version in VERSIONS[:2])

    @OFTEN
    @given(broken_inputs(ours, **options(name)))
    def compare(inputs: Inputs) -> None:
        assert verdict(theirs, inputs)[0] == verdict(ours, inputs)[0] == "refuses"

    compare()


@pytest.mark.parametrize("name", PARTS)
def test_what_was_moved_keeps_its_contract(name: str):
    assert_contract(part("contract", name), examples=15, **options(name))


def test_only_ours_names_the_axis_and_the_place():
    audio = torch.rand(2, 6, 9)
    theirs, ours = (moved.module(version).Recogniser() for version in VERSIONS[:2])
    for model in (theirs, ours):
        model.encoder.blocks[1].feed.net[2] = nn.Linear(32, 7)
    with pytest.raises(TypeCheckError) as before:
        theirs(audio)
    with pytest.raises(ShapeContractError) as after:
        ours(audio)
    assert "blocks" not in str(before.value)
    assert str(after.value).startswith(
        "encoder.blocks.1.feed in Recogniser: FeedForward.forward: the result: width is 7; expected 8 (self.width)"
    )
