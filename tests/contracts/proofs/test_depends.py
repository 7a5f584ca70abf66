"""What a module reads beside its arguments is named in the assumptions of a proof."""

import itertools
import os
import random
import time
from os import environ
from random import random as draw

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from towers.contracts import contract, verify
from towers.contracts.proofs.depends import read_beside

CALLS = 0
SEEN = {}
NUMBERS = itertools.count()
WIDTHS = {"small": 8}


def _late(x):
    return x * (time.time() > 0)


class Reader(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 8"]:
        global CALLS
        CALLS += 1
        SEEN["last"] = next(NUMBERS)
        if x.requires_grad or os.environ.get("NO_SUCH_SWITCH") or random.random() > 2:
            return x[:1]
        return self.more(_late(x))

    def more(self, x):
        return x[:1] if type(x) is int or hash("x") == "y" else x


class Plain(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 8"]:
        return torch.relu(x.to(x.device)) + WIDTHS["small"]


def test_what_is_read_is_named():
    [text] = read_beside(nn.Sequential(Reader(), Plain()))
    names, told = text.removeprefix("Reader reads ").split(", and the verdict is for what ")
    assert told == "they were in these runs"
    names = names.replace(" and ", ", ").split(", ")
    expected = {"CALLS", "SEEN", "NUMBERS", "requires_grad", "os.environ", "random.random", "type", "hash", "time.time"}
    assert set(names) == expected


def _counting():
    count, kept = 0, []

    def closes(self, x):
        nonlocal count
        count += 1
        kept.append(count)
        return x

    return closes


class Counter:
    seen = 0


def _class_attribute(self, x):
    Counter.seen += 1
    return x


def _own_attribute(self, x):
    _own_attribute.seen = getattr(_own_attribute, "seen", 0) + 1
    return x


def _default(self, x, kept=[]):  # noqa: B006
    kept.append(1)
    return x


def _imported_names(self, x):
    return x * len(environ) * draw()


def _class_of(self, x):
    return x[x.__class__ is int :]


def _constant(self, x, axes=(0, 1)):
    return x * WIDTHS["small"] * len(Counter.__name__)


@pytest.mark.parametrize(
    ("forward", "names"),
    [
        (_counting(), "count and kept"),
        (_class_attribute, "Counter.seen"),
        (_own_attribute, "_own_attribute.seen"),
        (_default, "kept"),
        (_imported_names, "environ and draw"),
        (_class_of, "__class__"),
        (_constant, None),
    ],
)
def test_counters_wherever_they_are(forward, names):
    kind = type("Reader", (nn.Module,), {"forward": forward, "__module__": "another.package"})
    told = "they were" if " and " in str(names) else "it was"
    expected = () if names is None else (f"Reader reads {names}, and the verdict is for what {told} in these runs",)
    assert read_beside(kind()) == expected


def test_a_proof_names_it():
    assert text_of(Reader()) == read_beside(Reader())
    assert read_beside(Plain()) == text_of(Plain()) == ()


def text_of(module):
    return tuple(text for text in verify(module).assumptions if text.endswith("in these runs"))


class Texts(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make, self.by_width = make, nn.ModuleDict({"512": nn.ReLU()})

    @contract
    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        key = self.make(x)
        return self.by_width[key](x) if key in self.by_width else x


@pytest.mark.parametrize(
    "make",
    [lambda x: str(x.shape[1]), lambda x: f"{x.shape[1]}", lambda x: repr(x.shape), lambda x: f"{tuple(x.shape)}"],
)
def test_a_size_that_is_made_a_text_is_named(make):
    """Its text is that of a symbol in a proof, and another one for each size in a run."""
    proof = verify(Texts(make), seconds=2)
    assert proof.assumptions[-1] == f"no text of a size decides what is run (made in {make.__qualname__})"
    assert "no text of a size decides" in str(proof)


def test_no_text_of_a_size_is_no_assumption():
    assert not any("text of a size" in each for each in verify(Texts(lambda x: "512")).assumptions)
