"""Tensors, and what holds ragged rows, of given sizes, dtypes and values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from hypothesis import reject
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from towers.contracts.expressions import Condition
from towers.contracts.specs import TensorSpec
from towers.contracts.testing.drawn_sizes import Assigned, Sizes


class Kind(NamedTuple):
    """What carries the numbers: a type, and whether its second axis is ragged."""

    carrier: type
    ragged: bool


@dataclass(frozen=True)
class Carried:
    """All that says which tensor, or which ragged rows, will be made."""

    kind: Kind
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    lengths: Sequence[int] | None
    values: tuple[int, ...]
    """The ints that it may hold."""
    seed: int

    @staticmethod
    def kinds(spec: TensorSpec) -> list[Kind]:
        """The carriers that an annotation allows; a nested tensor where other ragged rows may come as well."""
        kinds = [Kind(carrier, _is_ragged(carrier)) for carrier in spec.carriers]
        plain = spec.variadic is None and len(spec.axes) > 1
        kinds = [kind for kind in kinds if plain or not kind.ragged]
        if plain and Tensor in spec.carriers and any(kind.ragged for kind in kinds):
            kinds.append(Kind(Tensor, ragged=True))
        return kinds or [Kind(Tensor, ragged=False)]

    def changed(self, **changes: Any) -> "Carried":
        """The same with other sizes or another dtype."""
        return replace(self, **changes)

    def made(self) -> Any:
        """The tensor, or the ragged rows."""
        if self.lengths is None:
            return self._wrapped(self._numbers(self.shape))
        values = self._numbers((sum(self.lengths), *self.shape[2:]))
        if self.kind.carrier is PackedSequence:
            return pack_sequence(list(values.split(list(self.lengths))), enforce_sorted=False)
        offsets = torch.tensor([0, *self.lengths], device=self.device).cumsum(0)
        if self.kind.carrier is Tensor:
            return torch.nested.nested_tensor_from_jagged(values, offsets)
        return self.kind.carrier(values, offsets)

    def _wrapped(self, values: Tensor) -> Tensor:
        if issubclass(self.kind.carrier, nn.Parameter):
            return nn.Parameter(values, requires_grad=self.dtype.is_floating_point)
        return values

    def _numbers(self, shape: Sequence[int]) -> Tensor:
        """Normal where they are floating or complex; else drawn from the ints that are allowed."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.dtype.is_floating_point or self.dtype.is_complex:
            kind = torch.complex64 if self.dtype.is_complex else torch.float32
            return torch.randn(tuple(shape), generator=generator, dtype=kind).to(self.device, self.dtype)
        if not self.values:
            reject()
        picked = torch.randint(len(self.values), tuple(shape), generator=generator)
        return torch.tensor(self.values)[picked].to(self.device, self.dtype)


def _is_ragged(carrier: type) -> bool:
    return carrier is not object and not issubclass(carrier, Tensor)


def value_rules(where: Sequence[Condition], name: str) -> list[Condition]:
    """The conditions on the values of an argument that is a tensor of ints."""
    return [condition for condition in where if name in (*condition.subject.names, *condition.bound.names)]


def values_allowed(sizes: Sizes, name: str, assigned: Assigned) -> list[int]:
    """The ints that keep all rules on an argument's values, if there are any; 0 and 1 where there is no rule."""
    rules = value_rules(sizes.subject.where, name)
    return (
        [value for value in _candidates(assigned) if _keeps(sizes, rules, name, value, assigned)] if rules else [0, 1]
    )


def values_refused(sizes: Sizes, name: str, assigned: Assigned) -> list[int]:
    """Ints that break a rule of the contract on an argument's values."""
    rules = value_rules(sizes.subject.signature.where, name)
    return [value for value in _candidates(assigned) if not _keeps(sizes, rules, name, value, assigned)]


def _candidates(assigned: Assigned) -> range:
    return range(-2, max([8, *assigned.values()]) + 3)


def _keeps(sizes: Sizes, rules: Sequence[Condition], name: str, value: int, assigned: Assigned) -> bool:
    return all(sizes.fulfils(rule, {**assigned, name: value}) for rule in rules)
