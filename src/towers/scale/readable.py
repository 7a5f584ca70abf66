"""Which sentences a tower can read: their words, or the reason why not."""

from collections.abc import Sequence
from typing import Any, cast

from towers.answers import Model, Side
from towers.data.columns import SPLITTERS, is_written_list
from towers.model import Tower

Words = tuple[str, ...]


class Reader:
    """The sentences of one side of a model, read as in its training.

    Args:
        model: says how strings are divided, and which lengths its tower takes.
        side: "left" or "right".
    """

    def __init__(self, model: Model, side: Side) -> None:
        tower: Tower = getattr(model.network, side)
        self._divide = SPLITTERS[model.split]
        self.least, self.most = (tower.kernel_words, None) if tower.words is None else (tower.words, tower.words)
        if model.fit_length is not None and tower.words is not None:
            self.least, self.most = 1, None

    def __call__(self, column: str, cells: Sequence[Any]) -> list[Words | str]:
        """The words of each cell; a string is the reason why a cell of this column is no sentence."""
        return [self._read(column, cell) for cell in cells]

    def _read(self, column: str, cell: Any) -> Words | str:
        if isinstance(cell, str) and is_written_list(cell):
            return f"{column} is {repr(cell)[:60]}, a list that was written as text"
        words: Any = self._divide(cell) if isinstance(cell, str) else cell
        if words is None or words == []:
            return f"{column} is empty"
        if not isinstance(words, list) or not all(isinstance(word, str) for word in cast(list[Any], words)):
            return f"{column} is {repr(cell)[:60]}; expected a string or a list of strings"
        strings = cast(list[str], words)
        if "\0" in (text := "".join(strings)) or "\0" in (cell if isinstance(cell, str) else ""):
            return f"{column} has a NUL, which no text has"
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can spell it: "\ud800"
            return f"{column} has half a character"
        if len(strings) < self.least or (self.most is not None and len(strings) > self.most):
            takes = f"at least {self.least}" if self.most is None else f"exactly {self.least}"
            return f"{column} has {len(strings)} word{'' if len(strings) == 1 else 's'}; its tower takes {takes}"
        return tuple(strings)
