"""HDF5 as Keras writes it, read without trusting a byte of it.

The tree is read by pyfive, which is Python alone: a damaged file raises an error, and cannot make it read past its
memory, as it could with the C library. Numbers are then taken from the file's own bytes, once their shape is known to
be the one wanted. What Keras never writes is refused: links, external or virtual data, chunks, filters.
"""

import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import PurePath
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

T = TypeVar("T")

_CONTIGUOUS = 1
_DEEPEST = 32


class Hdf5:
    """The groups, attributes and numbers of an HDF5 file whose bytes are in memory.

    Args:
        content: all bytes of the file.
        name: what messages call it.

    Raises:
        ImportError: pyfive is not installed.
        ValueError: it is no HDF5 file, or a damaged one.
    """

    def __init__(self, content: bytes, name: str) -> None:
        try:
            import pyfive  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            raise ImportError('files of Keras are read with pyfive: pip install "towers[keras]"') from None
        self.name, self._content = name, content
        self._dataset: type[Any] = pyfive.Dataset
        self._group: type[Any] = pyfive.Group
        self._root: Any = self._guarded("the file", lambda: pyfive.File(BytesIO(content)))
        self._found: dict[str, object | None] = {}

    def names(self, path: str) -> list[str]:
        """The names in a group, in the file's order; none where there is no such group."""
        group = self._find(path)
        return [] if group is None else self._guarded(path, lambda: [str(name) for name in cast("Any", group)])

    def text(self, path: str, attribute: str) -> str | None:
        """An attribute that holds one text; None where there is none."""
        value = self._attribute(path, attribute)
        if value is None:
            return None
        if isinstance(value, bytes):
            return self._guarded(f"{path}, attribute {attribute}", lambda: value.decode("utf8"))
        if isinstance(value, str):
            return value
        raise self.damaged(f"{path}, attribute {attribute}", f"holds {type(value).__name__}, not a text")

    def texts(self, path: str, attribute: str) -> list[str] | None:
        """An attribute that holds a list of texts, which Keras cuts into NAME0, NAME1, … where it is long."""
        value = self._attribute(path, attribute)
        if value is None and self._attribute(path, f"{attribute}0") is not None:
            parts: list[Any] = []
            while (part := self._attribute(path, f"{attribute}{len(parts)}")) is not None:
                parts.append(part)
            value = np.concatenate([np.asarray(part).reshape(-1) for part in parts])
        if value is None:
            return None

        def read() -> list[str]:
            entries = np.asarray(value).reshape(-1).tolist()
            return [entry.decode("utf8") if isinstance(entry, bytes) else str(entry) for entry in entries]

        return self._guarded(f"{path}, attribute {attribute}", read)

    def shape(self, path: str) -> tuple[int, ...] | None:
        """The shape of the numbers at the path, which are not read; None where there are none."""
        found = self._find(path)
        if not isinstance(found, self._dataset):
            return None
        return self._guarded(path, lambda: tuple(int(size) for size in cast("Any", found).shape))

    def array(self, path: str, shape: Sequence[int]) -> Array:
        """The numbers at a path, which must have this shape; a copy.

        Raises:
            ValueError: there are none, they have another shape or no dtype of floats or integers, they are stored
                otherwise than Keras does, or one of them is not finite.
        """
        found: Any = self._find(path)
        if not isinstance(found, self._dataset):
            raise self.damaged(path, "holds no numbers; an array belongs there")
        if self.shape(path) != tuple(shape):
            raise ValueError(f"{self.name}: {path} has shape {self.shape(path)}; {tuple(shape)} belongs there")

        def read() -> Array:
            dtype = np.dtype(found.dtype)
            if dtype.kind not in "fiu" or dtype.itemsize > 8:
                raise ValueError(f"its dtype is {dtype}; floats or integers belong there")
            storage = found.id
            if storage.layout_class != _CONTIGUOUS or storage.chunks is not None or storage.filter_pipeline:
                raise ValueError("it is stored in chunks, compressed or elsewhere; Keras stores it in one piece")
            count = int(np.prod(shape, dtype=np.int64))
            start, size = int(storage.data_offset), count * dtype.itemsize
            if not 0 <= start <= len(self._content) - size:
                raise ValueError("its numbers lie outside of the file")
            numbers = np.frombuffer(self._content, dtype, count, start).reshape(tuple(shape))
            return numbers.astype(dtype.newbyteorder("="), copy=True)

        numbers = self._guarded(path, read)
        if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
            raise self.damaged(path, "holds a number that is not finite (NaN or infinity)")
        return numbers

    def damaged(self, where: str, what: str) -> ValueError:
        """The error for a place whose content is not what Keras writes."""
        return ValueError(f"{self.name}: {where}: {what}; save the network again with Keras")

    def _attribute(self, path: str, attribute: str) -> Any:
        group = self._find(path)
        if group is None:
            return None
        return self._guarded(f"{path}, attribute {attribute}", lambda: cast("Any", group).attrs.get(attribute))

    def _find(self, path: str) -> object | None:
        """The group or the numbers at a path; None where there is nothing. Links are refused, not followed."""
        found: Any = self._root
        parts = PurePath(path).parts
        if len(parts) > _DEEPEST or ".." in parts:
            raise self.damaged(path, "lies too deep")
        place = ""
        for part in (part for part in parts if part not in ("/", ".")):
            if not isinstance(found, self._group):
                return None
            place = f"{place}/{part}"
            if place not in self._found:
                self._found[place] = self._guarded(path, lambda group=found, part=part: self._step(group, part))
            found = self._found[place]
        return cast("object", found)

    @staticmethod
    def _step(group: Any, part: str) -> object | None:
        links: dict[str, object] = group._links
        if part not in links:
            return None
        if not isinstance(links[part], int | np.integer):
            raise ValueError("it is a link; Keras writes none")
        return group.get_lazy_view(part)

    def _guarded(self, where: str, read: Callable[[], T]) -> T:
        """What `read` gives; whatever goes wrong in it is the file's fault and becomes a ValueError that names it."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of attributes that it cannot read: they are None, and refused later
                return read()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
            raise self.damaged(where, f"is no HDF5 that Keras writes, or damaged ({reason[:200]})") from None
