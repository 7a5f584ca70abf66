"""The examples in docstrings print what they show."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import towers

NAMES = sorted(
    module.name
    for module in pkgutil.walk_packages(towers.__path__, "towers.")
    if module.name.rpartition(".")[2] not in ("__main__", "native", "pytest_contracts")
    and ".kernels.triton" not in module.name
)


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str):
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in examples(importlib.import_module(name)):
        said: list[str] = []
        runner.run(example, out=said.append)
        assert not runner.failures, "".join(said)


def test_there_are_examples():
    assert sum(bool(examples(importlib.import_module(name))) for name in ("towers.model", "towers.ragged")) == 2
