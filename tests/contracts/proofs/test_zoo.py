"""The zoo's table: nothing missed, no false alarm; what is known of every specimen is so on real tensors."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from towers.contracts import verify
from towers.contracts.proofs.copies import own_signature
from towers.contracts.proofs.reality import plan
from towers.contracts.proofs.symbolic_inputs import read_subject
from towers.contracts.proofs.trials import Trials

sys.path.insert(0, str(Path(__file__).parents[2] / "zoo"))

from harness import specimens, with_contract

ALL = list(specimens(with_contract, "tests"))
FOUND = {"failed", "specialised", "holds if"}


def names() -> list[str]:
    return [f"{specimen.module.__module__.rpartition('_')[2]}-{specimen.module.__name__}" for specimen in ALL]


def test_the_zoo_is_large_enough_and_half_of_the_faults_are_from_public_reports():
    faulty = [specimen for specimen in ALL if specimen.fault is not None]
    reported = [specimen for specimen in faulty if specimen.source is not None]
    assert len(ALL) >= 30
    assert len(faulty) - len(reported) >= 15
    assert len(reported) >= len(faulty) / 2
    assert all(specimen.source.startswith("https://github.com/") for specimen in reported)
    assert any(specimen.fault is None for specimen in ALL)


@pytest.mark.parametrize("specimen", ALL, ids=names())
def test_verify(specimen: Any):
    proof = verify(specimen.module(), seconds=600)
    if specimen.fault is not None:
        assert proof.verdict in FOUND, str(proof)
        assert not proof
    elif specimen.data_dependent and proof.verdict == "not provable":  # that it can be proven all the same is no fault
        assert proof.tried >= 8
        assert proof.message
    else:
        assert proof.verdict == "proven", str(proof)
    assert all(len(line) <= 100 for line in str(proof).splitlines())


@pytest.mark.parametrize("specimen", ALL, ids=names())
def test_what_is_known_of_it_is_so(specimen: Any):
    """On real tensors, without verify: a sound one holds at all sizes tried, a faulty one fails at some."""
    torch.manual_seed(0)
    module = specimen.module()
    subject = read_subject(module, own_signature(module), (), (), {})
    case = subject.cases()[-1]
    tried = [sizes for sizes in plan(case, [])[::3] if min(sizes.values()) < 50]  # lengths may be ids of 50 words
    if specimen.wrong_at:
        usual = {name: span.first + 3 * span.step for name, span in case.spans().items()}
        tried += [{**usual, **specimen.wrong_at}]
    trials = Trials(module, {})
    errors = [trials.call(module, case, sizes, (3, 0, 0), None) for sizes in tried]
    assert any(errors) == (specimen.fault is not None), errors
