"""What each tensor of a symbolic run was computed from: the modules and the inputs whose results went into it."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from towers.contracts.bindings import Bindings, Unknown
from towers.contracts.proofs.split_parts import Parts
from towers.contracts.signature import Signature
from towers.contracts.specs import Spec, TensorSpec, TupleSpec

Source = int | str
"""The number of a step, or the name of an input."""


@dataclass(frozen=True)
class Passed:
    """An argument or a result of a step, as far as it consists of tensors."""

    name: str
    """The argument's name; "return" for a result, empty where nothing names it."""
    shapes: tuple[torch.Size, ...]
    sources: frozenset[Source]
    demand: tuple[str, ...] = ()
    """The axes that the contract demands, one by one; one text for several tensors."""
    texts: tuple[str, ...] = ()
    """The same as the annotation has it, with braces."""


class Flow:
    """Knows of the tensors of a run what each was computed from."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Tensor, frozenset[Source]]] = {}
        """By id; the tensor is kept, so that no other one gets its id."""

    def result(self, result: object, args: Sequence[Any], kwargs: Any = None) -> None:
        """A result of torch is computed from what its arguments are computed from."""
        if isinstance(result, (Tensor, list, tuple)) and not isinstance(result, torch.Size):
            self.mark(cast(object, result), self.sources([args, kwargs]))

    def mark(self, value: object, sources: frozenset[Source]) -> None:
        """Say what the tensors in a value are computed from."""
        for tensor in tensors_in(value):
            self.known[id(tensor)] = tensor, sources

    def sources(self, value: object) -> frozenset[Source]:
        """What the tensors in a value are computed from."""
        found = [self.known[id(tensor)][1] for tensor in tensors_in(value) if id(tensor) in self.known]
        return frozenset[Source]().union(*found)


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors in lists, tuples, dicts and ragged kinds."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Parts):
        yield from value.tensors()
    elif isinstance(value, dict):
        yield from tensors_in(list(cast(dict[Any, Any], value).values()))
    elif isinstance(value, (list, tuple)):
        for item in cast(Sequence[Any], value):
            yield from tensors_in(item)
    elif not isinstance(value, (str, int, float, torch.SymInt, type(None))):
        inner = getattr(value, "values", None)
        if isinstance(inner, Tensor):
            yield inner


# What a contract demands, for people.


def demanded(signature: Signature) -> str:
    """What a contract demands and promises: "batch words 300 -> batch 6"."""
    arguments = [text for name, spec in signature.arguments.items() if (text := _axes(spec)) and name != "self"]
    result = _axes(signature.result) if signature.result else ""
    return ", ".join(arguments) + (f" -> {result}" if result else "")


def demanded_axes(names: Bindings, name: str, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a contract demands of one argument or of the result, axis by axis: with numbers, and as it is written."""
    signature = names.signature
    spec = (signature.result if name == "return" else signature.arguments.get(name)) or ()
    options = [option for option in spec if isinstance(option, TensorSpec)]
    if count == 1 and options:
        texts = tuple(axis.text for axis in options[0].axes)
        paths = [axis.size.braces if axis.size else () for axis in options[0].axes]
        return tuple(_with_numbers(names, *one) for one in zip(texts, paths, strict=True)), texts
    text = _axes(spec)
    whole = (text,) if text else ()
    return whole, whole


def _with_numbers(names: Bindings, text: str, paths: Sequence[str]) -> str:
    """An axis with numbers in the place of its braces, as far as they are known."""
    for path in paths:
        try:
            value = names.read(path)
        except (Unknown, AttributeError, IndexError, TypeError):
            continue
        text = text.replace(f"{{{path}}}", str(value)) if type(value) is int else text
    return text


def parameter_names(module: nn.Module) -> Sequence[str]:
    """The names of the parameters of a module's forward; none where it has no Python code of its own."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return () if code is None else code.co_varnames[1 : code.co_argcount]


def flattened(shapes: Any) -> Iterator[torch.Size]:
    """The shapes in nested lists."""
    if isinstance(shapes, torch.Size):
        yield shapes
    else:
        for inner in shapes or ():
            yield from flattened(inner)


def _axes(spec: Spec) -> str:
    tensors = [option.text for option in spec if isinstance(option, TensorSpec)]
    tuples = [f"({', '.join(_items(option))})" for option in spec if isinstance(option, TupleSpec)]
    return " or ".join(dict.fromkeys([*tensors, *tuples]))


def _items(option: TupleSpec) -> Iterator[str]:
    return (f"*({_axes(item)})" if at == option.rest else _axes(item) for at, item in enumerate(option.items))
