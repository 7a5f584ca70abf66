"""What torch cannot do on symbolic sizes: everything lies on meta, and some operations get a rule for their shapes."""

from collections.abc import Callable
from types import FunctionType, MethodWrapperType
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]

from towers.contracts.proofs import (
    axis_rules,
    drawn_rules,
    elementwise_rules,
    fast_meta,
    image_rules,
    layer_rules,
    product_rules,
    split_parts,
    value_rules,
)
from towers.contracts.proofs.flow import Flow
from towers.contracts.proofs.overlaps import WRITES, refuse_overlaps
from towers.contracts.proofs.symbols import Symbols
from towers.contracts.proofs.time_limit import ask

Rule = Callable[..., Any]

RULES: dict[Any, Rule] = {
    **elementwise_rules.RULES,
    **axis_rules.RULES,
    **product_rules.RULES,
    **image_rules.RULES,
    **split_parts.RULES,
    F.linear: fast_meta.linear,
    torch.empty: fast_meta.empty,
    torch.zeros: fast_meta.empty,
    torch.empty_like: fast_meta.empty_like,
    torch.zeros_like: fast_meta.empty_like,
    Tensor.new_empty: fast_meta.new_empty,
    Tensor.new_zeros: fast_meta.new_empty,
    Tensor.contiguous: fast_meta.contiguous,
    **dict.fromkeys((torch.unsqueeze, Tensor.unsqueeze), fast_meta.unsqueeze),
    **dict.fromkeys((torch.squeeze, Tensor.squeeze), fast_meta.squeeze),
    **dict.fromkeys((Tensor.t_, Tensor.transpose_, Tensor.swapaxes_, Tensor.swapdims_), fast_meta.forget),
    **dict.fromkeys((Tensor.squeeze_, Tensor.unsqueeze_, Tensor.as_strided_), fast_meta.forget),
    **dict.fromkeys((Tensor.resize_, Tensor.resize_as_, Tensor.set_), fast_meta.forget),
    torch.lstm: layer_rules.lstm,
    torch.gru: layer_rules.gru,
    torch.rnn_tanh: layer_rules.rnn,
    torch.rnn_relu: layer_rules.rnn,
    torch._pack_padded_sequence: layer_rules.pack,  # pyright: ignore[reportPrivateUsage]
    torch._pad_packed_sequence: layer_rules.pad,  # pyright: ignore[reportPrivateUsage]
    **drawn_rules.RULES,
    F.max_pool1d: layer_rules.max_pool1d,
    torch.max_pool1d: layer_rules.max_pool1d,
    F.scaled_dot_product_attention: layer_rules.attention,
    F.max_pool1d_with_indices: layer_rules.max_pool1d_with_indices,
    Tensor.__bool__: value_rules.either,
    torch.linspace: value_rules.linspace,
    torch.triu_indices: value_rules.upper,
    torch.tril_indices: value_rules.lower,
    F.one_hot: value_rules.one_hot,
    **dict.fromkeys((torch.tensor, torch.as_tensor), value_rules.tensor_of),
    **dict.fromkeys((torch.cov, torch.corrcoef, Tensor.cov, Tensor.corrcoef), value_rules.cov),
    **dict.fromkeys((torch.topk, Tensor.topk), value_rules.topk),
    torch.full_like: value_rules.full_like,
    torch.full: value_rules.full,
    F.ctc_loss: value_rules.ctc_loss,
    torch.ctc_loss: value_rules.ctc_loss,
    torch._nested_tensor_from_mask_left_aligned: value_rules.not_left_aligned,  # pyright: ignore
}
"""Each is called with the symbols of the run and the operation's own arguments; NotImplemented leaves it to torch."""


def _never(tensors: object) -> bool:
    return False


def _seen_through(function: FunctionType) -> FunctionType:
    """A function of torch that does not ask a mode to run it: the mode sees what it calls, and rules serve that."""
    own: dict[str, Any] = {**function.__globals__, "has_torch_function": _never}
    copied = FunctionType(function.__code__, own, function.__name__, function.__defaults__, function.__closure__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


SEEN_THROUGH: dict[Any, Rule] = {
    each: _seen_through(cast(FunctionType, each)) for each in (F.multi_head_attention_forward,)
}
"""Functions of many steps that torch gives to a mode as one."""

_MAKING = cast(set[Any], _device_constructors())
"""The functions that make a tensor on the default device."""


class OnDevice(TorchFunctionMode):
    """While it is on, nothing lies on another device than this one, whatever the code asks for."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.placed(func, args, dict(kwargs or {}))

    def placed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A call without the devices that it names."""
        if func in (Tensor.cuda, Tensor.cpu, Tensor.pin_memory):
            return args[0]
        if func is Tensor.to:
            return _moved(*args, **kwargs)
        if "device" in kwargs or func in _MAKING:
            kwargs["device"] = self.device
        return func(*args, **kwargs)


class Rules(OnDevice):
    """While it is on, operations follow RULES, nothing lies on another device than meta, and `flow` gets results."""

    def __init__(self, symbols: Symbols, flow: Flow | None = None) -> None:
        super().__init__("meta")
        self.symbols, self.flow = symbols, flow or Flow()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if type(func) is MethodWrapperType:  # reads an attribute such as the shape, as most calls do
            result = func(*args)
        else:
            ask()
            try:
                result = self.ruled(func, args, dict(kwargs or {}))
            except Exception:
                self.symbols.failing = True
                raise
        self.flow.result(result, args, kwargs)
        return result

    def ruled(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The result of an operation."""
        if self.symbols.parted and split_parts.any_parts(args, kwargs):
            with self:
                return split_parts.joined(self.symbols, func, args, kwargs)
        if func in SEEN_THROUGH:
            with self:
                return SEEN_THROUGH[func](*args, **kwargs)
        if func in WRITES or func is Tensor.__setitem__:
            refuse_overlaps(func, args)
        rule = RULES.get(func)
        if rule is not None:
            result = rule(self.symbols, *args, **kwargs)
            if result is not NotImplemented:
                return result
        return self.placed(func, args, kwargs)


def _moved(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`Tensor.to` without the device."""
    kwargs.pop("device", None)
    other = kwargs.pop("other", None)
    dtypes = [each for each in args if isinstance(each, torch.dtype)]
    dtypes += [each.dtype for each in (*args, other) if isinstance(each, Tensor)]
    if dtypes:
        kwargs["dtype"] = dtypes[0]
    kwargs.pop("non_blocking", None)
    if kwargs == {"dtype": tensor.dtype}:
        return tensor
    return Tensor.to(tensor, **kwargs) if kwargs else tensor
