"""Where nothing can be proven: small real runs at several sizes, with random numbers, checked as every call is."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from towers.contracts import modes
from towers.contracts.errors import ValueContractError
from towers.contracts.proofs.copies import real_copy
from towers.contracts.proofs.symbolic_inputs import Case

STEPS = (0, 1, 2, 3, 4, 6, 9, 13)
"""How far beyond the smallest size each sample is."""


def sizes_to_try(case: Case) -> Iterator[dict[str, int]]:
    """Small sizes for every axis: equal ones, different ones, odd and even ones."""
    spans = case.spans()
    seen: list[dict[str, int]] = []
    for turn, step in enumerate(STEPS):
        for shift in (0, 1 + turn % 3):
            sizes: dict[str, int] = {}
            for place, (name, span) in enumerate(spans.items()):
                size = span.first + (step + shift * place) * span.step
                sizes[name] = size if size in span else span.first
            if sizes not in seen and case.fits(sizes):
                seen.append(sizes)
                yield sizes


def real_run(module: nn.Module, case: Case, sizes: Mapping[str, int]) -> Exception | None:
    """Run a copy on real tensors of given sizes; what it raised."""
    twin = real_copy(module)
    generator = torch.Generator().manual_seed(sum(sizes.values()))
    with torch.random.fork_rng(devices=[]), modes.checks("on"):
        try:
            arguments = case.arguments(sizes, lambda shape, dtype: _numbers(shape, dtype, generator))
            _keep_conditions(arguments, case, sizes)
            args, kwargs = case.placed(arguments)
            twin(*args, **kwargs)
        except ValueContractError:
            return None  # a contract refused numbers: random ones need not be what the module takes
        except Exception as error:
            return error
    return None


def _numbers(shape: Any, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(*shape, generator=generator, dtype=dtype)
    if dtype is torch.bool:
        return torch.zeros(*shape, dtype=dtype)
    return torch.ones(*shape, dtype=dtype)  # a length and an index that nearly everything takes


def _keep_conditions(arguments: dict[str, Any], case: Case, sizes: Mapping[str, int]) -> None:
    """Bring the values of integer tensors into the bounds that a contract sets them."""
    for condition in case.subject.where:
        name = condition.subject.text
        value = arguments.get(name)
        if not isinstance(value, Tensor) or value.dtype.is_floating_point:
            continue
        try:
            bound = int(condition.bound.evaluate(sizes.__getitem__, case.brace))
        except LookupError:
            continue
        if condition.relation in (">=", ">"):
            value.add_(bound + (condition.relation == ">")).clamp_(min=bound)
        elif condition.relation in ("<=", "<"):
            value.clamp_(max=bound - (condition.relation == "<"))
        else:
            value.fill_(bound)
