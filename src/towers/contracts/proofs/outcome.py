"""What one run on symbolic sizes showed: every module and contract on the way, the error, and what torch had to ask."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from towers.contracts.proofs.flow import Passed
from towers.contracts.proofs.implied import always, always_of_multiples
from towers.contracts.proofs.ranges import Spans
from towers.contracts.proofs.relations import Relations, implied, multiples_told
from towers.contracts.proofs.symbolic_inputs import Case
from towers.contracts.proofs.symbols import Guard


@dataclass
class Step:
    """What one module or contract saw."""

    path: str
    kind: str
    came: Any
    """Shapes of the arguments: torch.Size, nested in lists."""
    went: Any = None
    """Shapes of the result; None where it never came to one."""
    demand: str = ""
    """What the contract says; empty for a module without one."""
    contract: str = ""
    """The function that has it."""
    failed: bool = False
    number: int = 0
    """Its place among the steps."""
    outer: int | None = None
    """The number of the step in which it ran."""
    hollow: bool = True
    """Whether no other module ran in it."""
    arrived: tuple[Passed, ...] = ()
    left: tuple[Passed, ...] = ()


@dataclass
class Outcome:
    """What one run showed."""

    case: Case
    spans: Spans
    relations: Relations = ()
    """What was taken for granted of the sizes, beyond the spans."""
    granted: Relations = ()
    """The same in the run, with the conditions of the case."""
    steps: list[Step] = field(default_factory=list[Step])
    guards: list[Guard] = field(default_factory=list[Guard])
    taken: tuple[bool, ...] = ()
    """The answers to questions about values."""
    error: Exception | None = None
    message: str = ""
    place: str = ""
    unprovable: bool = False
    refused: bool = False
    """Whether code of the user raised the error, and no operation of torch failed before."""
    needs: tuple[str, ...] = ()
    """What other answers to questions about values are refused with."""
    sizes: set[Any] = field(default_factory=set[Any])
    """Every size in axis names that a module passed on."""
    texts: tuple[str, ...] = ()
    """The functions that made a text of a size."""
    hashes: tuple[str, ...] = ()
    """The functions that had a size for a key."""
    keeps: bool = False
    """Whether the module keeps a size of this call."""
    spell: Callable[[Any], str] = str
    """A sympy expression of torch's symbols in axis names."""

    def sure_of(self, guard: Guard) -> bool:
        """Whether a guard is proven to hold at all sizes of the run."""
        if always(guard.relation, self.spans) or implied(guard.relation, (*self.relations, *self.granted)):
            return True
        multiples = {**self.case.multiples, **multiples_told(self.relations)}
        return bool(multiples) and always_of_multiples(guard.relation, self.spans, multiples, self.relations)

    def shown(self, shapes: Any) -> str:
        """Shapes as text: "(batch, words-1, 32), (2, batch, 6)"."""
        if isinstance(shapes, torch.Size):
            sizes: list[Any] = list(shapes)
            texts = [self.spell(size.node.expr) if isinstance(size, torch.SymInt) else str(size) for size in sizes]
            return f"({', '.join(texts)})"
        return ", ".join(self.shown(shape) for shape in shapes) if shapes else ""

    @cached_property
    def open(self) -> list[Guard]:
        """The guards, each once."""
        return list({guard.text(): guard for guard in self.guards}.values())
