"""The function, method or module that is tested or proven, with its contract and the dtype and device of its inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from towers.contracts.bindings import own_parameter
from towers.contracts.expressions import Condition, conditions, path_root, read_path
from towers.contracts.signature import Signature
from towers.contracts.specs import TensorSpec

PREFERRED = (torch.float32, torch.int64, torch.bool, torch.complex64)
"""The dtypes that are tried, in this order, if an annotation does not allow the dtype of the floating arguments."""


@dataclass(frozen=True)
class Subject:
    """A callable with a contract."""

    call: Callable[..., Any]
    signature: Signature
    instance: Any
    """The instance of a method, or the module; None for a function."""
    assumed: tuple[Condition, ...] = ()
    """Further conditions, beside those of the contract, that the made inputs fulfil."""

    @property
    def name(self) -> str:
        """The name in messages."""
        return self.signature.name

    @property
    def where(self) -> tuple[Condition, ...]:
        """All conditions on the inputs that are made."""
        return (*self.signature.where, *self.assumed)

    def read(self, path: str) -> Any:
        """The value of a path in braces that begins with self, such as `self.hidden`; None for other paths."""
        return read_path(self.instance, path) if path_root(path) == "self" else None

    def dtype(self, spec: TensorSpec) -> torch.dtype:
        """The dtype of a tensor made for an annotation: that of the floating arguments where it is allowed."""
        allowed, floating = spec.dtypes, self.floating
        if allowed is None or floating in allowed:
            return floating
        return next(dtype for dtype in (*PREFERRED, *sorted(allowed, key=str)) if dtype in allowed)

    @cached_property
    def floating(self) -> torch.dtype:
        """The dtype of its floating arguments: that of the parameter it names, of its first one, or torch's default."""
        if self.signature.dtype_of is not None:
            return own_parameter(self.instance, self.signature.dtype_of, self.name).dtype
        parameter = self._first_parameter()
        return torch.get_default_dtype() if parameter is None else parameter.dtype

    @property
    def device(self) -> torch.device:
        """The device of its arguments: that of its first parameter."""
        parameter = self._first_parameter()
        return torch.get_default_device() if parameter is None else parameter.device

    def _first_parameter(self) -> nn.Parameter | None:
        parameters = self.instance.parameters() if isinstance(self.instance, nn.Module) else iter(())
        return next((parameter for parameter in parameters if parameter.is_floating_point()), None)


def contract_of(function: Any, instance: Any) -> Any:
    """The contract of a function, or of a method whose contract depends on the instance (`__contract_of__`)."""
    chosen = getattr(function, "__contract_of__", None)
    return getattr(function, "__contract__", None) if chosen is None or instance is None else chosen(instance)


def subject(target: Callable[..., Any], assuming: Sequence[str] = ()) -> Subject:
    """The contract of a contracted function, of a method of an instance, or of a module: attached, or its forward's.

    Raises:
        TypeError: it has no contract, or is a method that belongs to no instance.
        ValueError: what is assumed cannot be read.
    """
    function = target.forward if isinstance(target, nn.Module) else target
    instance = getattr(function, "__self__", None)
    signature = contract_of(function, instance)
    if isinstance(target, nn.Module):
        attached = [getattr(hook, "__contract__", None) for hook in target._forward_pre_hooks.values()]  # pyright: ignore
        signature, instance = next((found for found in attached if found is not None), signature), target
    name = getattr(target, "__qualname__", type(target).__name__)
    if not isinstance(signature, Signature):
        raise TypeError(f"{name} has no contract: decorate it, or its forward, with @contract")
    if instance is None and "self" in [parameter.name for parameter in signature.formal]:
        raise TypeError(f"{name} is a method of no instance: give that of an instance, or the module itself")
    assumed = tuple(condition for text in assuming for condition in conditions(text))
    return Subject(target, signature, instance, assumed)
