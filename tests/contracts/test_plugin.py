"""The plugin for pytest: nothing until it is asked for; then modes for packages, and a test for each listed module."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ..helpers.forked import Forks

MODULES = """
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from towers.contracts import contract

class Good(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
        return x.sum(1)

class Bad(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
        return x.sum(0)

def wide():
    return nn.Sequential(Good())[0]

ready = Good()

@contract(where=("0 <= ids < n",))
def lookup(table: Float[Tensor, "n"], ids: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
    return table[ids]
"""

WATCH = """
import sys

def pytest_unconfigure(config):
    print("heavy:", sorted({"torch", "towers.contracts"} & sys.modules.keys()))
"""


Run = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shapes.py").write_text(MODULES)
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): ...\n")
    return tmp_path


@pytest.fixture
def run(forks: Forks) -> Run:
    """Run pytest in a process that has torch already."""
    return partial(run_with, forks.python)


def run_with(python: str, project: Path, settings: str = "", *arguments: str, watch: bool = False) -> str:
    (project / "pytest.ini").write_text(f"[pytest]\n{settings}")
    (project / "conftest.py").write_text(WATCH if watch else "")
    command = [
        python,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "towers.pytest_contracts",
        "-s",
        *arguments,
    ]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # no -n of ours
    done = subprocess.run(command, cwd=project, env=alone, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_nothing_is_imported_and_nothing_is_collected_until_it_is_asked_for(project: Path):
    quiet = run_with(sys.executable, project, watch=True)
    assert "1 passed" in quiet
    assert "heavy: []" in quiet


def test_the_same_watch_sees_what_is_imported_when_it_is_asked_for(project: Path):
    told = run_with(sys.executable, project, "towers_contracts = strict shapes\n", watch=True)
    assert "heavy: ['torch', 'towers.contracts']" in told


def test_listed_modules_become_tests(project: Path, run: Run):
    names = ("shapes:Good", "shapes:wide", "shapes:ready", "shapes:lookup", "shapes.py:Good", "shapes:Bad")
    report = run(
        project, "towers_contract_modules =\n" + "".join(f"    {name}\n" for name in names), "-v", "-p", "no:randomly"
    )
    for name in names[:-1]:
        assert f"{name} PASSED" in report
    assert "shapes:Bad FAILED" in report
    assert "Bad.forward: the result is not as annotated" in report
    assert "1 failed, 6 passed" in report


def test_chosen_files_run_without_them_unless_told(project: Path, run: Run):
    settings = "towers_contract_modules = shapes:Good\n"
    assert "1 test collected" in run(project, settings, "--collect-only", "test_nothing.py")
    assert "2 tests collected" in run(project, settings, "--collect-only", "test_nothing.py", "--towers-contracts")
    assert "1/2 tests collected (1 deselected)" in run(project, settings, "--collect-only", "-k", "nothing")


MODE = """
from towers.contracts import checks, modes
import shapes

def test_modes():
    assert modes.switch.of("shapes") == "strict"
    assert modes.switch.of("shapes.deeper") == "strict"
    assert modes.switch.of("quiet") == "off"
    assert modes.switch.of("others") == "on"
"""


def test_modes_are_set_for_packages(project: Path, run: Run):
    (project / "test_mode.py").write_text(MODE)
    assert "2 passed" in run(project, "towers_contracts =\n    strict shapes\n    off quiet silent\n")


def test_settings_that_cannot_be_used_are_named(project: Path, run: Run):
    mode = run(project, "towers_contracts = loud shapes\n")
    assert "ERROR: towers_contracts, 'loud shapes': mode is 'loud'; it must be one of" in mode
    form = run(project, "towers_contract_modules = shapes\n")
    assert "ERROR: towers_contract_modules: 'shapes' is not of the form pkg.mod:NAME" in form
    missing = run(project, "towers_contract_modules =\n    nowhere:Good\n    shapes:Better\n    nowhere.py:Good\n")
    assert "No module named 'nowhere'" in missing
    assert "'shapes' has no attribute 'Better'" in missing
    assert "No such file" in missing
