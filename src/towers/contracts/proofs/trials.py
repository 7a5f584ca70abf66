"""Real runs of a copy of a module: arguments of given sizes with values of several kinds, as if nothing had run."""

import copy
import random
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from towers.contracts.errors import ShapeContractError, ValueContractError
from towers.contracts.proofs.copies import real_copy
from towers.contracts.proofs.process_state import Process, Unlogged
from towers.contracts.proofs.shape_rules import OnDevice
from towers.contracts.proofs.symbolic_inputs import Case
from towers.contracts.proofs.time_limit import root_thread

Given = Mapping[str, Callable[[tuple[int, ...]], Any]]
"""Values that the user makes: for an argument's name a function of the shape."""

LARGEST_INPUTS = 2**24
"""Numbers in all inputs of one run together."""

REPEATED = 8
"""Failures that are repeated on a fresh copy, after which it is known that calls leave nothing that matters."""

REPLAYED = 2
"""How often it is looked whether all that was called before makes a call fail, whatever the values."""

COMBINED = 3
"""Sizes at which all combinations of values meet one error; elsewhere it is then enough that the first four meet it."""

LARGEST_MODULE = 2**30
"""Bytes of parameters and buffers; a larger module is not copied and run."""


LATER = "only after calls of other sizes, where a fresh copy passes"
"""Added to an error that is due to what earlier calls left in the module."""


@dataclass
class Trial:
    """What real runs at one choice of sizes showed."""

    sizes: dict[str, int]
    error: Exception | None
    """Why it fails there; None where some values, or all, pass."""
    needs: str = ""
    """The error that other values met, where only some pass."""

    @property
    def at(self) -> str:
        """The sizes as text: "batch = 2, time = 17"."""
        return ", ".join(f"{name} = {size}" for name, size in self.sizes.items())

    @property
    def message(self) -> str:
        """The error as text, with what is known of it beside."""
        error = self.error
        text = str(error) if isinstance(error, TypeError) and "\n" in str(error) else f"{type(error).__name__}: {error}"
        return f"{LATER}: {text}" if self.later else text

    @property
    def later(self) -> bool:
        """Whether it fails only after calls of other sizes."""
        return _is_later(self.error)


class Trials:
    """Runs one module's copy, the same for all sizes. `put_back`: undoes what runs left outside of the copy."""

    def __init__(self, module: nn.Module, given: Given, put_back: Callable[[], None] = lambda: None) -> None:
        self.module, self.given, self.put_back = module, given, put_back
        self.twin: nn.Module | None = None
        self.table = _smallest_table(module)
        self.converted: dict[torch.dtype, nn.Module] = {}
        self.repeated = 0
        self.kept = False
        """Whether a failure was due to what an earlier call left."""
        self.called: list[tuple[Case, Mapping[str, int]]] = []
        """The calls of the copy, in their order."""
        self.left: Exception | None = None
        """A failure that calls of other sizes leave behind them, whatever their values and its own."""
        self.replayed = 0
        self.redirect = False
        """Whether the code asks for a device that is not available; then all tensors stay on the CPU."""
        self.runs = 0
        """The calls that have ended."""
        self.drawn = _Drawn()
        self.combined: Counter[str] = Counter()
        """At how many sizes every combination of values met an error; errors are the same but for their numbers."""

    def refused(self) -> str | None:
        """Why the module is not run; None if it can be."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        if any(tensor.is_meta for tensor in tensors):
            return "it is on the meta device and has no values"
        if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > LARGEST_MODULE:
            return "its parameters and buffers take more than 1 GB"
        held = [value for part in self.module.modules() for value in vars(part).values()]
        if any(type(value).__name__ == "ProcessGroup" for value in held):
            return "it belongs to a process group"
        try:
            self.twin = real_copy(self.module)
        except Exception as error:
            return f"it cannot be copied with its values: {type(error).__name__}: {error}"
        return None

    def run(self, case: Case, sizes: dict[str, int], turn: int = 0, dtype: torch.dtype | None = None) -> Trial | None:
        """Run at some sizes; a failure counts only if every kind of values meets one, a broken contract at once.

        None where it cannot be told: there is not enough memory.
        """
        usual = [((turn + step) % 4, (turn + step) % 3, (turn + step) % 3) for step in range(4)]
        error = self.attempt(case, sizes, usual[0], dtype)
        met: list[str] = []
        needs = ""
        further: Iterator[Sequence[int]] | None = None
        while error is not None and not isinstance(error, ShapeContractError):
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                return None
            if error is self.left:
                break
            met.append(f"{type(error).__name__}: {error}")
            needs = needs or ("" if _is_later(error) else met[-1])
            further = further or self._further(_kinds(case, sizes), usual, met)
            kind = next(further, None)
            if kind is None:
                break
            error = self.attempt(case, sizes, kind, dtype)
        return Trial(sizes, error, needs if error is None else "")

    def _further(
        self, kinds: Sequence[int], usual: Sequence[Sequence[int]], met: Sequence[str]
    ) -> Iterator[Sequence[int]]:
        """The other kinds of values that differ here, while the errors `met` leave something to be tried.

        All combinations where the arguments are of several types, up to the sizes that COMBINED says.
        """
        first, *others = dict.fromkeys(tuple(map(int.__mod__, each, kinds)) for each in usual)
        yield from others
        if sum(count > 1 for count in kinds) > 1 and self.combined[_one_error(met)] < COMBINED:
            yield from (each for each in product(*map(range, kinds)) if each not in (first, *others))
            if same := _one_error(met):
                self.combined[same] += 1

    def attempt(
        self, case: Case, sizes: Mapping[str, int], kind: Sequence[int], dtype: torch.dtype | None
    ) -> Exception | None:
        """One call on the copy, with one kind of values; a failure is repeated on a fresh copy."""
        before, self.called = self.called, [*self.called, (case, sizes)]
        error = self.call(self.twin, case, sizes, kind, dtype)
        if error is not None and not self.redirect and _names_missing_device(error):
            self.redirect = True
            error = self.call(self.twin, case, sizes, kind, dtype)
        if error is None:
            return None
        if not self.kept and self.repeated >= REPEATED:
            return error
        self.repeated += 1
        self.put_back()
        fresh = real_copy(self.module)
        self.converted.clear()
        again = self.call(fresh, case, sizes, kind, dtype)
        self.twin, self.called = fresh, [(case, sizes)]
        if again is None:
            self.kept = True
            error.add_note(LATER)
            if dtype is None and not isinstance(error, ShapeContractError) and self._fails_after(before, case, sizes):
                self.left = error
        return error

    def start_again(self) -> None:
        """Go on with a fresh copy."""
        self.put_back()
        self.twin, self.called = real_copy(self.module), []
        self.converted.clear()

    def _fails_after(
        self, before: Sequence[tuple[Case, Mapping[str, int]]], case: Case, sizes: Mapping[str, int]
    ) -> bool:
        """Whether a call fails with every kind of values after all calls before it had values of that kind."""
        if self.replayed >= REPLAYED:
            return False
        self.replayed += 1
        for kind in ((step, step % 3, step % 3) for step in range(4)):
            self.put_back()
            self.twin, self.called = real_copy(self.module), []
            for one, earlier in before:
                self.call(self.twin, one, earlier, kind, None)
            if self.call(self.twin, case, sizes, kind, None) is None:
                return False
        return True

    def call(
        self, twin: nn.Module | None, case: Case, sizes: Mapping[str, int], kind: Sequence[int], dtype: Any
    ) -> Exception | None:
        """What one call raises; None also where a contract refuses the values."""
        error = self._called(twin, case, sizes, kind, dtype)
        self.runs += 1
        return error

    def _called(
        self, twin: nn.Module | None, case: Case, sizes: Mapping[str, int], kind: Sequence[int], dtype: Any
    ) -> Exception | None:
        assert twin is not None
        generator = torch.Generator().manual_seed(sum(sizes.values()) + 1000 * sum(kind))
        if dtype is not None and dtype.is_floating_point:
            if dtype not in self.converted:
                self.converted[dtype] = real_copy(self.module).to(dtype)
            twin = self.converted[dtype]
        try:
            make = _Maker(kind, (self.table, 1 + min(sizes.values(), default=1)), generator, self.drawn, dtype)
            arguments = case.arguments(sizes, make)
            _keep_conditions(arguments, case, sizes)
            for name in self.given.keys() & arguments.keys():
                arguments[name] = self.given[name](tuple(arguments[name].shape))
            args, kwargs = case.placed({name: _copied(value) for name, value in arguments.items()})
            with OnDevice("cpu") if self.redirect else nullcontext():
                twin(*args, **kwargs)
        except ValueContractError:
            return None  # a contract refused numbers: those that are made need not be what the module takes
        except Exception as error:
            return error
        return None


@dataclass(frozen=True)
class _Maker:
    """Makes tensors of one kind of values."""

    kind: Sequence[int]
    """For integers 0, 1, random indices or random lengths; masks false, true or mixed; floats normal, in (0, 1) or
    positive definite where the last two axes are equal."""
    ends: tuple[int, int]
    """The number of rows of the smallest table, and one more than the smallest size: no index or length is larger."""
    generator: torch.Generator
    drawn: "_Drawn"
    dtype: torch.dtype | None

    def __call__(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        ints, masks, floats = self.kind
        if dtype is torch.bool:
            return self._mask(shape, masks)
        if not (dtype.is_floating_point or dtype.is_complex):
            dtype = torch.int32 if self.dtype is torch.int32 else dtype
            low, high = ((0, 1), (1, 2), (0, self.ends[0]), (1, max(2, self.ends[1])))[ints]
            return torch.randint(low, high, tuple(shape), generator=self.generator, device="cpu").to(dtype)
        if self.dtype is not None and self.dtype.is_floating_point:
            dtype = self.dtype
        wide = torch.complex64 if dtype.is_complex else torch.float32
        if floats == 1 and not dtype.is_complex:
            return self.drawn.uniform(shape, self.generator).to(dtype)
        values = self.drawn.normal(shape, self.generator, wide)
        if floats == 2 and _square(shape):
            values = values @ values.mH + torch.eye(shape[-1], dtype=wide, device="cpu")
        return values.to(dtype)

    def _mask(self, shape: Sequence[int], kind: int) -> Tensor:
        mask = torch.zeros(tuple(shape), dtype=torch.bool, device="cpu")
        if kind == 1:
            return ~mask
        if kind == 2 and shape and 0 not in shape:
            mask = self.drawn.uniform(shape, self.generator) > 0.5
            mask[..., 0] = True
        return mask


_PERIOD = 65_521
"""Random numbers that are drawn once. A prime, so that no two rows of a matrix of fewer rows begin at the same one."""


class _Drawn:
    """Random tensors that are parts of one row of numbers, which goes on from its start: drawing each takes long."""

    @cached_property
    def _uniform(self) -> Tensor:
        return torch.rand(_PERIOD, generator=torch.Generator().manual_seed(1), dtype=torch.float32, device="cpu")

    @cached_property
    def _normal(self) -> Tensor:
        return torch.randn(_PERIOD, generator=torch.Generator().manual_seed(2), dtype=torch.float32, device="cpu")

    def uniform(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Numbers from 0 to 1, 1 excluded; the generator says where they begin."""
        return _part(self._uniform, prod(shape), generator).view(tuple(shape))

    def normal(self, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Numbers of a normal distribution, real or complex."""
        if dtype.is_complex:
            return torch.complex(*(self.normal(shape, generator, torch.float32) / 2**0.5 for _ in range(2))).to(dtype)
        return _part(self._normal, prod(shape), generator).view(tuple(shape))


def _part(row: Tensor, count: int, generator: torch.Generator) -> Tensor:
    start = int(torch.randint(_PERIOD, (), generator=generator, device="cpu"))
    if start + count <= _PERIOD:
        return row[start : start + count].clone()
    turned = row.roll(-start)
    many = torch.empty(count, dtype=row.dtype, device="cpu")
    end = count // _PERIOD * _PERIOD
    many[:end].view(-1, _PERIOD).copy_(turned)
    many[end:] = turned[: count - end]
    return many


def _is_later(error: Exception | None) -> bool:
    return LATER in getattr(error, "__notes__", ())


def _one_error(met: Sequence[str]) -> str:
    """The error that all runs met, without its numbers; empty where they met several."""
    texts = {re.sub(r"\d+", "#", each) for each in met}
    return texts.pop() if len(texts) == 1 else ""


def _kinds(case: Case, sizes: Mapping[str, int]) -> tuple[int, int, int]:
    """How many kinds of integers, masks and floats differ in the arguments of these sizes; 1 where there are none."""
    counts = [1, 1, 1]

    def look(shape: Sequence[int], dtype: torch.dtype) -> None:
        if dtype is torch.bool:
            counts[1] = 3
        elif not (dtype.is_floating_point or dtype.is_complex):
            counts[0] = 4
        else:
            counts[2] = max(counts[2], 3 if _square(shape) else 2)

    case.arguments(sizes, look)
    return counts[0], counts[1], counts[2]


def _square(shape: Sequence[int]) -> bool:
    return len(shape) > 1 and shape[-1] == shape[-2]


def _keep_conditions(arguments: dict[str, Any], case: Case, sizes: Mapping[str, int]) -> None:
    """Bring the values of integer tensors into the bounds that a contract sets them."""
    for condition in case.subject.where:
        name = condition.subject.text
        value = arguments.get(name)
        if not isinstance(value, Tensor) or value.dtype.is_floating_point or value.dtype is torch.bool:
            continue
        try:
            bound = int(condition.bound.evaluate(sizes.__getitem__, case.brace))
        except LookupError:
            continue
        if condition.relation in (">=", ">"):
            value.clamp_(min=bound + (condition.relation == ">"))
        elif condition.relation in ("<=", "<"):
            value.clamp_(max=bound - (condition.relation == "<"))
        else:
            value.fill_(bound)


def _copied(value: Any) -> Any:
    """A record that the user gave is not handed to the module itself, which may change it."""
    try:
        return value if isinstance(value, Tensor) else copy.deepcopy(value)
    except Exception:
        return value


def _smallest_table(module: nn.Module) -> int:
    """The number of rows of the smallest table that integers may be indices into; 2 where there is none."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    rows = [part.num_embeddings for part in module.modules() if isinstance(part, kinds)]
    rows = rows or [len(tensor) for tensor in module.parameters() if tensor.dim() == 2]
    return max(1, min(rows, default=2))


def _names_missing_device(error: Exception) -> bool:
    """Whether torch says that a device which the code asks for is not there."""
    wrong = ("not compiled with", "NVIDIA driver", "No CUDA GPUs", "accelerator device", "backend is not available")
    return isinstance(error, (AssertionError, RuntimeError)) and any(text in str(error) for text in wrong)


# As if nothing had run.


@contextmanager
def as_if_nothing_ran() -> Generator[Process]:
    """Put back random state, default dtype, the modes of gradients and autocast, and what holds for the whole process.

    What this thread prints, warns of and logs is dropped.
    """
    process = Process()
    state, numpy = random.getstate(), sys.modules.get("numpy")
    numbers: Any = None if numpy is None else numpy.random.get_state()
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    autocast = {device: torch.is_autocast_enabled(device) for device in ("cpu", "cuda")}
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    out, err = _Silent(sys.stdout), _Silent(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        with torch.random.fork_rng(devices=cuda), warnings.catch_warnings(), Unlogged(out.is_silent):
            warnings.simplefilter("ignore")
            yield process
    finally:
        process.put_back()
        sys.stdout = out.inner if sys.stdout is out else sys.stdout
        sys.stderr = err.inner if sys.stderr is err else sys.stderr
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(numbers)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        for device, on in autocast.items():
            torch.set_autocast_enabled(device, on)


class _Silent:
    """A text stream that drops what one thread, and those that work for it, write, and passes on what others do."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.thread = inner, root_thread()

    def is_silent(self) -> bool:
        """Whether this is the thread, or works for it."""
        return root_thread() == self.thread

    def write(self, text: str) -> int:
        return len(text) if self.is_silent() else self.inner.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
