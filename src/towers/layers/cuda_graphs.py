"""A module whose calls on a GPU are replayed from CUDA graphs, one for each shape: for calls without gradients.

    states = Replayed(tower)
    with torch.no_grad():
        states(vectors, lengths)  # the first call of a shape is captured, those after it start the GPU once

The time of small batches on a GPU is the host's; a replay takes little of it, whatever the module has. Values and
lengths may change from call to call, and weights in place; a graph whose weights lie elsewhere is captured again. Under
autocast, and after another precision of products was set, a shape has a graph of its own.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from towers.contracts.modes import autocast
from towers.kernels.triton.launch import torch_precision


class _Graph(NamedTuple):
    graph: Any
    given: tuple[Tensor | None, ...]  # whose memory the graph reads
    found: Any
    weights: list[int]  # their addresses


class Replayed:
    """Calls of a module with padded tensors, from CUDA graphs.

    The module must not ask for values, as the Triton kernels' layers do not, and draw no random numbers. Tensors on
    the CPU, empty ones, gradients, arguments that are no tensors, and a capture that is under way take the module's own
    call.

    Args:
        module: such as a Tower, a TwoTowers, or a method such as `RaggedLSTM.last`, with `owner`.
        owner: the module that has the weights; None: the module itself.
        most: graphs that are kept; the least recently used one makes room.

    Raises:
        ValueError: `most` is less than 1, or there is no owner.
    """

    def __init__(self, module: Callable[..., Any], owner: nn.Module | None = None, *, most: int = 16) -> None:
        found = module if owner is None else owner
        if not isinstance(found, nn.Module):
            raise ValueError("Replayed: a call that is no module needs the one that has its weights: owner=…")
        if most < 1:
            raise ValueError(f"Replayed: most ({most}) must be at least 1")
        self.module, self.owner, self.most = module, found, most
        self.graphs: OrderedDict[tuple[Any, ...], _Graph] = OrderedDict()

    def __call__(self, *given: Any) -> Any:
        """What the module returns, in memory of its own."""
        if not _can_be_replayed(given) or any(one is not None and not one.numel() for one in given):
            return self.module(*given)
        device = next(one.device for one in given if one is not None)
        small = torch.get_autocast_dtype(device.type) if autocast(device) else None
        shapes = [None if one is None else (one.shape, one.dtype, one.device) for one in given]
        key = (self.owner.training, small, torch_precision(), *shapes)
        kept, weights = (
            self.graphs.get(key),
            [one.data_ptr() for one in (*self.owner.parameters(), *self.owner.buffers())],
        )
        if kept is None or kept.weights != weights:
            with _for_later():
                kept = self._captured(given, weights)
            self.graphs[key] = kept
            if len(self.graphs) > self.most:
                self.graphs.popitem(last=False)
        self.graphs.move_to_end(key)
        for place, one in zip(kept.given, given, strict=True):
            if place is not None:
                place.copy_(one)
        kept.graph.replay()
        return _copied(kept.found)

    def _captured(self, given: tuple[Any, ...], weights: list[int]) -> _Graph:
        places = tuple(None if one is None else one.clone(memory_format=torch.contiguous_format) for one in given)
        cuda: Any = torch.cuda
        device = next(one.device for one in places if one is not None)
        with cuda.device(device):
            stream = cuda.Stream()
            stream.wait_stream(cuda.current_stream())
            with cuda.stream(stream):  # kernels are compiled, and what they keep is made
                for _ in range(2):
                    self.module(*places)
            cuda.current_stream().wait_stream(stream)
            graph = cuda.CUDAGraph()
            with cuda.graph(graph):
                found = self.module(*places)
        return _Graph(graph, places, found, weights)


def _can_be_replayed(given: tuple[Any, ...]) -> bool:
    tensors = [one for one in given if one is not None]
    plain = all(type(one) in (Tensor, nn.Parameter) and not one.is_nested and one.is_cuda for one in tensors)
    if not (plain and tensors) or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return not torch.cuda.is_current_stream_capturing()  # in which no graph can be started


@contextmanager
def _for_later() -> Generator[None]:
    """A capture may be replayed later than what it began in.

    Outside of inference mode its tensors could not be written, and autocast's copies of the weights are gone when
    autocast ends; they are not those of weights that were changed in place, either.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)


def _copied(found: Any) -> Any:
    if isinstance(found, Tensor):
        return found.clone()
    return tuple(_copied(one) for one in found) if type(found) is tuple else copy.deepcopy(found)  # pyright: ignore[reportUnknownVariableType]
