"""What the zoo holds: small modules, each with one known fault or none."""

from typing import NamedTuple

from torch import nn


class Specimen(NamedTuple):
    """A module and what is known of it."""

    module: type[nn.Module]
    """Made without arguments. Its methods have jaxtyping annotations; WHERE, if it has it, narrows the axes."""
    kind: str
    fault: str | None
    """What is wrong with it; None: it keeps its contract for all sizes that WHERE allows."""
    wrong_at: dict[str, int] | None = None
    """Sizes at which the fault shows, where it does not show at all sizes."""
    data_dependent: bool = False
    """Sound, but a size depends on the values of a tensor, which no symbolic run can know."""
    source: str | None = None
    """The public report that has this fault."""
