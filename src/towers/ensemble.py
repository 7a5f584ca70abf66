"""Ensemble: several TwoTowers that answer together, saved as one folder."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from towers import checkpoint
from towers.layers.validation import refuse
from towers.model import TwoTowers
from towers.ragged import Ragged


class Ensemble(TwoTowers):
    """The mean of the probabilities of several models, as a model whose states are theirs side by side.

    Logits are those of the mean: their sigmoid, or of several outputs their softmax, is the mean of the members'.

    Args:
        members: models that take the same sentences and have the same outputs, such as those of several seeds.

    Raises:
        ValueError: there is no member, one stands there twice, or members differ in words, vector width or outputs.

    >>> import torch
    >>> from towers import TwoTowers
    >>> from towers.ensemble import Ensemble
    >>> model = Ensemble([TwoTowers(), TwoTowers()])
    >>> model(torch.randn(2, 7, 300), torch.randn(2, 5, 300)).shape, model.hidden
    (torch.Size([2]), 12)
    """

    def __init__(self, members: Sequence[TwoTowers]) -> None:
        nn.Module.__init__(self)
        if not members:
            refuse(self, "members is empty; at least one model belongs there")
        first = members[0]
        for place, member in enumerate(members):
            if _takes(member) != _takes(first):
                refuse(self, f"members[{place}] takes other sentences, or has other outputs, than members[0]")
            if (same := next(other for other, one in enumerate(members) if one is member)) < place:
                refuse(self, f"members[{place}] is members[{same}] again; a copy.deepcopy of it may be a member")
        self.members = nn.ModuleList(members)
        self.hidden = sum(member.hidden for member in members)
        self.outputs = first.outputs
        self.word_dropout = self.dropout = self.dense_dropout = None
        # What describes the sentences that are taken, and the head's sizes; not registered, for the members have them.
        vars(self).update(left=first.left, right=first.right, pair_features=first.pair_features, dense=first.dense)
        vars(self)["second"] = None if first.second is None else _Second(self)

    def each(self) -> list[TwoTowers]:
        """The members."""
        return [member for member in self.members if isinstance(member, TwoTowers)]

    def divided(self, states: Tensor) -> list[Tensor]:
        """The states of each member, from those side by side."""
        return list(states.split([member.hidden for member in self.each()], -1))

    def states(
        self,
        left: Tensor | Ragged,
        right: Tensor | Ragged,
        left_lengths: Tensor | None = None,
        right_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The states of both sentences of each pair, of all members side by side.

        `left`, `right`, `left_lengths` and `right_lengths`, and the errors, are those of `TwoTowers.forward`.
        """
        pairs = [member.states(left, right, left_lengths, right_lengths) for member in self.each()]
        lefts, rights = zip(*pairs, strict=True)
        return torch.cat(lefts, -1), torch.cat(rights, -1)

    def encode_left(self, sentences: Tensor | Ragged, lengths: Tensor | None = None) -> Tensor:
        """The states of left sentences of these `lengths`, by `TwoTowers.encode_left`, of all members side by side."""
        return torch.cat([member.encode_left(sentences, lengths) for member in self.each()], -1)

    def encode_right(self, sentences: Tensor | Ragged, lengths: Tensor | None = None) -> Tensor:
        """The states of right sentences of these `lengths`, by `TwoTowers.encode_right`, of all side by side."""
        return torch.cat([member.encode_right(sentences, lengths) for member in self.each()], -1)

    def compare(self, left_state: Tensor, right_state: Tensor) -> Tensor:
        """The logits of the mean of the members' probabilities, from `left_state` and `right_state`.

        The leading axes of the states broadcast, as in `TwoTowers.compare`.
        """
        sides = zip(self.each(), self.divided(left_state), self.divided(right_state), strict=True)
        return mean_logits([member.compare(left, right) for member, left, right in sides], self.outputs)

    @property
    def symmetric(self) -> bool:
        """Whether the logits of (a, b) are those of (b, a)."""
        return all(member.symmetric for member in self.each())

    @property
    def has_other_parts(self) -> bool:
        """An ensemble is another network than the usual one."""
        return True

    def reset_parameters(self) -> None:
        """The initial values of each member."""
        for member in self.each():
            member.reset_parameters()

    def save(self, folder: str | PathLike[str], *, extra: Mapping[str, Any] | None = None) -> None:
        """Write all members to one folder. `extra` and the errors are those of `TwoTowers.save`."""
        self.refuse_other_init(self.members)
        weights: dict[str, Tensor] = {}
        for place, member in enumerate(self.each()):
            own = member.own_weights()  # copies, as safetensors refuses what members share
            weights |= {f"members.{place}.{name}": value.clone() for name, value in own.items()}
        model = {"members": [member.sizes() for member in self.each()]}
        checkpoint.write(folder, {**(extra or {}), "model": model}, weights)

    @classmethod
    def load(cls, folder: str | PathLike[str], *, device: torch.device | str | None = None) -> Self:
        """An ensemble that `save` wrote to `folder`, in evaluation. Raises what `TwoTowers.load` does."""
        config, weights = checkpoint.read(folder)
        with checkpoint.explained(folder):
            members: list[TwoTowers] = []
            for place, sizes in enumerate(config["model"]["members"]):
                start = f"members.{place}."
                own = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
                members.append(TwoTowers.of_config(sizes, own))
            model = cls(members).eval()
        return model if device is None else model.to(device)


class _Second:
    """The second heads of the members as one; it has no weights of its own."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        heads = [member.second for member in ensemble.members if isinstance(member, TwoTowers)]
        self.outputs = 0 if heads[0] is None else heads[0].outputs

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        logits: list[Tensor] = []
        sides = zip(self.ensemble.members, self.ensemble.divided(left), self.ensemble.divided(right), strict=True)
        for member, one, other in sides:
            assert isinstance(member, TwoTowers)
            assert member.second is not None
            logits.append(member.second(one, other))
        return mean_logits(logits, self.outputs)


def mean_logits(logits: list[Tensor], outputs: int) -> Tensor:
    """Logits of the mean of the probabilities: sigmoids of one output, with or without an axis, else softmax."""
    every = torch.stack(logits)
    if outputs == 1:
        return F.logsigmoid(every).logsumexp(0) - F.logsigmoid(-every).logsumexp(0)
    return every.log_softmax(-1).logsumexp(0) - torch.tensor(float(len(logits))).log()


def load_network(folder: str | PathLike[str]) -> TwoTowers:
    """The model of a folder: a TwoTowers or an Ensemble. Raises what their `load` does."""
    model = checkpoint.read_config(folder).get("model")
    return Ensemble.load(folder) if isinstance(model, dict) and "members" in model else TwoTowers.load(folder)


def _takes(model: TwoTowers) -> tuple[Any, ...]:
    """What members must have in common."""
    sides = [(tower.words, tower.vector_width, tower.kernel_words) for tower in (model.left, model.right)]
    second = None if model.second is None else model.second.outputs
    return (*sides, model.left is model.right, model.outputs, second)
