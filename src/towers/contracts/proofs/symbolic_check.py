"""The check that every call gets, on sizes that are symbols."""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Never, ParamSpec

import torch
from torch.nn.utils.rnn import PackedSequence

from towers.contracts.bindings import Bindings
from towers.contracts.check import Check
from towers.contracts.layouts import RaggedAxis, Size, layout
from towers.contracts.proofs.layer_rules import batch_sizes_of
from towers.contracts.proofs.symbols import Symbols

P = ParamSpec("P")


class SymbolicCheck(Check):
    """The check that every call gets, on sizes that are symbols."""

    def __init__(self, names: Bindings, symbols: Symbols) -> None:
        super().__init__(names)
        self.symbols = symbols

    def layout(self, value: object) -> tuple[Sequence[Size], torch.dtype | None, torch.device | None]:
        """As for every call, with sizes that compare by proof."""
        if isinstance(value, PackedSequence) and id(value.batch_sizes) in self.symbols.packed:
            batch = batch_sizes_of(self.symbols, value.batch_sizes)
            sizes: Sequence[Any] = [batch, RaggedAxis(None), *value.data.shape[1:]]
            dtype, device = value.data.dtype, value.data.device
        else:
            sizes, dtype, device = layout(value)
        return [self.symbols.shown(size) for size in sizes], dtype, device

    def refuse(self, words: Callable[Concatenate[Bindings, P], Never], *what: P.args, **more: P.kwargs) -> Never:
        """Refuse the call; while the words are looked for, a comparison decides nothing."""
        self.symbols.explaining = True
        try:
            words(self.names, *what, **more)
        finally:
            self.symbols.explaining = False
