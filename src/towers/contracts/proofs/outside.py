"""What lies outside of a module's copy is after all runs as it was before: globals, closures, classes, caches.

Before the first run everything is kept that the module's code can write to (`reached` finds it) and that the copy
does not have for itself. After each run on symbols, and in the end, what differs is put back in place: a global, an
attribute, a closure's variable; the items of a list, dict, set or deque; the numbers of a tensor or an array; the state
of a generator of random numbers; the results that functools.cache keeps, and an lru_cache but for those that it drops.

Other threads may use the same things. Only what differs is written, and of a dict only the keys that do, unless their
order has changed, so that they find their entries at all times. A global is put back only if code that the module
reaches binds it. What they add to a list, a dict or the like while verify runs is lost where the module's code can
reach it too, as nothing tells who has added it; and they see what the runs write until it is put back.
"""

import gc
from collections.abc import Iterable, Set
from functools import partial
from operator import eq
from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules import module as every_module
from torch.overrides import _get_current_function_mode_stack  # pyright: ignore
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack  # pyright: ignore

from towers.contracts.proofs.kinds_of_state import Way, cannot, same_bytes, version, ways, with_article, write_items
from towers.contracts.proofs.reached import CACHED, kind_of, reach, results

MOST_BYTES = 2**28
"""The most bytes of tensors that are kept; a change of others is named."""

NAMED = 6
"""The most things that are named of those that could not be put back."""


class Outside:
    """What a copy of a module can write to beside itself, as it was before any run.

    `own`: the ids of what was copied, which needs no care. `others`: further values that runs are given.
    """

    def __init__(self, twin: Any, own: Set[int], others: Iterable[Any] = ()) -> None:
        found, self.cut = reach([twin, *others, *_of_every_call()])
        self.kept: list[_Kept | _Results] = []
        self.bytes: dict[int, int] = {}
        """The memory that is kept: its size by its address."""
        self.lost: dict[str, None] = {}
        """What could not be put back: "LOG (a file)"."""
        with torch._C.DisableTorchFunction():
            for name, value in found:
                if id(value) not in own:
                    try:
                        self._keep(name, value)
                    except Exception:  # some objects have code of their own wherever one looks at them
                        self.cut = True

    def put_back(self, *, last: bool = True) -> None:
        """Bring everything to what it was. `last`: also what takes long to compare, and cached results."""
        with torch._C.DisableTorchFunction():
            for each in self.kept:
                if (last or not each.slow) and not each.put_back(last):
                    self.lost[each.text] = None

    def assumptions(self) -> tuple[str, ...]:
        """One text on what could not be put back; none if all was."""
        more = [f"{len(self.lost) - NAMED} more"] if len(self.lost) > NAMED else []
        cut = ["what more it reaches than is looked at"] if self.cut else []
        texts = ", ".join([*list(self.lost)[:NAMED], *more, *cut])
        return (f"what the code changes outside of the module is put back, but for {texts}",) if texts else ()

    def _keep(self, name: str, value: Any) -> None:
        kind = kind_of(value)
        if issubclass(kind, CACHED):
            self.kept.append(_Results(f"{name} (an lru_cache, which has lost results)", value))
        if issubclass(kind, Tensor):
            self._keep_numbers(f"{name} (a tensor of {value.numel()} numbers)", value)
        self.kept += [_Kept(f"{name} ({with_article(kind)})", way) for way in ways(value)]

    def _keep_numbers(self, text: str, tensor: Tensor) -> None:
        """The numbers of a tensor, as those of all that share its memory."""
        if tensor.is_meta:
            return
        way = Way(partial(version, tensor), eq, cannot, slow=True)
        try:
            storage = tensor.untyped_storage()
            at, size = storage.data_ptr(), storage.nbytes()
        except (NotImplementedError, RuntimeError):  # sparse and other tensors that have no memory of their own
            self.kept.append(_Kept(text, way))
            return
        if at not in self.bytes and sum(self.bytes.values()) + size <= MOST_BYTES:
            self.bytes[at] = size
            way = Way(storage.clone, same_bytes, storage.copy_, slow=True)
        elif at in self.bytes:
            return
        self.kept.append(_Kept(text, way))


class _Kept:
    """One thing, as it was."""

    def __init__(self, text: str, way: Way) -> None:
        self.text, self.way, self.slow, self.before = text, way, way.slow, way.read()

    def put_back(self, last: bool) -> bool:
        """Write what was there if something else is now; whether it is there."""
        try:
            if not self.way.same(self.way.read(), self.before):
                self.way.write(self.before)
        except Exception:  # it cannot be written, or its own code fails
            return False
        return True


class _Results:
    """The results that a function keeps."""

    slow = False

    def __init__(self, text: str, function: Any) -> None:
        self.text, self.function = text, function
        self.before = function.cache_info()
        self.inside = results(function)
        self.limited = function.cache_parameters()["maxsize"] is not None
        self.copy = dict(self.inside or {})

    def put_back(self, last: bool) -> bool:
        """Take new ones out, if they are symbols or this is the last time; whether no others were lost by that."""
        if self.function.cache_info().misses == self.before.misses or not (last or self._symbolic()):
            return True
        if self.inside is not None and not self.limited:
            write_items(self.inside, self.copy)
            return True
        if self.inside is not None and self.copy and self._take_out(self.inside):
            return all(key in self.inside for key in self.copy)
        lost = self.before.currsize > 0
        self.function.cache_clear()
        self.before = self.function.cache_info()
        return not lost

    def _take_out(self, inside: dict[Any, Any]) -> bool:
        """Take new results out of a limited number of them; whether that can be done.

        lru_cache allows for keys that are gone when it comes to drop them. One that it has dropped is never put in.
        """
        try:
            for key in [key for key, held in inside.items() if self.copy.get(key) is not held]:
                del inside[key]
        except Exception:  # a key's own `==` or hash
            return False
        return True

    def _symbolic(self) -> bool:
        held = self.function if self.inside is None else self.inside
        return any(map(_symbolic, gc.get_referents(held)))


def _symbolic(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_symbolic, cast(Iterable[Any], value)))
    return isinstance(value, (FakeTensor, torch.SymInt))


def _of_every_call() -> list[Any]:
    """The hooks of all modules, and the modes that are on."""
    hooks = [value for name, value in vars(every_module).items() if name.startswith("_global_") and "hooks" in name]
    held = [each for some in hooks if isinstance(some, dict) for each in cast(dict[Any, Any], some).values()]
    return [*held, *_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
