# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
"""Whether somebody listens to a layer: then it must be called as a layer, and not by a quicker way past it."""

from torch import nn


def has_forward_hooks(*layers: nn.Module) -> bool:
    """Whether a layer has forward hooks; a contract by `attach` is one too.

    Those of backward do not count: torch calls them only where tensors go in and out, and between layers goes Ragged.
    """
    return any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
