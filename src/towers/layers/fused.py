"""A whole tower, or two with their head, in one call of a kernel: the same results as their layers in less time.

The layers are the definition, and they run wherever no kernel does: where somebody listens to a layer or has replaced
it, where tensors are traced, wrapped or transformed, and where sizes do not fit (then their contracts say what is
wrong). In a compiled graph a tower on the CPU is the operation `towers::tower`, which makes the same call. What the
kernels gain is in the rows "towers, vectors" and "towers, ids" of `python benchmarks/run.py tower`.

A tower is a module with the layers `conv`, `pool` and `lstm`, a number `chunk`, and `accepted`, the door's memory.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as all_modules

from towers.contracts.modes import switch
from towers.convert import to_ragged
from towers.kernels import Batch, Weights, recurrence, triton
from towers.kernels.batch import transformed
from towers.kernels.cpu import door, tower_autograd, tower_operator
from towers.kernels.order import offsets_of
from towers.layers.lstm import RaggedLSTM
from towers.layers.pair_head import PairFeatures
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.layers.shift_add import add_neighbours
from towers.layers.triton_tower import pooled_features
from towers.ragged import Ragged

Backend = Literal["native", "triton", "torch"]
_everywhere: Any = all_modules  # its hooks listen to every module


def has_forward_hooks(*layers: nn.Module) -> bool:
    """Whether a layer must be called itself: somebody listens to it (a contract by `attach` is a hook), or replaced it.

    Backward hooks do not count: torch calls them for tensors only, and a layer gives the next one a Ragged.
    """
    if _everywhere._global_forward_hooks or _everywhere._global_forward_pre_hooks:
        return True
    for layer in layers:
        kept = vars(layer)
        if kept["_forward_hooks"] or kept["_forward_pre_hooks"] or "forward" in kept:
            return True
    return False


def last_states(tower: nn.Module, sentences: Tensor | Ragged, lengths: Tensor | None) -> Tensor | None:
    """The last state of each sentence, by kernels; None where the layers must be called."""
    if torch.compiler.is_compiling():
        states = _compiled(tower, sentences, lengths)
        return _by_triton(tower, sentences, lengths) if states is None else states
    found = _native(tower)
    if found is None:
        return _by_triton(tower, sentences, lengths)
    weights, tensors = found
    taken = _words(tower, sentences, lengths, weights)
    if taken is None:
        return _by_triton(tower, sentences, lengths)
    words, shares = taken
    if torch.is_grad_enabled() and any(one.requires_grad for one in (words.rows, *tensors)):
        again = _Again(words, shares, weights)
        return tower_autograd.states(words, weights, shares, vars(tower)["accepted"], tensors, again)
    return door.states(words, weights, shares)


def logits(
    model: nn.Module,
    left: Tensor | Ragged, right: Tensor | Ragged, left_lengths: Tensor | None, right_lengths: Tensor | None,
    forward: object,
) -> Tensor | None:  # fmt: skip
    """The logits of pairs without gradients; None where the towers and layers must be called.

    The model has the towers `left` and `right`, whose own `forward` this stands for, the layers `pair_features`,
    `dropout`, `word_dropout`, `dense` and `logit`, and `accepted`.
    """
    if torch.is_grad_enabled():
        return None
    layers = vars(model)["_modules"]
    one, other, features, dense, logit = [layers[name] for name in ("left", "right", "pair_features", "dense", "logit")]
    kinds: list[Any] = [type(one), type(other)]
    if any(kind.forward is not forward for kind in kinds):
        return None
    for name in ("dropout", "word_dropout"):
        layer = layers.get(name)
        if layer is not None and (model.training or layer.training or has_forward_hooks(layer)):
            return None
    if type(features) is not PairFeatures or features.features != ("difference",):
        return None
    if type(dense) is not nn.Linear or type(logit) is not nn.Linear:
        return None
    if has_forward_hooks(one, other, features, dense, logit):
        return None
    of_left, of_right = _native(one), _native(other)
    if of_left is None or of_right is None:
        return None
    kept = vars(dense)["_parameters"], vars(logit)["_parameters"]
    try:
        tensors = tuple([of[name] for of in kept for name in ("weight", "bias")])
    except KeyError:  # pruned, or reparametrized
        return None
    head = door.head_weights(vars(model)["accepted"], tensors, of_left[0].dtype)
    if head is None:
        return None
    first, second = _words(one, left, left_lengths, of_left[0]), _words(other, right, right_lengths, of_right[0])
    if first is None or second is None:
        return None
    return door.logits(first[0], of_left[0], first[1], second[0], of_right[0], second[1], head)


def _are_usual(tower: nn.Module) -> bool:
    """Whether the layers are those that the kernels stand for, and none of them must be called itself."""
    kept: dict[str, Any] = vars(tower)
    if kept["has_other_parts"] or kept["chunk"] is not None:
        return False
    layers: dict[str, Any] = kept["_modules"]
    conv, pool, lstm = layers["conv"], layers["pool"], layers["lstm"]
    if type(conv) is not PhraseConv or type(pool) is not FeaturePool or type(lstm) is not RaggedLSTM:
        return False
    if has_forward_hooks(conv, pool, lstm) or lstm.recurrent_activation != "sigmoid":
        return False
    return not ((switch.proofs and switch.interceptor is not None) or torch.is_autocast_enabled("cpu"))


def backend(tower: nn.Module, sentences: Tensor | Ragged) -> Backend:
    """Which code runs these sentences: C on the CPU, Triton on a GPU, or the layers themselves ("torch")."""
    if _by_triton_served(tower, sentences):
        return "triton"
    found = _native(tower)
    return "torch" if found is None or _words(tower, sentences, None, found[0]) is None else "native"


# In C, on the CPU.


def _compiled(tower: Any, sentences: Tensor | Ragged, lengths: Tensor | None) -> Tensor | None:
    """As one operation of the compiled graph, and None in an exported program, whose graph has operations of torch."""
    if torch.compiler.is_exporting() or transformed() or not _are_usual(tower):
        return None
    conv: PhraseConv = tower.conv
    lstm: RaggedLSTM = tower.lstm
    if len(vars(lstm)["_parameters"]) != 3 or conv.product_dtype is not None:  # as in `_native`
        return None
    if conv.weight.device.type != "cpu":
        return None
    tensors = (conv.weight, conv.bias, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0)
    offsets = None
    if isinstance(sentences, Ragged):
        words = sentences.vectors()
        sentences, offsets = words.values, words.offsets
    if sentences.is_nested or sentences.device.type != "cpu" or sentences.dtype != conv.weight.dtype:
        return None
    if not tower_operator.serves(tensors, tower.pool.size):
        return None
    return tower_operator.tower(sentences, offsets, lengths, *tensors, tower.pool.size)


def _native(tower: nn.Module) -> tuple[door.TowerWeights, tuple[Tensor, ...]] | None:
    """The weights of a tower whose layers need not be called, if this is eager code."""
    if not door.plain() or not _are_usual(tower):
        return None
    kept: dict[str, Any] = vars(tower)
    layers: dict[str, nn.Module] = kept["_modules"]
    of_conv: dict[str, Any] = vars(layers["conv"])["_parameters"]
    of_lstm: dict[str, Any] = vars(layers["lstm"])["_parameters"]
    if len(of_lstm) != 3:  # one layer and direction, one bias, no projection; or pruned
        return None
    try:
        tensors = (of_conv["weight"], of_conv["bias"],
                   of_lstm["weight_ih_l0"], of_lstm["weight_hh_l0"], of_lstm["bias_ih_l0"])  # fmt: skip
    except KeyError:
        return None
    weights = door.tower_weights(kept["accepted"], tensors, vars(layers["pool"])["size"])
    return None if weights is None else (weights, tensors)


def _words(
    tower: nn.Module, sentences: Tensor | Ragged, lengths: Tensor | None, weights: door.TowerWeights
) -> tuple[door.Words, bool] | None:
    """The sentences for the C code, and whether they are shares."""
    conv: PhraseConv = vars(tower)["_modules"]["conv"]
    padded = sentences if isinstance(sentences, Tensor) and not sentences.is_nested else None
    if padded is not None and conv.product_dtype is None:
        words, shares = door.padded(padded, lengths, weights), False
    elif lengths is not None and padded is None:
        return None
    else:
        ragged = to_ragged(sentences, lengths, keep_ids=True)
        rows, ids, shares = ragged.values, None, ragged.table is not None or conv.product_dtype is not None
        if not ragged.values.is_cpu:
            return None
        if shares:
            rows, ids = conv.shares(ragged)
        words = door.ragged(rows, ids, ragged.offsets, ragged.uniform, weights, shares)
    return None if words is None else (words, shares)


class _Again:
    """The same states in torch's own operations, where gradients need gradients or come in batches."""

    def __init__(self, words: door.Words, shares: bool, weights: door.TowerWeights) -> None:
        self.words, self.shares, self.weights = words._replace(rows=words.rows.detach()), shares, weights

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor, *of_lstm: Tensor) -> Tensor:
        _, ids, offsets, lengths, count, span, tokens, _ = self.words
        kernel_words, filters, _ = self.weights.shape
        if not self.shares:
            product = rows.flatten(0, -2) @ weight.flatten(0, 1).t()
            rows = product.unflatten(1, (kernel_words, filters))
        if lengths is not None:
            real = torch.arange(span) < lengths.unsqueeze(1)
            ids, offsets = real.flatten().nonzero().squeeze(1), offsets_of(lengths)
        uniform = span if offsets is None else None
        offsets = torch.arange(count + 1) * span if offsets is None else offsets
        tokens = torch.arange(tokens) if ids is None else ids
        starts, offsets = Ragged.unchecked(tokens, offsets, uniform).runs(kernel_words)
        phrases = add_neighbours(rows, bias, starts, ids)
        features = F.max_pool1d(phrases.unsqueeze(1), self.weights.own.pool).squeeze(1)
        zeros = features.new_zeros(1, count, self.weights.hidden)
        own = Weights(of_lstm, 1, False, 1, False, 0.0)
        return recurrence.run(Batch(features, offsets[:-1], offsets.diff(), None), (zeros, zeros), own, outputs=False)[
            1
        ][0][0]


# In Triton, on a GPU.


def _by_triton_served(tower: Any, sentences: Tensor | Ragged) -> bool:
    conv, pool = tower.conv, tower.pool
    if (
        type(conv) is not PhraseConv
        or type(pool) is not FeaturePool
        or (switch.proofs and switch.interceptor is not None)
    ):
        return False
    if has_forward_hooks(conv, pool, tower.lstm):
        return False
    if isinstance(sentences, Ragged):
        vectors = sentences.values if sentences.table is None else sentences.table
    elif sentences.is_nested:
        if sentences.layout is not torch.jagged:
            return False
        vectors = sentences.values()
    else:
        vectors = sentences
    return triton.serves_phrases(vectors, conv.weight, pool.size) and vectors.device == conv.weight.device


def _by_triton(tower: Any, sentences: Tensor | Ragged, lengths: Tensor | None) -> Tensor | None:
    padded = isinstance(sentences, Tensor) and not sentences.is_nested
    if (lengths is not None and not padded) or not _by_triton_served(tower, sentences):
        return None
    batch, count = pooled_features(tower.conv, tower.pool, sentences, lengths)
    return tower.lstm.run_batch(batch, count, outputs=False)[1][0][-1]
