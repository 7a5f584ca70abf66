"""Likely causes that only the towers' own contracts have: Keras data, features before the pool, lists of sentences."""

from towers.contracts.hints import Case, Found, Hint, extra_axis, list_of_tensors


def _keras_axis(case: Case) -> Found | None:
    found = extra_axis(case)
    return found if found is not None and found["axis"] == -1 else None


def _not_pooled(case: Case) -> Found | None:
    if len(case.expected) != len(case.came) or not case.expected:
        return None
    want, got = case.expected[-1], case.came[-1]
    if want and got and want > 1 and got > want and got % want == 0:
        return {"got": got, "want": want, "times": got // want}
    return None


HINTS = (
    Hint(
        "extra axis of Keras data",
        _keras_axis,
        "there is an extra axis of 1 (Keras data carries such a trailing axis): squeeze(-1) would fit",
    ),
    Hint("not pooled", _not_pooled, "perhaps these features are not pooled yet: {got} = {want} x {times}"),
    Hint(
        "a list of sentences",
        list_of_tensors,
        "torch.stack joins tensors of one length, Ragged.from_list those of different lengths",
    ),
)
"""Registered by `towers.ragged`, which every layer imports."""
