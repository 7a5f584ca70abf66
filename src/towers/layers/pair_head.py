"""PairFeatures and PairHead: from the states of two sentences to the logits of the pair."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from towers.contracts import contract
from towers.layers.validation import at_least_one, probability, refuse

Feature = Literal["difference", "absolute difference", "product", "positive difference", "negative difference"]

_FEATURES: Mapping[Feature, Callable[[Tensor, Tensor], Tensor]] = {
    "difference": lambda u, v: u - v,
    "absolute difference": lambda u, v: (u - v).abs(),
    "product": lambda u, v: u * v,
    "positive difference": lambda u, v: F.relu(u - v),
    "negative difference": lambda u, v: F.relu(v - u),
}
SYMMETRIC = frozenset({"absolute difference", "product"})
"""Features that are the same for (u, v) and (v, u)."""


def reset_dense(*layers: nn.Linear) -> None:
    """Give dense layers Keras's initial values: glorot-uniform, zero biases."""
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def logits_of(
    features: Tensor, dropout: nn.Module | None, dense: nn.Linear, dense_dropout: nn.Module | None, logit: nn.Linear
) -> Tensor:
    """The logits of the features of a pair: dropout, a dense layer with relu, dropout, a linear layer."""
    if dropout is not None:
        features = dropout(features)
    units = F.relu(dense(features))
    return logit(units if dense_dropout is None else dense_dropout(units))


class PairFeatures(nn.Module):
    """Features of a pair from its two states u and v, side by side; it has no parameters.

    "difference" is u - v, "absolute difference" |u - v|, "product" u * v (both: Tai et al., 2015), "positive
    difference" relu(u - v) and "negative difference" relu(v - u).

    Args:
        hidden: the width of a state.
        features: which features, in this order.

    Attributes:
        width: the number of features, `hidden` for each name.
        symmetric: whether (u, v) and (v, u) have the same features.

    Raises:
        ValueError: there is no feature, one is unknown or stands there twice, or `hidden` is not an int of at least 1.

    >>> import torch
    >>> from towers import PairFeatures
    >>> features = PairFeatures(2, ("absolute difference", "product"))
    >>> features(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[2., 2., 3., 8.]])
    """

    def __init__(self, hidden: int = 6, features: Sequence[Feature] = ("difference",)) -> None:
        super().__init__()
        at_least_one(self, hidden=hidden)
        if isinstance(features, str):
            refuse(self, f"features ({features!r}) must be a tuple of names: ({features!r},)")
        self.hidden, self.features = hidden, tuple(features)
        if unknown := [name for name in self.features if name not in _FEATURES]:
            refuse(self, f"features has {unknown[0]!r}; known are {', '.join(map(repr, get_args(Feature)))}")
        if not self.features or len(set(self.features)) < len(self.features):
            refuse(self, f"features {self.features} must be at least one, each once")
        self.width = hidden * len(self.features)
        self.symmetric = set(self.features) <= SYMMETRIC

    @contract
    def forward(
        self,
        left_state: Float[Tensor, "*#leading {self.hidden}"],
        right_state: Float[Tensor, "*#leading {self.hidden}"],
    ) -> Float[Tensor, "*leading {self.width}"]:
        """The features of `left_state` and `right_state`, whose leading axes broadcast.

        Raises:
            ShapeContractError: a width is not `hidden`, or the leading axes do not broadcast.
        """
        parts = [_FEATURES[name](left_state, right_state) for name in self.features]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def extra_repr(self) -> str:
        """Its names, for `repr`."""
        return f"{self.hidden}, features={self.features}"


class PairHead(nn.Module):
    """Features of a pair -> a dense layer with relu -> logits: a head beside the first one of a TwoTowers.

    Args:
        hidden: the width of a state.
        features: of the pair, see PairFeatures.
        dense: the number of units of the dense layer.
        outputs: the number of logits, such as one for each class.
        dropout: the probability of dropout on the features, in training.
        dense_dropout: the same behind the dense layer.

    Raises:
        ValueError: a size is not an int of at least 1, a feature is unknown, or a dropout is no probability.

    >>> import torch
    >>> from towers import PairHead
    >>> PairHead(4, ("absolute difference", "product"), dense=7, outputs=3)(torch.randn(2, 4), torch.randn(2, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        hidden: int = 6,
        features: Sequence[Feature] = ("difference",),
        *,
        dense: int = 16,
        outputs: int = 1,
        dropout: float = 0.0,
        dense_dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(self, dense=dense, outputs=outputs)
        probability(self, "dropout", dropout)
        probability(self, "dense_dropout", dense_dropout)
        self.hidden, self.outputs = hidden, outputs
        self.pair_features = PairFeatures(hidden, features)
        self.dropout = nn.Dropout(dropout)
        self.dense_dropout = nn.Dropout(dense_dropout) if dense_dropout else None
        self.dense = nn.Linear(self.pair_features.width, dense, device=device, dtype=dtype)
        self.logit = nn.Linear(dense, outputs, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Keras's initial values: glorot-uniform, zero biases."""
        reset_dense(self.dense, self.logit)

    @contract(dtype_of="dense.weight")
    def forward(
        self,
        left_state: Float[Tensor, "*#leading {self.hidden}"],
        right_state: Float[Tensor, "*#leading {self.hidden}"],
    ) -> Float[Tensor, "*leading {self.outputs}"]:
        """The logits of `left_state` and `right_state`, whose leading axes broadcast.

        Raises:
            ShapeContractError: a width is not `hidden`, or the leading axes do not broadcast.
        """
        features = self.pair_features(left_state, right_state)
        return logits_of(features, self.dropout, self.dense, self.dense_dropout, self.logit)

    def config(self) -> dict[str, Any]:
        """The arguments of another head of the same sizes, beside `hidden`."""
        return {
            "features": list(self.pair_features.features),
            "dense": self.dense.out_features,
            "outputs": self.outputs,
            "dropout": self.dropout.p,
            **({} if self.dense_dropout is None else {"dense_dropout": self.dense_dropout.p}),
        }
