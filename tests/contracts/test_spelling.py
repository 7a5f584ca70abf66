"""Axis names that are likely misspelt, and declared vocabularies."""

import warnings

import pytest
from jaxtyping import Float
from torch import Tensor

from towers.contracts import contract


def decorated(*texts: str, vocabulary: str = ""):
    def function(a, b=None, c=None) -> None: ...

    function.__annotations__ = dict(zip("abc", (Float[Tensor, text] for text in texts), strict=False))
    return contract(function, vocabulary=vocabulary) if vocabulary else contract(function)


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        (("batch words", "batch", "bacth"), r"function: axis bacth is likely misspelt; perhaps batch is meant"),
        (("hidden", "hidden", "hiden-1"), r"hiden is likely misspelt; perhaps hidden"),
    ],
)  # fmt: skip
def test_a_name_that_is_nearly_another_is_a_warning(texts, text):
    with pytest.warns(UserWarning, match=text) as caught:
        decorated(*texts)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "texts",
    [
        ("word word", "words"),  # a plural
        ("batch batch", "batches"),
        ("dim1 dim1", "dim2"),  # a number of another
        ("in in", "im"),  # short
        ("batch", "bacth"),  # none is used twice
        ("rows cols", "cols"),  # two letters apart, but they do not begin alike
        ("time_q time_k", "time_q time_k"),  # both used twice
    ],
)
def test_what_is_likely_meant_is_no_warning(texts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decorated(*texts)


def test_a_closed_vocabulary_makes_other_names_an_error():
    decorated("batch words-1", vocabulary="batch words")
    with pytest.raises(ValueError, match=r"function: axis word is not in the vocabulary \(batch, words\)$"):
        decorated("word", vocabulary="batch words")
    with pytest.raises(
        ValueError, match=r"axis wrods is not in the vocabulary \(batch, words\); perhaps words is meant"
    ):
        decorated("wrods", vocabulary="batch words")


def test_an_open_vocabulary_lends_its_names_to_the_warning():
    decorated("other", vocabulary="batch words ...")
    with pytest.warns(UserWarning, match="axis bacth is likely misspelt; perhaps batch is meant"):
        decorated("bacth bacth", vocabulary="batch words ...")


def test_a_vocabulary_may_be_a_list():
    def function(a: Float[Tensor, "batch words"]) -> None: ...

    contract(function, vocabulary=["batch", "words"])
    with pytest.raises(ValueError, match=r"axis words is not in the vocabulary \(batch, time\)"):
        contract(function, vocabulary=("batch", "time"))


@pytest.mark.parametrize("name", ["bacth", "batc", "baatch"])
def test_a_slip_in_the_name_of_a_result_is_a_warning(name):
    """It would bind an axis of its own, of any size."""

    def function(a: Float[Tensor, "batch words"]) -> Float[Tensor, "words"]: ...

    function.__annotations__["return"] = Float[Tensor, f"{name} words"]
    with pytest.warns(UserWarning, match=f"axis {name} is likely misspelt; perhaps batch is meant"):
        contract(function)


@pytest.mark.parametrize(
    ("given", "result"), [("seq_q", "seq_k"), ("word", "words"), ("step1", "step12"), ("row", "rox")]
)
def test_another_axis_of_a_result_is_no_warning(given, result):
    def function(a: Float[Tensor, "batch words"]) -> Float[Tensor, "words"]: ...

    function.__annotations__.update(a=Float[Tensor, given], **{"return": Float[Tensor, result]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        contract(function)
