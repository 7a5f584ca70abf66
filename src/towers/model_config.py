"""What the config.json of a saved model says about its vectors and columns, checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from towers.checkpoint import CONFIG, read_config
from towers.data.columns import SPLITTERS
from towers.data.kept_vectors import FILE


class Config:
    """What config.json of a saved model says about vectors and columns. It is checked, since people edit it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CONFIG
        config = read_config(folder)
        data: dict[str, Any] = config.get("data", {})
        vectors: dict[str, Any] = config.get("vectors", {})
        self.data = data
        for name in ("left_column", "right_column"):
            self._check("data", data, name, isinstance(data.get(name, ""), str), "a string")
        self._check("data", data, "split", data.get("split", "rule") in list(SPLITTERS), " or ".join(SPLITTERS))
        known = data.get("fit_length") in (None, "pad-or-cut")
        self._check("data", data, "fit_length", known, "null or pad-or-cut")
        self.label_range, self.second_label_range = map(self._limits, ("label_range", "second_label_range"))
        self.classes, self.second_classes = (self._names(name) for name in ("classes", "second_classes"))
        self._check("vectors", vectors, "source", isinstance(vectors.get("source", ""), str), "a string")
        self._check("vectors", vectors, "missing", vectors.get("missing", "hash") in ["hash", "zero"], "hash or zero")
        self.source: str | None = vectors.get("source")
        self.carries = vectors.get("file") == FILE
        """Whether the folder has the vectors; those of towers 0.1.0 have not."""
        self.missing: Any = vectors.get("missing", "hash")

    def not_compared(self, vectors: object) -> str:
        """The warning that the folder has nothing with which these vectors could be compared."""
        return (
            f"{self.path.parent} does not carry its word vectors: whether those of {vectors} are the ones that it "
            "learned with cannot be checked, and with others its scores mean nothing"
        )

    def _limits(self, name: str) -> tuple[float, float]:
        """What the probabilities 0 and 1 mean."""
        limits = cast(list[Any], self.data.get(name) or [0.0, 1.0])
        numbers = len(limits) == 2 and all(type(limit) in (int, float) for limit in limits)
        self._check("data", self.data, name, numbers, "two numbers")
        return limits[0], limits[1]

    def _names(self, name: str) -> tuple[str, ...] | None:
        """The names of classes, if there are any."""
        classes = cast(list[Any] | None, self.data.get(name))
        named = classes is None or (len(classes) > 0 and all(isinstance(one, str) for one in classes))
        self._check("data", self.data, name, named, "the names of classes")
        return None if classes is None else tuple(classes)

    def _check(self, section: str, values: Mapping[str, Any], name: str, right: bool, expected: str) -> None:
        if not right:
            found = json.dumps(values[name])[:40]
            raise ValueError(f'{self.path}: is damaged: "{name}" in "{section}" is {found}; expected {expected}')
