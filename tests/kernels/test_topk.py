"""The C code of the search on each level of x86-64 gives the bits of the others, and those of torch."""

import platform
from collections.abc import Iterator

import pytest
import torch
from tests.helpers.searching import plain_model

from towers.kernels.cpu import library, topk_call
from towers.search import Index


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Compiled again, as TOWERS_NATIVE asks."""
    caches = (library.why_not, library.asked, library._refusal, library._compiler, library.code)
    monkeypatch.delenv("TOWERS_NATIVE", raising=False)
    for cached in caches:
        cached.cache_clear()
    yield monkeypatch
    for cached in caches:
        cached.cache_clear()


def found(native: pytest.MonkeyPatch, level: str, dtype: torch.dtype, dense: int) -> tuple[torch.Tensor, torch.Tensor]:
    if not library.NEEDS.get(level, set()) <= library._features() or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"this processor has no x86-64-{level}")
    native.setenv("TOWERS_NATIVE", level)
    for cached in (library.asked, library._refusal, library.code):
        cached.cache_clear()
    if level != "off" and not topk_call.serves(dtype):
        pytest.skip(f"the C code cannot run: {library.why_not()}")
    torch.manual_seed(0)
    model = plain_model(6, dense, dtype)
    items, queries = torch.rand(3001, 6, dtype=dtype) * 2 - 1, torch.rand(21, 6, dtype=dtype) * 2 - 1
    items[2000:2900] = items[:900]
    index = Index(model)
    index.add(items)
    return index.search(queries, 40)


@pytest.mark.parametrize("dense", [16, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("one", "other"), [("v2", "off"), ("v3", "v4")])
def test_levels_have_the_same_bits(native: pytest.MonkeyPatch, one: str, other: str, dtype: torch.dtype, dense: int):
    scores, ids = found(native, one, dtype, dense)
    again, ids_again = found(native, other, dtype, dense)
    assert torch.equal(scores, again)
    assert torch.equal(ids, ids_again)


def test_fused_multiply_add_changes_scores_by_rounding_alone(native: pytest.MonkeyPatch):
    scores, _ = found(native, "v3", torch.float32, 16)
    plain, _ = found(native, "off", torch.float32, 16)
    assert (scores - plain).abs().max() < 2e-6
