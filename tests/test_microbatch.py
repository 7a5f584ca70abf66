"""Very many sentences are encoded in slices: the same states, in bounded memory."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from towers import Ragged, Tower, TwoTowers, model
from towers.microbatch import slices

from .helpers import reference
from .helpers.forked import Forks

SIZES = {"vector_width": 5, "filters": 12, "pool": 3, "hidden": 4}


def tower(words=None) -> Tower:
    return reference.number_weights(Tower(words, **SIZES, dtype=torch.float64))


@pytest.fixture
def small_slices(monkeypatch):
    """Slices of some ten words."""
    monkeypatch.setattr(model, "WORKING_BYTES", 10 * tower()._bytes_a_word())


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 12), st.booleans())
@torch.no_grad()
def test_slices_end_to_end_are_the_sentences(lengths, words, padded):
    rows = reference.sentences(lengths, 3)
    ragged = Ragged.from_list(rows) if rows else Ragged(torch.zeros(0, 3), torch.tensor([0]))
    parts = list(slices(*ragged.to_padded(), words)) if padded else list(slices(ragged, None, words))
    found = [Ragged.from_padded(*part) if padded else part[0] for part in parts]
    assert torch.equal(torch.cat([part.values for part in found]), ragged.values)
    assert [length for part in found for length in part.lengths.tolist()] == lengths
    assert all(len(part) == 1 or part.values.shape[0] <= words for part in found) or not rows


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("kind", ["ragged", "padded", "jagged", "ids", "all real"])
def test_states_are_those_of_one_forward_over_all(kind):
    module = TwoTowers(tower(), tower())
    lengths = [3, 9, 2, 2, 8, 4, 25, 5] if kind != "all real" else [6] * 8
    rows = reference.sentences(lengths, 5)
    given = (Ragged.from_list(rows),)
    given = {"padded": reference.pad(rows), "jagged": (torch.nested.nested_tensor(rows, layout=torch.jagged),)}.get(
        kind, given
    )
    if kind == "ids":
        given = (Ragged(torch.arange(sum(lengths)), given[0].offsets, table=given[0].values),)
    if kind == "all real":
        given = (torch.stack(rows),)
    calls = []
    module.left.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        states = module.encode_left(*given)
        assert len(calls) > 2
        wanted = module.left(*given)
    torch.testing.assert_close(states, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module.encode_right(*given), module.right(*given), rtol=0, atol=0)


@pytest.mark.usefixtures("small_slices")
def test_with_gradients_it_is_one_forward():
    module, rows = tower(), reference.sentences([9, 8, 7, 9], 5)
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    module.encode(Ragged.from_list(rows)).square().sum().backward()
    found = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    sum(reference.tower(row, module).square().sum() for row in rows).backward()
    assert calls == [1]
    for one, parameter in zip(found, module.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("small_slices")
@torch.no_grad()
def test_a_sentence_that_does_not_fit_is_named_by_its_place_among_all():
    rows = reference.sentences([9, 9, 9, 1], 5)
    with pytest.raises(ValueError, match=r"sentences.lengths\[3\] is 1; this tower needs at least 2 words"):
        tower().encode(Ragged.from_list(rows))
    padded, lengths = reference.pad(rows)
    with pytest.raises(ValueError, match=r"lengths\[3\] is 1; this tower needs at least 2 words"):
        TwoTowers(tower(), tower()).encode_left(padded, lengths)


MEASURED = """
import sys, torch
from pathlib import Path
from towers import Ragged, TwoTowers

def status(line: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[line].split()[0]) * 1024

def sentences(kind, batch, words):
    offsets = torch.arange(batch + 1) * words
    if kind == "ids":
        return (Ragged(torch.arange(batch * words) % 1000, offsets, table=torch.ones(1000, 300)),)
    padded = torch.ones(batch, words, 300)
    if kind == "vectors":
        return (Ragged(padded.flatten(0, 1), offsets),)
    return padded, torch.arange(batch) % (words - 1) + 2

model = TwoTowers()
with torch.no_grad():
    model.encode_left(*sentences(sys.argv[1], 10, 10))
    given = sentences(sys.argv[1], int(sys.argv[2]), 10)
    if sys.argv[3] == "layers":  # one after the other, since somebody listens
        model.left.conv.register_forward_hook(lambda *_: None)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status("VmRSS")
    states = (model.encode_left if sys.argv[3] == "encode" else model.left)(*given)
print(status("VmHWM") - before - states.numel() * states.element_size())
"""


def peak(kind: str, batch: int, how: str, forks: Forks) -> int:
    finished = forks.run([forks.python, "-c", MEASURED, kind, str(batch), how])
    assert finished.returncode == 0, finished.stderr
    return int(finished.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("kind", "batch"), [("ids", 50_000), ("vectors", 20_000), ("padded", 20_000)])
def test_memory_beyond_input_and_output_stays_below_64_mb(kind, batch, forks: Forks):
    assert peak(kind, batch, "encode", forks) < 64 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_that_measurement_sees_what_one_forward_of_the_layers_takes(forks: Forks):
    assert peak("padded", 40_000, "layers", forks) > 96 * 2**20
