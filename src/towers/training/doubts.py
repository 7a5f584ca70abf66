"""Doubts about the labels of a training: what it would learn is probably not what its user means."""

import re
import unicodedata
from collections.abc import Iterator, Mapping

from torch import Tensor

from towers.data import SentencePairs
from towers.training.metrics import are_soft, few_degrees

MANY = 20
"""More classes than these, most of which look like numbers, are probably degrees."""
_NUMBER = re.compile(r"[-+]?[0-9]*[.,]?[0-9]+%?")


def class_counts(classes: tuple[str, ...] | None, labels: Tensor | None) -> dict[str, int]:
    """How many labels each class has, in the order of the classes; empty where labels are no classes."""
    if classes is None or labels is None:
        return {}
    return dict(zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True))


def doubts(parts: Mapping[str, SentencePairs]) -> Iterator[str]:
    """Warnings about the labels of "train", and of "dev" and "test" where there are any."""
    yield from filter(None, map(few_degrees, parts.values()))
    train = next(iter(parts.values()))
    for classes in filter(None, (train.classes, train.second_classes)):
        yield from _doubts_of_classes(classes)
    dev = parts.get("dev")
    if dev is not None and dev.classes is None and dev.labels is not None and len(dev) and one_value(dev.labels):
        soft = any(pairs.labels is not None and are_soft(pairs.labels) for pairs in (train, dev))
        told = "Pearson's r is not defined" if soft else "the area under the curve is not defined"
        yield f"dev: all {len(dev)} labels of {dev.source} are equal: {told}; the loss chooses in its place"


def one_value(labels: Tensor) -> bool:
    """Whether two or more labels are all equal."""
    return len(labels) > 1 and bool((labels == labels[0]).all())


def check_values(pairs: SentencePairs, name: str = "train") -> None:
    """Check that there is something to learn.

    Raises:
        ValueError: all labels are equal.
    """
    if pairs.labels is not None and one_value(pairs.labels):
        which = "equal" if pairs.classes is None else f"{pairs.classes[int(pairs.labels[0])]!r}"
        problem = f"all {len(pairs)} labels of {pairs.source} are {which}"
        raise ValueError(f"{name}: {problem}, so there is nothing to learn; give pairs of two or more labels")


def _doubts_of_classes(classes: tuple[str, ...]) -> Iterator[str]:
    if "class" in classes:
        yield "a class is named 'class', as the column that towers predict adds: say --score-column NAME there"
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault("".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            differ = "are alike but for case, spaces or the spelling of a character"
            yield f"the classes {', '.join(map(repr, names))} {differ}; each is a class of its own"
    numbers = [name for name in classes if _NUMBER.fullmatch(name)]
    if len(classes) > MANY and 2 * len(numbers) > len(classes):
        problem = f"there are {len(classes)} classes, and {len(numbers)} of them look like numbers"
        listed = ", ".join(map(repr, numbers[:3]))
        advice = "degrees are numbers with a point, such as 4.5, in a range (--label-range, label_range)"
        yield f"{problem} ({listed}, …): {advice}, and need another preset than entailment"


def listed(counts: Mapping[str, int]) -> str:
    """Classes with their counts for a line, at most MANY of them."""
    some = [f"{name} {count}" for name, count in counts.items()][:MANY]
    return ", ".join(some) + (f", … ({len(counts)} classes)" if len(counts) > MANY else "")
