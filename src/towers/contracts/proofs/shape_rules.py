# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false
"""What torch cannot do on symbolic sizes: everything lies on meta, and some operations get a rule for their shapes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from towers.contracts.proofs import fast_meta, max_pool, packing, recurrent
from towers.contracts.proofs.symbols import Symbols

Rule = Callable[..., Any]

RULES: dict[Any, Rule] = {
    F.linear: fast_meta.linear,
    F.relu: fast_meta.relu,
    torch.relu: fast_meta.relu,
    torch.empty: fast_meta.empty,
    torch.zeros: fast_meta.empty,
    torch.empty_like: fast_meta.empty_like,
    torch.zeros_like: fast_meta.empty_like,
    Tensor.new_empty: fast_meta.new_empty,
    Tensor.new_zeros: fast_meta.new_empty,
    **dict.fromkeys((torch.unsqueeze, Tensor.unsqueeze), fast_meta.unsqueeze),
    **dict.fromkeys((torch.squeeze, Tensor.squeeze), fast_meta.squeeze),
    **dict.fromkeys((Tensor.t_, Tensor.transpose_, Tensor.swapaxes_, Tensor.swapdims_), fast_meta.forget),
    **dict.fromkeys((Tensor.squeeze_, Tensor.unsqueeze_, Tensor.as_strided_), fast_meta.forget),
    **dict.fromkeys((Tensor.resize_, Tensor.resize_as_, Tensor.set_), fast_meta.forget),
    torch.lstm: recurrent.lstm,
    torch.gru: recurrent.gru,
    torch.rnn_tanh: recurrent.rnn,
    torch.rnn_relu: recurrent.rnn,
    torch._pack_padded_sequence: packing.pack,  # pyright: ignore[reportPrivateImportUsage]
    torch._pad_packed_sequence: packing.pad,  # pyright: ignore[reportPrivateImportUsage]
    Tensor.__getitem__: packing.first_batch_size,
    F.max_pool1d: max_pool.max_pool1d,
    torch.max_pool1d: max_pool.max_pool1d,
    F.max_pool1d_with_indices: max_pool.max_pool1d_with_indices,
}
"""Each is called with the symbols of the run and the operation's own arguments; NotImplemented leaves it to torch."""


_READING = type(Tensor.shape.__get__)  # pyright: ignore[reportAttributeAccessIssue]
"""What reads an attribute of a tensor, such as its shape."""


class Rules(TorchFunctionMode):
    """While it is on, operations follow RULES, and nothing lies on another device than meta."""

    def __init__(self, symbols: Symbols) -> None:
        super().__init__()
        self.symbols = symbols

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if type(func) is _READING:  # most of all calls
            return func(*args)
        kwargs = dict(kwargs or {})
        rule = RULES.get(func)
        if rule is not None:
            result = rule(self.symbols, *args, **kwargs)
            if result is not NotImplemented:
                return result
        if func in (Tensor.cuda, Tensor.cpu, Tensor.pin_memory):
            return args[0]
        if func is Tensor.to:
            return _moved(*args, **kwargs)
        if "device" in kwargs or func in _device_constructors():
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _moved(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`Tensor.to` without the device."""
    kwargs.pop("device", None)
    other = kwargs.pop("other", None)
    dtypes = [each for each in args if isinstance(each, torch.dtype)]
    dtypes += [each.dtype for each in (*args, other) if isinstance(each, Tensor)]
    if dtypes:
        kwargs["dtype"] = dtypes[0]
    kwargs.pop("non_blocking", None)
    return Tensor.to(tensor, **kwargs) if kwargs else tensor
