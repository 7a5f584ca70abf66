"""One run of a module on symbolic sizes: what came out, what every boundary saw, and what torch had to ask."""

import dis
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.utils.rnn import PackedSequence

from towers.contracts import modes
from towers.contracts.bindings import Bindings, Unknown
from towers.contracts.errors import ShapeContractError
from towers.contracts.layouts import RaggedAxis
from towers.contracts.proofs.copies import Emptied, named_parts
from towers.contracts.proofs.fast_meta import made
from towers.contracts.proofs.flow import Flow, Passed, demanded, demanded_axes, flattened, parameter_names
from towers.contracts.proofs.outcome import Outcome, Step
from towers.contracts.proofs.ranges import Spans
from towers.contracts.proofs.reached import foreign
from towers.contracts.proofs.relations import Relations, truth
from towers.contracts.proofs.shape_rules import Rules
from towers.contracts.proofs.source_location import quiet, raised_at, running_at
from towers.contracts.proofs.split_parts import Parts
from towers.contracts.proofs.stateful import keeps_sizes
from towers.contracts.proofs.symbolic_check import SymbolicCheck
from towers.contracts.proofs.symbolic_inputs import Case
from towers.contracts.proofs.symbolic_size import SymbolicSize, renamed
from towers.contracts.proofs.symbols import Divided, Guard, Symbols, Undecidable
from towers.contracts.signature import Signature
from towers.contracts.specs import TensorSpec

MOST_ANSWERS = 16
"""The largest number of runs with different answers to questions about values."""

UNPROVABLE = (
    Undecidable,
    GuardOnDataDependentSymNode,
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
    NotImplementedError,
)
"""What torch or a rule raises for operations whose shapes cannot be known."""


NO_REFUSALS = (ShapeContractError, TypeError)
"""What says that shapes do not fit, or that a symbol is no number."""


class _Names(Bindings):
    def __init__(self, signature: Signature, arguments: Mapping[str, Any], run: "_Run") -> None:
        super().__init__(signature, arguments)
        self.run = run

    def braces(self, path: str) -> Any:
        return self.run.symbols.shown(super().braces(path))

    def axis_or_values(self, name: str) -> Any:
        bound = self.axes.get(name)
        if bound is not None and isinstance(bound.size, RaggedAxis):
            raise Unknown  # a rule on values, of which there are none
        return self.run.symbols.shown(super().axis_or_values(name))

    def module_path(self) -> str:
        owner = self.arguments.get("self")
        path = self.run.paths.get(id(owner), "")
        return f"{path} in {self.run.root}" if path else type(owner).__name__


class _Run:
    """The state of one run."""

    def __init__(self, module: nn.Module, case: Case, spans: Spans, relations: Relations) -> None:
        self.symbols = Symbols(spans, self.place, case.fits, relations, case.multiples)
        self.flow = Flow()
        self.root = type(module).__name__
        self.paths = {id(part): path for path, part in named_parts(module).items()}
        self.inside: list[nn.Module] = []
        self.outcome = Outcome(case, spans, relations)
        self.hooks = [
            hook
            for part in module.modules()
            for hook in (
                part.register_forward_pre_hook(self.enter, with_kwargs=True),
                part.register_forward_hook(self.leave, with_kwargs=True),
            )
        ]
        self.open: list[Step] = []
        self.around: list[int] = []
        """The numbers of the modules and contracted functions that are running."""
        self.asked: set[Any] = set()

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A module is called."""
        self.inside.append(module)
        came = self.shapes([*args, *kwargs.values()])
        step = self.next_step(self.paths.get(id(module), "?"), type(module).__name__, came)
        step.arrived = self.passed({**dict(zip(parameter_names(module), args, strict=False)), **kwargs})
        if self.open:
            self.open[-1].hollow = False
        self.open.append(step)
        self.around.append(step.number)

    def leave(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        """A module has returned."""
        self.inside.pop()
        step = self.open.pop()
        self.around.pop()
        step.went = self.shapes(result)
        if step.hollow or not self.flow.sources(result):
            self.flow.mark(result, frozenset([step.number]))
        left = step.left or self.passed({"return": result})
        step.left = tuple(replace(one, sources=self.flow.sources(result)) for one in left)

    def interceptor(self, signature: Signature, arguments: dict[str, Any], call: Callable[[], Any]) -> Any:
        """A contracted call, checked on symbols."""
        names = _Names(signature, arguments, self)
        check = SymbolicCheck(names, self.symbols)
        owner = arguments.get("self")
        if self.open and self.inside[-1] is owner and not self.open[-1].demand:
            step = self.open[-1]
        else:
            came = self.shapes([value for name, value in arguments.items() if name != "self"])
            running = self.paths.get(id(self.inside[-1]), "") if self.inside else ""
            step = self.next_step(self.paths.get(id(owner), running), signature.name, came)
        step.demand, step.contract = demanded(signature), signature.name
        step.arrived = self.passed({name: value for name, value in arguments.items() if name != "self"}, names)
        try:
            with torch._C.DisableTorchFunction():  # a check only reads: no rule is asked
                check.check_arguments()
            self.around.append(step.number)
            try:
                result = call()
            finally:
                self.around.pop()
            step.went = self.shapes(result)
            step.left = self.passed({"return": result}, names)
            with torch._C.DisableTorchFunction():
                check.check_result(result)
                self.derived(signature, names)
        except Exception:
            step.failed = True
            raise
        return result

    def derived(self, signature: Signature, names: Bindings) -> None:
        """Take down the sizes that the contract computes, such as words-1: they are special at 0 and 1 too."""
        specs = [*signature.arguments.values(), *([signature.result] if signature.result else [])]
        tensors = [option for spec in specs for option in spec if isinstance(option, TensorSpec)]
        for axis in (axis for tensor in tensors for axis in tensor.axes):
            size = names.expected(axis) if axis.name is None and not axis.variadic else None
            if isinstance(size, SymbolicSize):
                self.asked.add(size.value.node.expr)

    # What is told.

    def next_step(self, path: str, kind: str, came: Any) -> Step:
        """A new step, inside of the module that is running."""
        steps = self.outcome.steps
        steps.append(Step(path, kind, came, number=len(steps), outer=self.around[-1] if self.around else None))
        return steps[-1]

    def passed(self, values: Mapping[str, Any], names: Bindings | None = None) -> tuple[Passed, ...]:
        """The tensors among some values, with what they are computed from and, where `names` is given, the demand."""
        found: list[Passed] = []
        for name, value in values.items():
            shapes = tuple(flattened(self.shapes(value)))
            if shapes:
                demand = ((), ()) if names is None else demanded_axes(names, name, len(shapes))
                found.append(Passed(name, shapes, self.flow.sources(value), *demand))
        return tuple(found)

    def shapes(self, value: Any) -> Any:
        """The shapes of tensors wherever they stand in a value: a torch.Size, or a list of what stands in it."""
        if isinstance(value, Tensor):
            with torch._C.DisableTorchFunction():
                shape = torch.Size() if value.is_nested else value.shape
            self.asked.update(size.node.expr for size in shape if isinstance(size, torch.SymInt))
            return shape
        if isinstance(value, PackedSequence):
            return self.shapes(value.data)
        if isinstance(value, Parts):
            return value.shapes()
        if isinstance(value, dict):
            return self.shapes(list(cast(dict[Any, Any], value).values()))
        if isinstance(value, (list, tuple)):
            found = [self.shapes(item) for item in cast(Sequence[Any], value)]
            return [shape for shape in found if shape is not None]
        inner = getattr(value, "values", None)
        if not isinstance(inner, Tensor):
            return None
        self.shapes(inner)
        uniform = getattr(value, "uniform", None)  # sentences end to end that are known to be equally long
        return inner.shape if uniform is None else torch.Size([value.batch, uniform, *inner.shape[1:]])

    def place(self) -> str:
        """Where in the user's code, and in which module, something happens now."""
        return self.in_module(running_at(__file__))

    def in_module(self, text: str) -> str:
        """Text with the module that is running: "left.lstm (lstm.py:120)"."""
        path = self.paths.get(id(self.inside[-1]), "") if self.inside else ""
        return f"{path} ({text})" if path and text else text or path

    def settle(self) -> None:
        """Nothing was raised; but something may have to hold of sizes that only values tell."""
        owed = self.symbols.owed()
        if owed is not None:
            text, self.outcome.place, breakable = owed
            self.outcome.message = f"needs {text}, which depends on the values of a tensor"
            self.outcome.error, self.outcome.unprovable = Undecidable(text), not breakable
            self.outcome.steps[0].failed = True

    def failed(self, error: Exception) -> None:
        """Take down an error: the text in axis names, the place in the user's code."""
        outcome = self.outcome
        outcome.error, outcome.unprovable = error, isinstance(error, UNPROVABLE)
        by_user = not self.symbols.failing and bool(self.inside) and foreign(type(self.inside[-1]).__module__)
        outcome.refused = by_user and _is_raised(error) and not isinstance(error, (*UNPROVABLE, *NO_REFUSALS))
        for step in self.open:
            step.failed = True
        outcome.place = self.in_module(raised_at(error.__traceback__))
        names = self.symbols.spelling()
        text = renamed(str(error), names).strip()
        if isinstance(error, (ShapeContractError, ValueError)) and not outcome.unprovable:
            outcome.message = text
        elif isinstance(error, Undecidable):
            outcome.message = f"whether {text} depends on the values of a tensor"
        elif outcome.unprovable:
            outcome.message = f"{_first_line(text) or type(error).__name__}"
        else:
            outcome.message = f"{type(error).__name__}: {text}"


def run(
    emptied: Emptied,
    fake: FakeTensorMode,
    case: Case,
    spans: Spans,
    relations: Relations = (),
    earlier: Mapping[str, int] | None = None,
) -> Outcome:
    """Run a module on one region of sizes; where that raises questions, once more on torch's Python decompositions.

    Those know symbols better, and cost twice as much; quotients and remainders are made simpler there.
    With `earlier` the module is first called with those sizes.
    """
    outcome = _for_all_values(partial(_run, emptied, fake, case, spans, relations, nullcontext(), earlier))
    if outcome.error is None and all(_told(guard, outcome) for guard in outcome.open):
        return outcome
    return _for_all_values(partial(_run, emptied, fake, case, spans, relations, enable_python_dispatcher(), earlier))


def _for_all_values(run_with: Callable[[tuple[bool, ...]], Outcome]) -> Outcome:
    """Run with both answers to each question about values: what only some of them pass is not provable.

    Answers that the user's code refuses are no failure: what is left says what it needs.
    """
    waiting: list[tuple[bool, ...]] = [()]
    outcomes: list[Outcome] = []
    while waiting:
        answers = waiting.pop()
        outcomes.append(run_with(answers))
        taken = outcomes[-1].taken
        waiting += [(*taken[:at], True) for at in range(len(answers), len(taken))]
        if len(outcomes) + len(waiting) > MOST_ANSWERS:
            outcomes[0].error = Undecidable("more than can be tried")
            outcomes[0].unprovable, outcomes[0].message = True, "it depends on the values of tensors in many ways"
            return outcomes[0]
    passed = [each for each in outcomes if each.error is None]
    broken = [each for each in outcomes if each.error is not None]
    if passed and all(each.refused for each in broken):
        passed[0].guards = [guard for each in passed for guard in each.guards]
        passed[0].needs = tuple(dict.fromkeys(map(_with_type, broken)))
        return passed[0]
    if len(broken) < len(outcomes) and not broken[0].unprovable:
        broken[0].unprovable = True
        broken[0].message = f"for some values: {broken[0].message}"
    return broken[0]


def _is_raised(error: Exception) -> bool:
    """Whether a statement raised it, as `raise` and `assert` do; to look a symbol up in a dict only fails."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and dis.opname[at.tb_frame.f_code.co_code[at.tb_lasti]] == "RAISE_VARARGS"


def _with_type(outcome: Outcome) -> str:
    kind = f"{type(outcome.error).__name__}: "
    return outcome.message if outcome.message.startswith(kind) else kind + outcome.message


def _told(guard: Guard, outcome: Outcome) -> bool:
    """Whether a guard is no riddle: it always holds, or is on one axis that it does not fix."""
    if guard.fixed is not None:
        return False
    return len(guard.relation.free_symbols) == 1 or outcome.sure_of(guard)


def _run(
    emptied: Emptied,
    fake: FakeTensorMode,
    case: Case,
    spans: Spans,
    relations: Relations,
    dispatch: AbstractContextManager[Any],
    earlier: Mapping[str, int] | None,
    answers: tuple[bool, ...] = (),
) -> Outcome:
    module = emptied.copy()
    records = emptied.without_data(case.records())
    one = _Run(module, case, spans, relations)
    one.symbols.answers = answers
    one.symbols.env.look_up()
    fake.shape_env = one.symbols.env
    try:
        with quiet(), fake, dispatch, Rules(one.symbols, one.flow), modes.watched(one.interceptor):
            known = [truth(relation, one.symbols.sizes) for relation in relations]
            for each in (*case.truths(one.symbols.sizes), *known):
                one.symbols.assume(each)
            for sizes in (*([earlier] if earlier else []), one.symbols.sizes):
                one.outcome.steps.clear()
                one.flow.known.clear()
                arguments = case.arguments(sizes, made) | records
                for name, value in arguments.items():
                    one.flow.mark(value, frozenset([name]))
                args, kwargs = case.placed(arguments)
                one.symbols.end_where_divided()
                module(*args, **kwargs)
        one.settle()
        one.outcome.keeps = keeps_sizes(module)
    except Unknown:
        raise
    except Divided:
        one.failed(Undecidable())
        one.outcome.message = "torch could not decide a question about remainders"
    except Exception as error:
        one.failed(error)
    finally:
        for hook in one.hooks:
            hook.remove()
        fake.shape_env = None
    outcome = one.outcome
    outcome.texts, outcome.hashes = tuple(one.symbols.env.texts), tuple(one.symbols.env.hashes)
    outcome.guards, outcome.taken = one.symbols.guards(), tuple(one.symbols.taken)
    outcome.granted = one.symbols.granted()
    outcome.sizes = {one.symbols.in_axes(size) for size in one.asked}
    outcome.spell = one.symbols.spell
    return outcome


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
