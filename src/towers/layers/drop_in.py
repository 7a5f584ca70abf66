"""What nn.LSTM has beside `forward`: the attributes and calls that other people's code reads of it."""

from typing import Any

from torch import Tensor, nn

_plain: Any = nn.Module


class DropIn(nn.RNNBase):
    """An nn.RNNBase for code that looks for one, without the second list of weights that nn.RNNBase keeps.

    nn.RNNBase remembers its weights in `_flat_weights` and follows changes of them by name. Here every call reads the
    attributes themselves, so that whatever replaces a weight (pruning, a parametrization, weight drop,
    `functional_call`, a replica) is seen, and nothing has to be kept up to date.
    """

    mode: str
    bias: Any  # True, False or "single"; nn.RNNBase says bool

    def __init__(self) -> None:
        nn.Module.__init__(self)  # not nn.RNNBase's, which would make parameters of its own
        self.mode = "LSTM"

    def names(self) -> list[list[str]]:
        """nn.LSTM's parameter names, a list for each layer and direction."""
        kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self.bias is True else [])]
        kinds += ["bias_ih"] if self.bias == "single" else []
        kinds += ["weight_hr"] if self.proj_size else []
        directions = ["", "_reverse"][: 1 + self.bidirectional]
        return [
            [f"{kind}_l{layer}{direction}" for kind in kinds]
            for layer in range(self.num_layers)
            for direction in directions
        ]

    @property
    def _all_weights(self) -> list[list[str]]:
        return self.names()

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self.names() for name in names]

    @property
    def _flat_weights(self) -> tuple[Tensor | None, ...]:
        """The weights in use, in nn.LSTM's order: a tuple, as nothing written into it would have an effect."""
        return tuple(getattr(self, name, None) for name in self._flat_weights_names)

    def flatten_parameters(self) -> None:
        """Do nothing: there is no cuDNN block to keep the weights in."""

    # As any module does it; nn.RNNBase would keep its list up to date.
    __setattr__ = _plain.__setattr__
    _apply = _plain._apply
    _replicate_for_data_parallel = _plain._replicate_for_data_parallel
    __setstate__ = _plain.__setstate__

    def __getstate__(self) -> dict[str, Any]:
        """What deepcopy and pickle keep."""
        return self.__dict__.copy()
