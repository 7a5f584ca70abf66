"""A whole tower, or two with their head, in one call of a kernel: the same results as their layers in less time.

The layers are the definition, and they run wherever no kernel does: where a layer has a forward hook or was replaced,
where tensors are traced, wrapped or transformed, and where sizes do not fit (then their contracts say what is
wrong). In a compiled graph a tower on the CPU is the operation `towers::tower`, and a pair `towers::pair`,
which make the same calls. What the kernels gain is in the rows "towers, vectors" and "towers, ids" of
`python benchmarks/run.py tower`.

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
from towers.kernels.cpu import door, pair_operator, tower_call, tower_operator
from towers.kernels.cpu.door import PairWeights, TowerWeights, Words
from towers.kernels.order import offsets_of
from towers.layers.eager_triton import tower_states
from towers.layers.lstm import RaggedLSTM
from towers.layers.pair_head import PairFeatures
from towers.layers.phrases import FEW_TOKENS, PhraseConv
from towers.layers.pool import FeaturePool
from towers.layers.shift_add import add_neighbours
from towers.layers.triton_tower import pooled_features
from towers.ragged import Ragged

Backend = Literal["native", "triton", "torch"]
Layers = tuple[PhraseConv, FeaturePool, RaggedLSTM]
_everywhere: Any = all_modules  # its hooks listen to every module


def has_forward_hooks(*layers: nn.Module) -> bool:
    """Whether a layer must be called itself: it has a forward hook (as a contract by `attach` is), or was replaced.

    Backward hooks do not count: torch calls them for tensors only, and a layer gives the next one a Ragged.
    """
    if _everywhere._global_forward_hooks or _everywhere._global_forward_pre_hooks:
        return True
    for layer in layers:
        kept = layer.__dict__
        if kept["_forward_hooks"] or kept["_forward_pre_hooks"] or "forward" in kept:
            return True
    return False


def _has_backward_hooks(*layers: nn.Module) -> bool:
    """Whether a layer that takes and gives tensors has a backward hook."""
    if _everywhere._global_backward_hooks or _everywhere._global_backward_pre_hooks:
        return True
    return any(layer.__dict__["_backward_hooks"] or layer.__dict__["_backward_pre_hooks"] for layer in layers)


def last_states(tower: nn.Module, sentences: Tensor | Ragged, lengths: Tensor | None) -> Tensor | None:
    """The last state of each sentence, by kernels; None where the layers must be called."""
    if torch.compiler.is_compiling():
        states = _compiled(tower, sentences, lengths)
        return _by_triton(tower, sentences, lengths) if states is None else states
    if _on_device(tower.__dict__["_modules"]["conv"]):
        states = _eager_triton(tower, sentences, lengths)
        return _by_triton(tower, sentences, lengths) if states is None else states
    found = _native(tower)
    if found is None:
        return _by_triton(tower, sentences, lengths)
    weights, tensors = found
    gradients = torch.is_grad_enabled()
    words = _words(tower.__dict__["_modules"]["conv"], sentences, lengths, weights, gradients)
    if words is None:
        return _by_triton(tower, sentences, lengths)
    if gradients and any(one.requires_grad for one in (words.rows, *tensors)):
        return tower_call.differentiable_states(words, weights, tower.__dict__["accepted"], tensors, states_again)
    return tower_call.states(words, weights)


def logits(
    model: nn.Module,
    left: Tensor | Ragged, right: Tensor | Ragged, left_lengths: Tensor | None, right_lengths: Tensor | None,
    forward: object,
) -> Tensor | None:  # fmt: skip
    """The logits of pairs; None where the towers and layers must be called.

    The model has the towers `left` and `right`, whose own `forward` this stands for, the layers `pair_features`,
    `dropout`, `dense_dropout`, `word_dropout`, `dense` and `logit`, and `accepted`.
    """
    compiling = torch.compiler.is_compiling()
    if not compiling and not door.plain():
        return None
    layers: dict[str, Any] = model.__dict__["_modules"]
    one, other = layers["left"], layers["right"]
    kinds: list[Any] = [type(one), type(other)]
    if kinds[0].forward is not forward or kinds[1].forward is not forward:
        return None
    of_left, of_right, of_head = _layers(one), _layers(other), _head_layers(model, layers)
    if of_left is None or of_right is None or of_head is None:
        return None
    if _are_watched(one, other, *of_left, *of_right, *of_head):
        return None
    gradients = torch.is_grad_enabled()
    if gradients and _has_backward_hooks(one, other, *of_head):
        return None
    tensors = _pair_tensors(of_left, of_right, of_head)
    if tensors is None:
        return None
    if (left_lengths is not None and one.words is not None) or (right_lengths is not None and other.words is not None):
        return None  # the tower's own contract says which lengths it takes
    if compiling:
        return _compiled_pair(of_left, of_right, tensors, (left, left_lengths), (right, right_lengths))
    accepted = model.__dict__["accepted"]
    weights = door.pair_weights(accepted, tensors, of_left[1].size, of_right[1].size)
    first = None if weights is None else _words(of_left[0], left, left_lengths, weights.left, gradients)
    second = None
    if weights is not None and first is not None:
        second = _words(of_right[0], right, right_lengths, weights.right, gradients)
    if weights is None or first is None or second is None:
        return None
    if gradients and any(one.requires_grad for one in (first.rows, second.rows, *tensors)):
        return tower_call.differentiable_logits(first, second, weights, accepted, tensors, logits_again)
    return tower_call.logits(first, second, weights)


def _head_layers(model: nn.Module, layers: dict[str, Any]) -> tuple[PairFeatures, nn.Linear, nn.Linear] | None:
    """What stands behind the towers, if it is the difference and two dense layers."""
    features, dense, logit = layers["pair_features"], layers["dense"], layers["logit"]
    for name in ("dropout", "dense_dropout", "word_dropout"):
        layer = layers.get(name)
        if layer is not None and (model.training or layer.training or has_forward_hooks(layer)):
            return None
    if type(features) is not PairFeatures or features.features != ("difference",):
        return None
    return (features, dense, logit) if type(dense) is nn.Linear and type(logit) is nn.Linear else None


def _pair_tensors(of_left: Layers, of_right: Layers, of_head: tuple[nn.Module, ...]) -> tuple[Tensor, ...] | None:
    """The weights of the layers, as PairWeights has them."""
    left, right = _tensors(of_left), _tensors(of_right)
    _, dense, logit = [layer.__dict__["_parameters"] for layer in of_head]
    if left is None or right is None:
        return None
    try:
        return *left, *right, dense["weight"], dense["bias"], logit["weight"], logit["bias"]
    except KeyError:  # pruned, or reparametrized
        return None


def _layers(tower: nn.Module) -> Layers | None:
    """The layers of a tower, if they are those that the kernels stand for."""
    kept: dict[str, Any] = tower.__dict__
    if kept["has_other_parts"] or kept["chunk"] is not None:
        return None
    layers: dict[str, Any] = kept["_modules"]
    conv, pool, lstm = layers["conv"], layers["pool"], layers["lstm"]
    if type(conv) is not PhraseConv or type(pool) is not FeaturePool or type(lstm) is not RaggedLSTM:
        return None
    return (conv, pool, lstm) if lstm.recurrent_activation == "sigmoid" else None


def _are_watched(*layers: nn.Module) -> bool:
    """Whether one of these layers must be called itself, or a proof or autocast wants to see their operations."""
    if has_forward_hooks(*layers):
        return True
    return bool(switch.proofs and switch.interceptor is not None) or torch.is_autocast_enabled("cpu")


def backend(tower: nn.Module, sentences: Tensor | Ragged) -> Backend:
    """Which code runs these sentences: C on the CPU, Triton on a GPU, or the layers themselves ("torch")."""
    if _by_triton_served(tower, sentences):
        return "triton"
    found, conv = _native(tower), tower.__dict__["_modules"]["conv"]
    if found is None or _words(conv, sentences, None, found[0], torch.is_grad_enabled()) is None:
        return "torch"
    return "native"


# In C, on the CPU.


def _compiled(tower: Any, sentences: Tensor | Ragged, lengths: Tensor | None) -> Tensor | None:
    """As one operation of a graph that is compiled; in one that is exported, only where it has a place."""
    layers = _layers(tower) if tower_operator.has_place() and not transformed() else None
    if layers is None or _are_watched(*layers):
        return None
    tensors = _tensors(layers)
    given = None if tensors is None else _plain_sentences(layers[0], sentences)
    if tensors is None or given is None or not tower_operator.serves(tensors, layers[1].size):
        return None
    return tower_operator.tower(*given, lengths, *tensors, layers[1].size)


def _compiled_pair(
    of_left: Layers, of_right: Layers, tensors: tuple[Tensor, ...],
    left: tuple[Tensor | Ragged, Tensor | None], right: tuple[Tensor | Ragged, Tensor | None],
) -> Tensor | None:  # fmt: skip
    """The same for a pair."""
    if not tower_operator.has_place() or transformed():
        return None
    one, other = _plain_sentences(of_left[0], left[0]), _plain_sentences(of_right[0], right[0])
    pools = of_left[1].size, of_right[1].size
    if one is None or other is None or not pair_operator.serves_pair(tensors, *pools):
        return None
    return pair_operator.pair(*one, left[1], *other, right[1], list(tensors), *pools)


def _plain_sentences(conv: PhraseConv, sentences: Tensor | Ragged) -> tuple[Tensor, Tensor | None] | None:
    """Vectors on the CPU, padded or beside offsets, as the operations take them."""
    offsets = None
    if isinstance(sentences, Ragged):
        words = sentences.vectors()
        sentences, offsets = words.values, words.offsets
    if sentences.is_nested or sentences.device.type != "cpu" or conv.product_dtype is not None:
        return None
    return (sentences, offsets) if sentences.dtype == conv.weight.dtype else None


def _native(tower: nn.Module) -> tuple[TowerWeights, tuple[Tensor, ...]] | None:
    """The weights of a tower whose layers need not be called, if this is eager code."""
    layers = _layers(tower) if door.plain() else None
    if layers is None or _are_watched(*layers):
        return None
    tensors = _tensors(layers)
    weights = None if tensors is None else door.tower_weights(tower.__dict__["accepted"], tensors, layers[1].size)
    return None if tensors is None or weights is None else (weights, tensors)


def _tensors(layers: Layers) -> tuple[Tensor, ...] | None:
    """The weights of the layers, as TowerWeights has them."""
    of_conv: dict[str, Any] = layers[0].__dict__["_parameters"]
    of_lstm: dict[str, Any] = layers[2].__dict__["_parameters"]
    if len(of_lstm) != 3:  # one layer and direction, one bias, no projection; or pruned
        return None
    try:
        return (of_conv["weight"], of_conv["bias"],
                of_lstm["weight_ih_l0"], of_lstm["weight_hh_l0"], of_lstm["bias_ih_l0"])  # fmt: skip
    except KeyError:
        return None


def _words(
    conv: PhraseConv, sentences: Tensor | Ragged, lengths: Tensor | None, weights: TowerWeights, gradients: bool
) -> Words | None:
    """The sentences for the C code: vectors, or shares of ids and of products in another dtype.

    Of a few ids, the vectors are read in the table: `FEW_TOKENS` says why, unless `gradients` may be wanted.
    """
    product_dtype = conv.__dict__["product_dtype"]
    if type(sentences) is Ragged:
        if lengths is not None:
            return None
        ragged = sentences
    elif isinstance(sentences, Tensor) and not sentences.is_nested:
        if product_dtype is None:
            return door.padded(sentences, lengths, weights)
        ragged = to_ragged(sentences, lengths, keep_ids=True)
    elif lengths is not None:
        return None
    else:
        ragged = to_ragged(sentences, lengths, keep_ids=True)
    rows, table, ids = ragged.values, ragged.table, None
    if not rows.is_cpu:
        return None
    shares = product_dtype is not None or table is not None
    if table is not None and product_dtype is None and not gradients and rows.shape[0] <= FEW_TOKENS:
        rows, ids, shares = table, rows, False
    elif shares:
        rows, ids = conv.shares(ragged)
    return door.ragged(rows, ids, ragged.offsets, ragged.uniform, weights, shares)


# The same in torch's own operations, where gradients need gradients or come in batches.


def states_again(
    words: Words, weights: TowerWeights, rows: Tensor, weight: Tensor, bias: Tensor, *of_lstm: Tensor
) -> Tensor:
    """The last states of `words`, whose rows are given again, as the weights are."""
    ids, offsets, kernel_words = words.ids, words.offsets, weights.shape[0]
    if not words.shares:
        product = rows.flatten(0, -2) @ weight.flatten(0, 1).t()
        rows = product.unflatten(1, weights.shape[:2])
    if words.lengths is not None:
        real = torch.arange(words.span) < words.lengths.unsqueeze(1)
        ids, offsets = real.flatten().nonzero().squeeze(1), offsets_of(words.lengths)
    uniform = words.span if offsets is None else None
    offsets = torch.arange(words.batch + 1) * words.span if offsets is None else offsets
    tokens = torch.arange(words.tokens) if ids is None else ids
    starts, offsets = Ragged.unchecked(tokens, offsets, uniform).runs(kernel_words)
    phrases = add_neighbours(rows, bias, starts, ids)
    features = F.max_pool1d(phrases.unsqueeze(1), weights.pool).squeeze(1)
    zeros = features.new_zeros(1, words.batch, weights.hidden)
    batch, own = Batch(features, offsets[:-1], offsets.diff(), None), Weights(of_lstm, 1, False, 1, False, 0.0)
    return recurrence.run(batch, (zeros, zeros), own, outputs=False)[1][0][0]


def logits_again(
    left: Words, right: Words, weights: PairWeights, left_rows: Tensor, right_rows: Tensor, *tensors: Tensor
) -> Tensor:
    """The logits of pairs, as `states_again` gives the states."""
    one = states_again(left, weights.left, left_rows, *tensors[:5])
    other = states_again(right, weights.right, right_rows, *tensors[5:10])
    dense, dense_bias, logit, logit_bias = tensors[10:]
    return F.linear(F.relu(F.linear(one - other, dense, dense_bias)), logit, logit_bias).squeeze(1)


# In Triton, on a GPU.


def _on_device(conv: nn.Module) -> bool:
    weight: Tensor | None = conv.__dict__["_parameters"].get("weight")
    return weight is not None and weight.is_cuda


def _eager_triton(tower: nn.Module, sentences: Tensor | Ragged, lengths: Tensor | None) -> Tensor | None:
    layers = _layers(tower)
    if layers is None or _are_watched(*layers):
        return None
    return tower_states(layers, sentences, lengths)


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
