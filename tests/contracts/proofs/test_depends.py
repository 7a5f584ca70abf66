"""What a module reads beside its arguments is named in the assumptions of a proof."""

import itertools
import os
import random
import time

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
    assert text.endswith(" are as they were (read in Reader)")
    names = text.removesuffix(" are as they were (read in Reader)").replace(" and ", ", ").split(", ")
    expected = {"CALLS", "SEEN", "NUMBERS", "requires_grad", "os.environ", "random.random", "type", "hash", "time.time"}
    assert set(names) == expected


def test_a_proof_names_it():
    assert text_of(Reader()) == read_beside(Reader())
    assert read_beside(Plain()) == text_of(Plain()) == ()


def text_of(module):
    return tuple(text for text in verify(module).assumptions if "as they were" in text or "as it was" in text)
