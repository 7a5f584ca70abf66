"""The assertion that a function or a module keeps its contract, and that its contract refuses invalid inputs."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from towers.contracts.errors import ShapeContractError
from towers.contracts.modes import checks
from towers.contracts.subjects import Subject, subject
from towers.contracts.testing.breaking import Broken, broken_inputs
from towers.contracts.testing.drawn_inputs import Inputs, valid_inputs


def assert_contract(
    target: Callable[..., Any],
    *,
    examples: int = 30,
    smallest: int = 1,
    largest: int = 6,
    assuming: Sequence[str] = (),
    **arguments: st.SearchStrategy[Any],
) -> None:
    """Call something with inputs out of its own contract: valid ones must pass and give what is promised, and each
    broken one must be refused for what is broken in it.

    A module is called as it is called in evaluation, and no gradients are kept.

    Args:
        target: a module, a contracted function, or a method of an instance.
        examples: how many valid and how many broken inputs.
        smallest, largest, assuming, arguments: as `valid_inputs` has them.

    Raises:
        AssertionError: a valid input is refused or fails inside, a result is not as annotated, or a broken input is
            accepted, or refused for something else.
        TypeError: the target has no contract, or an argument's name is not in it.
    """
    of = subject(target)
    options: dict[str, Any] = {"smallest": smallest, "largest": largest, "assuming": assuming, **arguments}
    often = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
        phases=(Phase.generate, Phase.shrink),
    )

    @often
    @given(valid_inputs(target, **options))
    def valid(inputs: Inputs) -> None:
        _passes(of, inputs)

    @often
    @given(broken_inputs(target, **options))
    def broken(inputs: Broken) -> None:
        _is_refused(of, inputs)

    with checks("strict"), torch.no_grad(), _in_evaluation(target):
        valid()
        broken()


def _passes(of: Subject, inputs: Inputs) -> None:
    try:
        of.call(*inputs.args, **inputs.kwargs)
    except ShapeContractError as error:
        cause = "the result is not as annotated" if error.argument.startswith("return") else "valid input is refused"
        raise AssertionError(f"{of.name}: {cause}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{of.name}: valid input fails inside: {type(error).__name__}: {error}") from error


def _is_refused(of: Subject, broken: Broken) -> None:
    try:
        of.call(*broken.args, **broken.kwargs)
    except ShapeContractError as error:
        if broken.what != "value":
            return _blames_what_is_broken(of, broken, error)
    except ValueError as error:
        if broken.what == "value" and str(broken.argument) in str(error):
            return None
        raise AssertionError(f"{of.name}: {broken.how}, and this is refused: {error}") from error
    except Exception as error:
        raise AssertionError(f"{of.name}: {broken.how}: not refused, and fails inside: {error}") from error
    raise AssertionError(f"{of.name}: broken input is accepted: {broken.how}")


def _blames_what_is_broken(of: Subject, broken: Broken, error: ShapeContractError) -> None:
    axis = None if error.axis is None else error.axis.replace("#", "")
    wrong_argument = broken.argument is not None and error.argument != broken.argument
    if axis != broken.axis or wrong_argument:
        wanted = f"{broken.argument or 'an argument'}, axis {broken.axis}"
        got = f"{error.argument}, axis {axis}"
        raise AssertionError(f"{of.name}: {broken.how}: the error names {got}; expected {wanted}: {error}") from error


@contextmanager
def _in_evaluation(target: Any) -> Generator[None]:
    modules = [(module, module.training) for module in target.modules()] if isinstance(target, nn.Module) else []
    for module, _ in modules:
        module.training = False
    try:
        yield
    finally:
        for module, before in modules:
            module.training = before
