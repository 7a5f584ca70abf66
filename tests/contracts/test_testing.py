"""Inputs out of annotations: valid ones are valid, broken ones are broken as they say, and both come in all kinds."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from towers import FeaturePool, PhraseConv, Ragged, RaggedLSTM, Tower, TwoTowers
from towers.contracts import ShapeContractError, attach, contract
from towers.contracts.testing import Broken, Inputs, assert_contract, broken_inputs, valid_inputs

from ..helpers.forked import Forks

OFTEN = settings(
    max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@dataclass
class Pair:
    left: Float[Tensor, "batch width"]
    right: Float[Tensor, "batch width"]


class Named(NamedTuple):
    ids: Int[Tensor, "batch"]
    mask: Bool[Tensor, "batch"] | None


def fixed(a: Float[Tensor, "batch 3"]) -> None: ...
def shared(a: Float[Tensor, "batch time"], b: Int[Tensor, "batch time"]) -> None: ...
def square(a: Float[Tensor, "n n"]) -> None: ...
def expression(a: Float[Tensor, "n"], b: Float[Tensor, "n-1 2*n"]) -> None: ...
def variadic(a: Float[Tensor, "*lead n"], b: Float[Tensor, "*lead"]) -> None: ...
def broadcast(a: Float[Tensor, "*#lead n"], b: Float[Tensor, "*#lead #n"]) -> None: ...
def anything(a: Shaped[Tensor, "..."], b: Shaped[Tensor, "_ 2 ..."]) -> None: ...
def argument(a: Float[Tensor, "batch {size}"], size: int, kind: Literal["x", "y"] = "x") -> None: ...
def optional(a: Float[Tensor, "batch"] | None = None, b: Int[Tensor, "batch"] | None = None) -> None: ...
def either(a: Float[Tensor, "n 3"] | Int[Tensor, "n"], b: Bool[Tensor, "n"]) -> None: ...
def containers(
    a: list[Float[Tensor, "n"]], b: dict[str, Int[Tensor, "n"]], c: tuple[Bool[Tensor, "n"], int]
) -> None: ...
def records(a: Pair, b: Named, c: Float[Tensor, "width"]) -> None: ...
def kinds(
    a: Float[Tensor, "n"], /, *args: Int[Tensor, "n"], b: Bool[Tensor, "n"], **kwargs: Float[Tensor, "n"]
) -> None: ...
def packed(a: Float[Tensor | PackedSequence, "batch time 3"], b: Int[Tensor, "batch"] | None = None) -> None: ...


FUNCTIONS = {
    function.__name__: contract(function)
    for function in (
        fixed, shared, square, expression, variadic, broadcast, anything, argument, optional, either, containers,
        records, kinds, packed,
    )
}  # fmt: skip


@contract(where=("words >= {least}", "words % 3 == 0", "{least} <= lengths <= words", "0 <= ids < table"))
def conditions(
    a: Float[Tensor, "batch words"],
    ids: Int[Tensor, "batch words"],
    table_of: Float[Tensor, "table"],
    lengths: Int[Tensor, "batch"] | None = None,
    least: int = 2,
) -> None: ...


FUNCTIONS["conditions"] = conditions


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_a_contract_without_an_inside_holds(function):
    assert_contract(function, examples=60)


def kinds_of_breaks(function) -> Counter[str]:
    seen: Counter[str] = Counter()

    @settings(OFTEN, max_examples=150)
    @given(broken_inputs(function))
    def look(broken: Broken) -> None:
        seen[broken.what] += 1
        with pytest.raises((ShapeContractError, ValueError)):
            function(*broken.args, **broken.kwargs)

    look()
    return seen


def test_everything_is_broken_that_can_be():
    assert kinds_of_breaks(conditions).keys() == {"axis", "rank", "dtype", "kind", "condition", "value"}
    assert kinds_of_breaks(FUNCTIONS["fixed"]).keys() == {"axis", "rank", "dtype", "kind"}


def test_what_is_free_is_not_broken():
    @contract
    def free(a: Shaped[Tensor, "batch time"], b: Shaped[Tensor, "#batch"] | None = None) -> None: ...

    assert kinds_of_breaks(free).keys() <= {"rank", "kind", "axis"}

    @contract
    def one_name(a: Shaped[Tensor, "batch time"], b: Shaped[Tensor, "time//2"]) -> None: ...

    seen = set()

    @OFTEN
    @given(broken_inputs(one_name))
    def look(broken: Broken) -> None:
        seen.add((broken.what, broken.argument, broken.axis))

    look()
    # The time of a alone may change, and time//2 is still what b has: only b is certain to be wrong.
    assert {(argument, axis) for what, argument, axis in seen if what == "axis"} == {("b", "time//2")}


def test_broken_inputs_say_what_is_broken():
    said = set()

    @settings(OFTEN, max_examples=150)
    @given(broken_inputs(FUNCTIONS["shared"]))
    def look(broken: Broken) -> None:
        said.add((broken.what, broken.argument, broken.axis))
        assert broken.how.startswith(("a: ", "b: "))

    look()
    assert said >= {
        ("axis", None, "batch"),
        ("axis", "b", "time"),
        ("rank", "a", None),
        ("dtype", "b", None),
        ("kind", "a", None),
    }


def all_valid(target, **options) -> list[Inputs]:
    found: list[Inputs] = []

    @settings(OFTEN, max_examples=100)
    @given(valid_inputs(target, **options))
    def keep(inputs: Inputs) -> None:
        found.append(inputs)

    keep()
    return found


def test_conditions_hold_in_valid_inputs_and_values_too():
    for inputs in all_valid(conditions):
        words, least = inputs.kwargs["a"].shape[1], inputs.kwargs.get("least", 2)
        assert words % 3 == 0
        assert words >= least
        assert inputs.kwargs["ids"].max() < len(inputs.kwargs["table_of"])
        lengths = inputs.kwargs.get("lengths")
        assert lengths is None or (lengths.min() >= least and lengths.max() <= words)


def test_sizes_lie_between_the_smallest_and_the_largest():
    sizes = {inputs.kwargs["a"].shape for inputs in all_valid(FUNCTIONS["shared"], smallest=2, largest=4)}
    assert {size for shape in sizes for size in shape} == {2, 3, 4}


def test_ragged_rows_come_beside_tensors():
    kinds = {type(inputs.kwargs["a"]) for inputs in all_valid(FUNCTIONS["packed"])}
    assert kinds >= {Tensor, PackedSequence}
    tower = Tower(vector_width=3, filters=4, pool=2, hidden=2)
    kinds = {type(inputs.kwargs["sentences"]) for inputs in all_valid(tower)}
    assert kinds >= {Tensor, Ragged}


def test_a_strategy_of_ones_own_and_the_smallest_example():
    inputs = all_valid(FUNCTIONS["argument"], size=st.just(4))
    assert {each.kwargs["size"] for each in inputs} == {4}
    with pytest.raises(TypeError, match="argument has no argument sise"):
        valid_inputs(FUNCTIONS["argument"], sise=st.just(4))


# Modules: towers' own, and some that are wrong.


SMALL = {"vector_width": 3, "filters": 4, "pool": 2, "hidden": 2}
OF_TWO_TOWERS = (
    "2 <= left_lengths <= left_words",
    "right_lengths == 5",
    "left_words >= 2",
    "right_words == 5",
)
"""What the towers inside demand."""


@pytest.mark.parametrize(
    ("module", "assuming"),
    [
        (FeaturePool(2, filters=4), ()),
        (PhraseConv(3, 4, 2), ()),
        (RaggedLSTM(3, 2), ()),
        (Tower(**SMALL), ()),
        (Tower(5, **SMALL), ()),
        (TwoTowers(Tower(**SMALL), Tower(5, **SMALL)), OF_TWO_TOWERS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_towers_keep_their_contracts(module: nn.Module, assuming: tuple[str, ...]):
    before = module.training
    assert_contract(module, examples=15, assuming=assuming)
    assert module.training is before


class Wrong(nn.Module):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.linear = fault, nn.Linear(3, 4)

    @contract
    def forward(self, x: Float[Tensor, "batch time 3"]) -> Float[Tensor, "batch time 4"]:
        match self.fault:
            case "result":
                return self.linear(x).transpose(0, 1)
            case "inside":
                return self.linear(x.view(-1, 6)).view(*x.shape[:2], 4)
            case _:
                return self.linear(x)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("result", r"Wrong.forward: the result is not as annotated: [\s\S]*the result: batch is"),
        ("inside", r"Wrong.forward: valid input fails inside: RuntimeError: "),
    ],
)
def test_a_module_that_breaks_its_contract_is_caught(fault: str, text: str):
    assert_contract(Wrong(""))
    with pytest.raises(AssertionError, match=text):
        assert_contract(Wrong(fault))


def test_a_contract_that_refuses_too_much_or_too_little_is_caught(monkeypatch: pytest.MonkeyPatch):
    @contract
    def function(a: Float[Tensor, "n 3"], b: Float[Tensor, "n"]) -> None: ...

    signature = function.__contract__

    def unchecked(a, b):
        return None

    def another(a, b):
        return FUNCTIONS["fixed"](b)

    for replacement, text in ((unchecked, "broken input is accepted"), (another, "valid input is refused")):
        replacement.__contract__ = signature
        with pytest.raises(AssertionError, match=text):
            assert_contract(replacement)


def test_an_attached_contract_is_tested_too():
    linear = nn.Linear(3, 4)
    with attach(linear, "batch {self.in_features} -> batch {self.out_features}", where="batch >= 2"):
        assert_contract(linear)
        assert kinds_of_breaks(linear).keys() == {"axis", "condition", "rank", "kind"}
    with (
        attach(linear, "batch 3 -> batch 5"),
        pytest.raises(AssertionError, match=r"Linear.forward: the result is not"),
    ):
        assert_contract(linear)


def test_what_has_no_contract_is_refused():
    with pytest.raises(TypeError, match=r"Linear has no contract: decorate it, or its forward, with @contract"):
        assert_contract(nn.Linear(2, 3))
    with pytest.raises(TypeError, match=r"Wrong.forward is a method of no instance"):
        assert_contract(Wrong.forward)


def test_what_has_no_annotation_needs_a_strategy():
    @contract
    def function(a: Float[Tensor, "n"], b) -> None: ...

    with pytest.raises(TypeError, match="b has no annotation: give a strategy for it"):
        assert_contract(function)
    assert_contract(function, b=st.just(1))


def test_conditions_that_nothing_fulfils_are_named():
    @contract(where=("n < 2", "n > 4"))
    def function(a: Float[Tensor, "n"]) -> None: ...

    with pytest.raises(ValueError, match=r"no sizes up to 6 fulfil what .*function demands; give a larger `largest`"):
        assert_contract(function)


def test_inputs_have_the_dtype_of_the_module():
    module = Wrong("").double()
    assert {inputs.kwargs["x"].dtype for inputs in all_valid(module)} == {torch.float64}
    assert_contract(module, examples=5)


def test_without_hypothesis_the_install_line_is_named(forks: Forks):
    code = "import sys; sys.modules['hypothesis'] = None; import towers.contracts; import towers.contracts.testing"
    run = forks.run([forks.python, "-c", code])
    assert 'towers.contracts.testing needs hypothesis: pip install "towers[test]"' in run.stderr


@contract
@dataclass
class Sentences:
    words: Float[Tensor, "batch time 8"]
    lengths: Int[Tensor, "batch"]


def test_a_dataclass_with_a_contract_of_its_own_is_refused_by_the_one_that_is_tested():
    class Sound(nn.Module):
        @contract
        def forward(self, sentences: Sentences) -> Float[Tensor, "batch time 8"]:
            return sentences.words

    class Shorter(Sound):
        @contract
        def forward(self, sentences: Sentences) -> Float[Tensor, "batch time 8"]:
            return sentences.words[:, 1:]

    assert_contract(Sound())
    with pytest.raises(AssertionError, match=r"Shorter\.forward: the result: time is \d+; expected \d+"):
        assert_contract(Shorter())
