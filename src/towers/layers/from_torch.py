"""An nn.LSTM's weights into a RaggedLSTM, and back: sizes, values, what is frozen, and parametrizations."""

import copy
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from towers.contracts.errors import complaint
from towers.layers.drop_in import DropIn

L = TypeVar("L", bound=nn.RNNBase)

SIZES = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")


def from_torch(kind: type[L], lstm: nn.LSTM, bias: object) -> L:
    """See `RaggedLSTM.from_torch`."""
    place = f"{kind.__name__}.from_torch"
    if not isinstance(lstm, nn.LSTM):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(complaint(place, f"lstm is a {type(lstm).__name__}; expected an nn.LSTM"))
    if type(lstm).forward is not nn.LSTM.forward:
        problem = f"lstm is a {type(lstm).__name__}, whose own forward would be lost; expected nn.LSTM's"
        raise ValueError(complaint(place, problem))
    kept = lstm.bias if bias is None else bias
    if bool(kept) != lstm.bias:
        raise ValueError(complaint(place, f"bias ({bias!r}) does not fit an nn.LSTM with bias={lstm.bias}"))
    return _filled(kind, lstm, kept, place)


def to_torch(lstm: DropIn) -> nn.LSTM:
    """See `RaggedLSTM.to_torch`."""
    return _filled(nn.LSTM, lstm, bool(lstm.bias), f"{type(lstm).__name__}.to_torch")


def _filled(kind: type[L], lstm: nn.RNNBase, bias: object, place: str) -> L:
    """An LSTM of a kind with the sizes and weights of another one."""
    sizes = {name: getattr(lstm, name) for name in SIZES} | {"bias": bias, "dropout": 0.0}
    made: Any = cast(Any, kind)(**sizes, device="meta")
    made.dropout = lstm.dropout  # not by the constructor, which would warn a second time
    parametrized: Any = lstm.parametrizations if parametrize.is_parametrized(lstm) else {}
    source = copy.deepcopy(lstm) if parametrized else lstm  # to read a parametrization may change its state
    for name in list(dict(made.named_parameters())):
        parts = _parts(lstm, made, name)
        if len(parts) == 2 and any(part in parametrized for part in parts):
            raise ValueError(complaint(place, f"{name} is parametrized: two biases of which one is cannot be summed"))
        setattr(made, name, _parameter(source, parts, place, getattr(made, name).shape))
    if parametrized:
        parametrize.transfer_parametrizations_and_params(source, made)
    made.flatten_parameters()
    if parametrized:
        made.parametrizations.load_state_dict(parametrized.state_dict())
    return made.train(lstm.training)


def _parts(lstm: nn.RNNBase, made: nn.RNNBase, name: str) -> list[str]:
    """The weights of the one whose sum is a weight of the other; none: it is zero."""
    one, two = "single", True
    if (lstm.bias, made.bias) == (two, one) and "bias" in name:
        return [name, name.replace("bias_ih", "bias_hh")]
    return [] if (lstm.bias, made.bias) == (one, two) and "bias_hh" in name else [name]


def _parameter(lstm: nn.RNNBase, parts: list[str], place: str, shape: torch.Size) -> nn.Parameter:
    found: list[Tensor] = []
    for part in parts:
        if part not in lstm._parameters and not parametrize.is_parametrized(lstm, part):  # pyright: ignore[reportPrivateUsage]
            problem = f"{part} is not a parameter (a hook such as weight_norm's makes it?): remove that first"
            raise ValueError(complaint(place, problem))
        found.append(getattr(lstm, part))
    if not found:
        like: Any = lstm.weight_ih_l0
        return nn.Parameter(like.new_zeros(shape), requires_grad=like.requires_grad)
    total = found[0].detach().clone() if len(found) == 1 else (found[0] + found[1]).detach()
    return nn.Parameter(total, requires_grad=any(part.requires_grad for part in found))
