"""Sentences against the towers that are to read them: checked before any work begins."""

from typing import Literal

from towers.data import SentencePairs
from towers.model import Tower, TwoTowers

Command = Literal["fit", "predict"]


def fitted(
    pairs: SentencePairs, model: TwoTowers, fit_length: str | None, command: Command, *, before: int = 0
) -> SentencePairs:
    """Pairs that the model can read: sentences filled up or cut if asked for, and everything checked.

    Only sentences of a tower for a fixed number of words are filled up or cut. `before` is how many pairs of the same
    file were right already.

    Raises:
        ValueError: a sentence has a number of words that its tower does not take; file, line and ways out are named.
    """
    if fit_length is not None and model.left.words is not None:
        pairs = pairs.fit_left(model.left.words)
    if fit_length is not None and model.right.words is not None:
        pairs = pairs.fit_right(model.right.words)
    sides = (("left", pairs.left, model.left), ("right", pairs.right, model.right))
    wrong = {
        side: [index for index, sentence in enumerate(sentences) if not _takes(tower, len(sentence))]
        for side, sentences, tower in sides
    }
    misfits = len(set(wrong["left"]) | set(wrong["right"]))
    for side, sentences, tower in sides:
        if wrong[side]:
            first = wrong[side][0]
            count = len(sentences[first])
            pairs_so_far = f"the first {before + len(pairs)}" if before else len(pairs)
            others = f" ({misfits} of {pairs_so_far} pairs do not fit)" if misfits > 1 else ""
            problem = f"the {side} sentence has {_words(count)}; this tower takes {_range(tower)}{others}"
            way_out = _WAYS_OUT[command, "any" if tower.words is None else side].format(
                words=tower.words, count=count, any=_ANY[model.left is model.right, side]
            )
            raise ValueError(f"{pairs.source}, line {pairs.lines[first]}: {problem}. {way_out}")
    return pairs


_ANY = {
    (False, "left"): "--left-words any",
    (False, "right"): "--right-words any",
    (True, "left"): "--left-words any --right-words any",  # one tower: both options must say the same
    (True, "right"): "--left-words any --right-words any",
}


_FIT = "Use {any} for sentences of any length, or --fit-length pad-or-cut to make them {words} words long"
_PREDICT = "Use --fit-length pad-or-cut to make sentences {words} words long, or train with {any}"
_WAYS_OUT = {
    ("fit", "left"): _FIT,
    ("fit", "right"): _FIT,
    ("fit", "any"): "Leave such pairs out, or use --kernel-words {count}",
    ("predict", "left"): _PREDICT,
    ("predict", "right"): _PREDICT,
    ("predict", "any"): "Leave such pairs out, or train with --kernel-words {count}",
}


def _takes(tower: Tower, words: int) -> bool:
    return words >= tower.kernel_words if tower.words is None else words == tower.words


def _range(tower: Tower) -> str:
    return f"exactly {tower.words}" if tower.words is not None else f"at least {tower.kernel_words}"


def _words(count: int) -> str:
    return f"{count} word" if count == 1 else f"{count} words"
