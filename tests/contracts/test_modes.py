"""off, on and strict; as a call, as a context, by the environment."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from towers.contracts import ShapeContractError, checks, contract, modes

from ..helpers.forked import Forks


@contract(where=("ids < 3",))
def checked(a: Float[Tensor, "n 2"], ids: Int[Tensor, "n"]) -> None: ...


WRONG_SHAPE = (torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))
WRONG_VALUE = (torch.zeros(1, 2), torch.tensor([5]))


def test_off_checks_nothing_and_ends_with_its_context():
    with checks("off"):
        checked(*WRONG_SHAPE)
        checked(*WRONG_VALUE)
        with checks("on"), pytest.raises(ShapeContractError):
            checked(*WRONG_SHAPE)
        checked(*WRONG_SHAPE)
    with pytest.raises(ShapeContractError):
        checked(*WRONG_SHAPE)


def test_a_context_ends_with_an_error_too():
    with pytest.raises(KeyError), checks("off"):
        raise KeyError
    assert modes.enabled()


def test_as_a_call_it_lasts():
    before = checks("off")
    try:
        checked(*WRONG_SHAPE)
    finally:
        before.__exit__(None, None, None)
    with pytest.raises(ShapeContractError):
        checked(*WRONG_SHAPE)


def test_values_on_the_cpu_are_checked_by_on_and_strict():
    for mode in ("on", "strict"):
        with checks(mode), pytest.raises(ValueError, match=r"ids\[0\] is 5; checked needs less than 3"):
            checked(*WRONG_VALUE)


def test_values_that_no_one_may_read_are_not_read():
    ids = torch.zeros(1, dtype=torch.int64, device="meta")
    for mode in ("on", "strict"):
        with checks(mode):
            checked(torch.zeros(1, 2), ids)


@pytest.mark.cuda
def test_values_on_a_device_are_checked_by_strict_alone():
    on_device = tuple(part.cuda() for part in WRONG_VALUE)
    with checks("on"):
        checked(*on_device)
    with checks("strict"), pytest.raises(ValueError, match=r"ids\[0\] is 5"):
        checked(*on_device)


class Inner(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        return x


def test_a_module_has_a_mode_of_its_own_with_all_that_is_in_it():
    outer, other = nn.Sequential(Inner(), nn.Sequential(Inner())), Inner()
    with checks("off", outer):
        outer(torch.zeros(1, 3))
        copy.deepcopy(outer)(torch.zeros(1, 3))
        with pytest.raises(ShapeContractError):
            other(torch.zeros(1, 3))
        with checks("on", outer[1]), pytest.raises(ShapeContractError):
            outer(torch.zeros(1, 3))
        outer(torch.zeros(1, 3))
    with pytest.raises(ShapeContractError):
        outer(torch.zeros(1, 3))
    with checks("off"), checks("on", outer), pytest.raises(ShapeContractError):
        outer(torch.zeros(1, 3))
    assert "_towers_checks" not in outer.__dict__


def test_a_package_has_a_mode_of_its_own_with_all_that_is_in_it():
    names = __name__.split(".")
    for target in (__name__, sys.modules[__name__], names[0]):
        with checks("off", target):
            checked(*WRONG_SHAPE)
        with checks("off", "somewhere.else"), pytest.raises(ShapeContractError):
            checked(*WRONG_SHAPE)
    with checks("off", names[0]), checks("on", __name__), pytest.raises(ShapeContractError):
        checked(*WRONG_SHAPE)
    with pytest.raises(ShapeContractError):
        checked(*WRONG_SHAPE)


def test_what_is_decorated_while_it_is_off_stays_itself():
    def function(a: Float[Tensor, "n 2"]) -> None: ...

    with checks("off"):
        assert contract(function) is function
        assert contract(where=("n > 1",))(function) is function
    with checks("off", __name__):
        assert contract(function) is function
    assert contract(function) is not function


def test_a_compiled_module_follows_the_mode():
    torch._dynamo.reset()
    compiled = torch.compile(Inner(), backend="eager")
    with checks("off"):
        compiled(torch.zeros(1, 3))
    with pytest.raises(ShapeContractError):
        compiled(torch.zeros(1, 3))


def test_another_target_is_refused():
    with pytest.raises(TypeError, match=r"target is a int; it must be an nn.Module, a package or its name"):
        checks("off", 3)


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match='mode is \'loud\'; it must be one of "off", "on", "strict"'):
        checks("loud")
    assert modes.enabled()


IMPORTED_ANEW = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "towers"]:
    del sys.modules[name]
from towers.contracts import modes
print(modes.enabled())
"""


def run(forks: Forks, mode: str) -> subprocess.CompletedProcess[str]:
    return forks.run([forks.python, "-c", IMPORTED_ANEW], env=os.environ | {"TOWERS_CONTRACTS": mode})


@pytest.mark.parametrize(("mode", "enabled"), [("off", "False"), ("on", "True"), ("strict", "True")])
def test_the_environment_sets_the_mode(mode, enabled, forks: Forks):
    assert run(forks, mode).stdout.strip() == enabled


@pytest.mark.parametrize("mode", ["yes", "", "ON", "0"])
def test_another_mode_in_the_environment_is_refused(mode, forks: Forks):
    assert f'TOWERS_CONTRACTS is {mode!r}; it must be one of "off", "on", "strict"' in run(forks, mode).stderr


def test_no_call_pays_for_who_watches():
    @contract
    def given(x: Float[Tensor, "n"], *rest: Float[Tensor, "n"], scale: int = 1) -> Float[Tensor, "n"]:
        return x

    assert given.__wrapped__ is not given
    assert given.__code__.co_cellvars == ()  # each would be made anew at every call, checks off or on
