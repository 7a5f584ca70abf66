"""Sentence pairs in memory: selected, split, fitted, bound to vectors."""

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from towers.data import SentencePairs, WordVectors
from towers.data.columns import Columns
from towers.data.memory_rows import MemoryRows

VECTORS = WordVectors(["a", "b", "c"], torch.eye(3))


def numbered(count: int) -> SentencePairs:
    """Pairs whose lengths differ and whose words, labels and lines tell their number."""
    left = [("a", *"b" * (number % 3), f"left{number}") for number in range(count)]
    right = [(f"right{number}", *"c" * (number % 4)) for number in range(count)]
    labels = [number / max(count, 1) for number in range(count)]
    return SentencePairs(left, right, labels, source="made", lines=[2 * number for number in range(count)])


def test_what_it_holds() -> None:
    pairs = SentencePairs([["a", "b"]], [["b", "C"]], [0.25])
    assert len(pairs) == 1
    assert (pairs.left, pairs.right) == ([("a", "b")], [("b", "C")])
    assert pairs.vocabulary == {"a", "b", "C"}
    assert pairs.labels is not None
    assert pairs.labels.dtype == torch.float32
    assert (pairs.source, pairs.lines, pairs.vectors) == ("memory", [1], None)
    assert repr(pairs) == "SentencePairs(1 pairs, labelled, source='memory', vectors=None)"


@pytest.mark.parametrize("bound", [False, True], ids=["unbound", "bound"])
def test_select_takes_positions_in_their_order(bound: bool) -> None:
    pairs = numbered(10)
    chosen = (pairs.with_vectors(VECTORS) if bound else pairs).select([7, 2, -3])
    assert chosen.left == [pairs.left[7], pairs.left[2], pairs.left[7]]
    assert chosen.right == [pairs.right[7], pairs.right[2], pairs.right[7]]
    assert chosen.lines == [14, 4, 14]
    assert chosen.labels is not None
    assert chosen.labels.tolist() == pytest.approx([0.7, 0.2, 0.7])
    assert chosen.source == "made"
    if bound:
        (batch,) = chosen.batches(3)
        rows = [VECTORS.look_up(chosen.left[i]) for i in batch.index.tolist()]
        assert all(torch.equal(came, row) for came, row in zip(batch.left.vectors().to_list(), rows, strict=True))


def test_select_of_none_and_by_tensor() -> None:
    assert len(numbered(3).with_vectors(VECTORS).select([])) == 0
    assert numbered(3).select(torch.tensor([2])).lines == [4]


def test_select_refuses_a_mask() -> None:
    with pytest.raises(ValueError, match=r"indices is a mask; positions are wanted: mask\.nonzero\(\)\.squeeze\(1\)"):
        numbered(3).select(torch.tensor([True, False, True]))


@given(st.integers(0, 60), st.integers(0, 5))
def test_split_parts_are_disjoint_and_together_everything(count: int, seed: int) -> None:
    parts = numbered(count).split(0.5, 0.3, 0.2, seed=seed)
    lines = [part.lines for part in parts]
    assert sorted(line for part in lines for line in part) == [2 * number for number in range(count)]
    assert all(part == sorted(part) for part in lines)
    assert len(parts[0]) == round(count * 0.5)


def test_split_is_decided_by_the_seed() -> None:
    pairs = numbered(50)
    assert pairs.split(0.5, seed=1)[0].lines == pairs.split(0.5, seed=1)[0].lines
    assert pairs.split(0.5, seed=1)[0].lines != pairs.split(0.5, seed=2)[0].lines
    assert len(pairs.split(0.5, seed=1)) == 1


@pytest.mark.parametrize("shares", [(0.8, 0.3), (0.0, 0.5), (-0.1,)])
def test_split_refuses_bad_shares(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"shares \(.*\) must each be above 0 and make at most 1"):
        numbered(10).split(*shares)


def test_thirds_make_a_whole() -> None:
    assert [len(part) for part in numbered(10).split(1 / 3, 1 / 3, 1 / 3)] == [3, 4, 3]


@pytest.mark.parametrize("bound", [False, True], ids=["unbound", "bound"])
def test_fit_right_cuts_and_fills_up(bound: bool) -> None:
    pairs = SentencePairs([["a"]] * 3, [["a", "b", "c"], ["b"], ["c", "a"]])
    fitted = (pairs.with_vectors(VECTORS) if bound else pairs).fit_right(2)
    assert fitted.right == [("a", "b"), ("b", ""), ("c", "a")]
    assert fitted.vocabulary == {"a", "b", "c"}
    assert pairs.right[0] == ("a", "b", "c")
    assert (fitted.vectors is VECTORS) == bound
    batch = next(fitted.with_vectors(VECTORS).batches(3))
    assert batch.right.vectors().to_padded()[0][1].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_fit_right_refuses_no_words() -> None:
    with pytest.raises(ValueError, match=r"words \(0\) must be at least 1"):
        numbered(3).fit_right(0)


def test_with_vectors_counts_every_token_once() -> None:
    vectors = WordVectors(["a"], torch.ones(1, 2))
    bound = SentencePairs([["a", "x"], ["x"]], [["A"], ["y"]]).with_vectors(vectors)
    bound.select([0]).split(1.0)
    list(bound.batches(2))
    assert vectors.coverage == (5, 2, 4, 2, {"x": 2, "y": 1})


def test_it_pickles() -> None:
    pairs = pickle.loads(pickle.dumps(numbered(4).with_vectors(VECTORS)))
    assert len(list(pairs.batches(2))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"right": []}, r"left has 2, right has 0, lines has 2", id="right"),
        pytest.param({"labels": [1]}, r"left has 2, right has 2, lines has 2, labels has 1", id="labels"),
        pytest.param({"lines": [1]}, r"lines has 1", id="lines"),
        pytest.param({"left": [["a"], []]}, r"made, line 9: the left sentence is empty", id="empty sentence"),
        pytest.param({"right": [[], ["a"]]}, r"made, line 7: the right sentence is empty", id="empty right sentence"),
        pytest.param({"right": [["a"], "a b"]}, r"right\[1\] \('a b'\) is one string; .*split_words", id="string"),
        pytest.param({"labels": [0, 1.5]}, r"made, line 9: the label is 1\.5; it must be from 0 to 1", id="label"),
        pytest.param({"labels": [float("nan"), 1]}, r"made, line 7: the label is nan", id="NaN"),
    ],
)
def test_bad_pairs_are_refused(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"left": [["a"], ["b"]], "right": [["a"], ["b"]], "lines": [7, 9], "source": "made"}
    with pytest.raises(ValueError, match=message):
        SentencePairs(**good | arguments)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, float("nan")], "row 3: label is nan; expected the name of a class"),
        (["a", "b", float("nan")], "row 3: label is nan; expected the name of a class"),
        (["entailment", "-", "neutral"], "row 2: label is -, which usually marks a missing label .1 row has it."),
        ([0, 1, -1], "row 3: label is -1, which usually .*; if it is a class, give it another name in the file"),
        ([0.0, 1.0, -1.0], "row 3: label is -1.0, which usually marks a missing label"),
        (["yes", "no", "-1"], "row 3: label is -1, which usually marks a missing label"),
    ],
)
def test_a_missing_label_is_no_class(labels: list[object], message: str) -> None:
    table = {"sentence1": ["a dog"] * 3, "sentence2": ["a cat"] * 3, "label": labels}
    with pytest.raises(ValueError, match=message):
        SentencePairs.from_table(table, classes=True)


def test_classes_of_one_and_minus_one() -> None:
    table = {"sentence1": ["a dog"] * 2, "sentence2": ["a cat"] * 2, "label": [1, -1]}
    assert SentencePairs.from_table(table, classes=True).classes == ("-1", "1")


def test_minus_one_may_be_the_class_that_means_yes() -> None:
    table = {"sentence1": ["a dog"] * 3, "sentence2": ["a cat"] * 3, "label": ["0", "1", "-1"]}
    labels = SentencePairs.from_table(table, yes="-1").labels
    assert labels is not None
    assert labels.tolist() == [0, 0, 1]
    assert Columns(MemoryRows(table)).missing("label", yes="-1") == set()


@pytest.mark.parametrize(
    ("labels", "label_range", "without"),
    [
        ([0, 1, 2, -1], None, {3}),
        ([0, 1, -2, -1], None, set()),  # a scale with negative degrees
        (["yes", "no", "-1", "-", ""], None, {2, 3, 4}),
        (["yes", "no", "NA"], None, set()),  # beside names it may be a name
        ([0.0, 1.0, 0.5, -1.0], (0, 1), {3}),
        ([0, 1, -1], (-1, 1), set()),
        ([1, -1, -1], (0, 1), set()),
        (["0", "1", "NA", "?", "nan"], (0, 1), {2, 3, 4}),
    ],
)
def test_rows_without_a_label(labels: list[object], label_range: tuple[float, float] | None, without: set[int]) -> None:
    assert Columns(MemoryRows({"label": labels})).missing("label", label_range) == without


def test_names_beside_minus_one_are_classes_that_are_refused() -> None:
    table = {"sentence1": ["a dog"] * 3, "sentence2": ["a cat"] * 3, "label": ["yes", "no", "-1"]}
    with pytest.raises(ValueError, match="row 3: label is -1, which usually marks a missing label"):
        SentencePairs.from_table(table, classes="found")


def test_a_list_that_was_written_as_text_is_named() -> None:
    table = {"sentence1": ["['a', 'dog']"], "sentence2": ["a cat"], "label": [1]}
    with pytest.raises(
        ValueError, match=r"row 1: sentence1 is .*, a list that was written as text; write the table as"
    ):
        SentencePairs.from_table(table)


TWO = {"sentence1": ["a dog", "a cat"], "sentence2": ["a", "b"]}


class Split(dict[str, Any]):
    """A table among tables, as in a DatasetDict."""


class Streamed:
    """A data set that is read as it comes."""

    column_names = ("sentence1", "sentence2", "label")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sentence1": "a dog", "sentence2": "b"}, r"the dict: sentence1 is one string .* in a list: \['a dog'\]"),
        ({"train": Split(TWO)}, r"the dict: train is a whole table \(Split\); give one: \['train'\]"),
        ({**TWO, "label": (x for x in (0, 1))}, r"label is generator, whose length is not known; give a list"),
        (Streamed(), r"the Streamed is a stream, whose length is not known; give a part that fits in memory"),
        ({**TWO, "label": ["yes", "no"]}, r"label is 'yes', which is no number.* Names of classes need classes=True"),
        ({**TWO, "label": [1, None]}, r"row 2: label is None, a missing label: leave such rows out"),
    ],
)
def test_what_only_looks_like_a_table_is_refused(table: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SentencePairs.from_table(table)


def test_classes_that_are_numbers_are_in_the_order_of_numbers() -> None:
    def classes(*labels: Any, **how: Any) -> Any:
        table = {"sentence1": ["a"] * len(labels), "sentence2": ["b"] * len(labels), "label": labels, **how}
        return SentencePairs.from_table(table, classes=True, second_label_column="label").classes

    assert classes(*range(11), 10) == tuple(map(str, range(11)))
    assert classes("10", "9", "2.5") == ("2.5", "9", "10")
    assert classes("10", "9", "x") == ("10", "9", "x")


def test_a_missing_label_beside_names_is_named_itself() -> None:
    for missing in (None, "", float("nan")):
        table = {"sentence1": ["a"] * 3, "sentence2": ["b"] * 3, "label": ["x", "y", missing]}
        with pytest.raises(ValueError, match=r"row 3: label is (empty|nan); expected the name of a class"):
            SentencePairs.from_table(table, classes="found")


def test_the_index_and_levels_of_a_frame_are_named() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({**TWO, "label": [0, 1]})
    with pytest.raises(ValueError, match=r"'sentence1' is the index of the frame: give frame.reset_index\(\)"):
        SentencePairs.from_table(frame.set_index("sentence1"))
    with pytest.raises(ValueError, match=r"more than one level of column names \(a MultiIndex\)"):
        SentencePairs.from_table(frame.T.set_index(frame.columns, append=True).T)


def test_a_label_of_hugging_face_is_named_by_its_classes() -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["ent", "neu", "con"])
    features = datasets.Features({name: datasets.Value("string") for name in TWO} | {"label": names})
    table = datasets.Dataset.from_dict({**TWO, "label": [0, 2]}, features=features)
    with pytest.raises(ValueError, match=r"label is 2; .* It is the number of a class \(ent, neu, con\): say classes"):
        SentencePairs.from_table(table)
    pairs = SentencePairs.from_table(table, classes=True)
    assert pairs.classes is not None
    assert [pairs.classes[int(number)] for number in pairs.labels] == ["ent", "con"]
    with pytest.raises(ValueError, match="a whole table"):
        SentencePairs.from_table(datasets.DatasetDict({"train": table}))
    with pytest.raises(ValueError, match="is a stream"):
        SentencePairs.from_table(table.to_iterable_dataset())
