"""The suite itself: where random numbers come from, which warnings fail a test, and that order is no matter."""

import random
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from .conftest import pytest_collection_modifyitems, seed_everything


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), np.random.rand(), random.random()


@pytest.fixture(scope="module")
def drawn() -> tuple[float, float, float]:
    return draws()


def test_the_seed_is_that_of_the_tests_name(request: pytest.FixtureRequest):
    found = draws()
    seed_everything(request.config, "test_the_seed_is_that_of_the_tests_name")
    assert draws() == found
    assert draws() != found
    seed_everything(request.config, "another")
    assert draws() != found


def test_a_shared_fixture_has_a_seed_of_its_own(drawn: tuple[float, float, float], request: pytest.FixtureRequest):
    draws()
    seed_everything(request.config, "drawn")
    assert draws() == drawn


def test_hypothesis_follows_the_seed(request: pytest.FixtureRequest):
    def numbers() -> list[int]:
        found: list[int] = []
        given(st.integers())(lambda number: found.append(number))()
        return found

    assert numbers() == numbers()


class Settings:
    def __init__(self, **options: object) -> None:
        self.options = options

    def getoption(self, name: str) -> object:
        return self.options[name.removeprefix("--").replace("-", "_")]


class Item:
    keywords: ClassVar = {}


class LongItem:
    keywords: ClassVar = {"long": True}


@pytest.mark.parametrize("seed", [0, 1])
def test_random_order_shuffles_all_tests_as_the_seed_says(seed: int):
    items = [Item() for _ in range(20)]
    shuffled, again, ordered = list(items), list(items), list(items)
    for chosen, random_order in ((shuffled, True), (again, True), (ordered, False)):
        pytest_collection_modifyitems(Settings(slow=True, random_order=random_order, seed=seed), chosen)
    assert ordered == items
    assert shuffled != items
    assert shuffled == again
    assert set(shuffled) == set(items)


@pytest.mark.parametrize("worker", [False, True])
def test_long_tests_begin_first_in_processes_of_xdist(worker: bool, monkeypatch: pytest.MonkeyPatch):
    short, long, other = Item(), LongItem(), Item()
    items = [short, long, other]
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    if worker:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    pytest_collection_modifyitems(Settings(slow=True, random_order=False, seed=0), items)
    assert items == ([long, short, other] if worker else [short, long, other])


def warn_from(module: str) -> None:
    exec("warnings.warn('old', FutureWarning)", {"__name__": module, "warnings": warnings})


@pytest.mark.parametrize("module", ["towers", "towers.layers.lstm", "tests.test_suite", "tests.contracts.listed"])
def test_a_warning_from_our_own_lines_is_an_error(module: str):
    with pytest.raises(FutureWarning, match="old"):
        warn_from(module)


@pytest.mark.parametrize("module", ["torch.jit", "towers_of_hanoi", "lightning.pytorch"])
def test_a_foreign_warning_is_none(module: str):
    with warnings.catch_warnings(record=True) as noted:
        warn_from(module)
    assert [str(warning.message) for warning in noted] == ["old"]
