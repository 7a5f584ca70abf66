"""How many different words have passed, in memory that does not grow with their number."""

import hashlib
from collections.abc import Container, Iterable

EXACT = 1 << 17
"""The most different words that are counted one by one, and kept."""
_ALL = 1 << 64


class DistinctWords:
    """Counts different words: exactly up to EXACT, beyond with a standard error of at most .4 %.

    The words whose hashes are below a bound are kept, and the bound is halved where they become too many: adaptive
    sampling (Flajolet, On adaptive sampling, Computing 1990). The counts depend on the words alone, and not on their
    order or the process. Several threads may count and read at a time, so what is iterated is a list.
    """

    def __init__(self) -> None:
        self._found: dict[str, bool] = {}
        self._bound = _ALL

    def add(self, words: Iterable[str], missing: Container[str]) -> None:
        """Count words, of which `missing` have no vector."""
        if self._bound < _ALL:
            words = [word for word in words if _hash(word) < self._bound]
        for word in words:
            self._found[word] = word not in missing
        while len(self._found) > EXACT:
            self._bound //= 2
            self._found = {word: found for word, found in list(self._found.items()) if _hash(word) < self._bound}

    @property
    def types(self) -> int:
        """The number of different words."""
        return len(self._found) * (_ALL // self._bound)

    @property
    def types_found(self) -> int:
        """How many of them have a vector."""
        return sum(list(self._found.values())) * (_ALL // self._bound)


def _hash(word: str) -> int:
    """A number below 2^64, the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf8", "surrogatepass"), digest_size=8).digest(), "little")
