"""One call of a tower stays in few files: who follows it from line to line turns few pages.

Counted over one call of `Tower.forward` on the CPU after three others, contracts on. Each Python function that is
called, and each that its caller comes back to, has a file: one of `src/towers`, or the source that a contract was
compiled to; functions of torch and of Python itself are left out. `files` is how many different ones there are,
`changes` how often the next one is another than the one before.

It is counted in a process that has run `verify` before and nothing else, so that what other tests did changes nothing.
"""

import json
from pathlib import Path

import pytest

import towers
from towers.kernels import cpu

from .helpers.forked import Forks

SOURCE = str(Path(towers.__file__).parent)
needs_compiler = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")

PROGRAM = """
import json, sys
from pathlib import Path
import torch, towers
from towers.contracts import checks

SOURCE = str(Path(towers.__file__).parent)
files = []

def look(frame, event, _):
    at = frame if event == "call" else frame.f_back if event == "return" else None
    name = "" if at is None else at.f_code.co_filename
    if name.startswith((SOURCE, "<contract of ")) and files[-1:] != [name]:
        files.append(name)

lengths, gradients, hooked = json.loads(sys.argv[1])
lengths = lengths and torch.tensor(lengths)
tower, sentences = towers.Tower(), torch.randn(3, 7, 300)
if hooked:
    tower.pool.register_forward_hook(lambda *_: None)
with checks("on"), torch.set_grad_enabled(gradients):
    for _ in range(3):
        tower(sentences, lengths)
    sys.setprofile(look)
    tower(sentences, lengths)
    sys.setprofile(None)
print(json.dumps(files))
"""


def journey(
    forks: Forks, lengths: list[int] | None = None, *, gradients: bool = True, hooked: bool = False
) -> list[str]:
    """The files of one call, in order, none twice in a row."""
    counted = forks.run([forks.python, "-c", PROGRAM, json.dumps([lengths, gradients, hooked])])
    assert counted.returncode == 0, counted.stderr
    return json.loads(counted.stdout)


@needs_compiler
@pytest.mark.parametrize("lengths", [None, [3, 7, 5]], ids=["of one length", "with lengths"])
@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "with gradients"])
def test_a_call_of_a_tower_crosses_few_files(lengths, gradients, forks: Forks):
    files = journey(forks, lengths, gradients=gradients)
    changes = len(files) - 1
    assert len(set(files)) <= 8, sorted(set(files))
    assert changes <= 36, files
    # What is counted: the contract, the tower, its one fused call, the kernels; no layer.
    ends = {name.removeprefix(SOURCE + "/") for name in files}
    assert {"model.py", "layers/fused.py", "kernels/cpu/door.py"} <= ends
    assert not ends & {"layers/phrases.py", "layers/pool.py"}


def test_the_count_sees_every_layer_where_one_is_listened_to(forks: Forks):
    files = journey(forks, hooked=True)
    assert {Path(SOURCE, "layers", name).as_posix() for name in ("phrases.py", "pool.py", "lstm.py")} <= set(files)
    assert len(files) > 41


@needs_compiler
def test_the_contract_of_the_tower_is_the_only_one_that_is_asked(forks: Forks):
    contracts = {name for name in journey(forks, [3, 7, 5]) if name.startswith("<contract of ")}
    assert [name.split(",")[0] for name in contracts] == ["<contract of towers.model.Tower.forward"]
