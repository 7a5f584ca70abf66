"""Tower and TwoTowers: the network, readable from top to bottom."""

from collections.abc import Mapping, Sequence
from math import isqrt
from os import PathLike
from types import NoneType
from typing import Any, Self, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from towers import checkpoint
from towers.contracts import contract
from towers.contracts.operations import operation
from towers.convert import to_ragged
from towers.kernels.batch import is_plain
from towers.kernels.cpu.door import Accepted
from towers.kernels.onnx_operator import checked_lengths, exporting_onnx
from towers.kernels.recurrence import Gates
from towers.layers import fused
from towers.layers.lstm import RaggedLSTM
from towers.layers.padded_tower import padded_states
from towers.layers.pair_head import Feature, PairFeatures, PairHead, logits_of, reset_dense
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.layers.step_pool import Reduce, over_steps
from towers.layers.validation import at_least_one, probability, refuse
from towers.layers.word_dropout import WordDropout
from towers.layers.word_features import WordFeatures
from towers.layers.word_map import WordMap
from towers.microbatch import WORKING_BYTES, slices
from towers.ragged import Ragged
from towers.sharing import Shareable

_takes_sentences = contract(
    where=(
        "batch >= 0",
        "words == {self.words}",
        "words >= {self.kernel_words}",
        "lengths == {self.words}",
        "{self.kernel_words} <= lengths <= words",
    ),
    dtype_of="weight",
)


class Tower(nn.Module):
    """Word vectors of a sentence -> phrases of neighbouring words -> pooled features -> last state of an LSTM.

    That is the network with which this package began, and the default. The arguments after `chunk` give it other parts:
    an LSTM in both directions, its largest states in place of the last one, no convolution, and features of single
    words beside it. A state is then [states of the LSTM, word maximum, word mean], `width` numbers.

    In Keras: `Conv2D(filters, (kernel_words, vector_width))`, `MaxPooling1D(pool, data_format="channels_first")`,
    `LSTM(hidden)`, with Keras's initial values.

    Args:
        words: the number of words that every sentence must have; None: any number of at least `kernel_words`.
        vector_width: the size of a word vector.
        kernel_words: the number of neighbouring words of a phrase; `steps` = words - kernel_words + 1.
        filters: the number of features of a phrase; None: no convolution and no pool, the LSTM reads the vectors
            (`kernel_words` is 1 then).
        pool: the size of the groups of features of which the largest is kept; the LSTM's input size is filters / pool.
        hidden: the LSTM's hidden size; None: no LSTM, `reduce` takes the pooled features, if there are any.
        chunk: the LSTM takes this number of steps at a time and carries its state on; None: all steps at once. The
            result is the same. Where `words` is an int, `chunk` must divide the steps; where it is None, the last chunk
            may be shorter.
        recurrent_activation: the function of the LSTM's gates, see RaggedLSTM; old networks of Keras have others.
        bidirectional: the LSTM reads each sentence in both directions, with weights for each.
        reduce: "last": the LSTM's state at the end of a sentence (of the second direction: at its beginning); "max" or
            "mean": over its states at all steps, see StepPool.
        word_map: the size of a trained linear map of the vectors, which all parts then read; None: no map.
        word_maximum: the units of the maximum over words of relu(W x + b), see WordFeatures; 0: none.
        word_mean: the units of the mean over words of W x + b; 0: none.

    Attributes:
        width: the size of a state: `hidden`, twice that in both directions, and the units of words.
        has_other_parts: whether it is another network than convolution, feature pool, and the last state of one LSTM.

    Raises:
        ValueError: a size is not an int of at least 1, `pool` does not divide `filters`, `words` is below
            `kernel_words`, `chunk` does not divide the steps, or an argument goes with a part that is not there.

    >>> import torch
    >>> from towers import Tower
    >>> tower = Tower(vector_width=5, filters=8, pool=2, hidden=3)
    >>> tower(torch.randn(2, 7, 5), lengths=torch.tensor([7, 4])).shape  # (batch, hidden)
    torch.Size([2, 3])
    """

    conv: PhraseConv  # None where `filters` is
    pool: FeaturePool  # the same
    lstm: RaggedLSTM  # None where `hidden` is

    def __init__(
        self,
        words: int | None = None,
        *,
        vector_width: int = 300,
        kernel_words: int = 2,
        filters: int | None = 32,
        pool: int = 4,
        hidden: int | None = 6,
        chunk: int | None = None,
        recurrent_activation: Gates = "sigmoid",
        bidirectional: bool = False,
        reduce: Reduce = "last",
        word_map: int | None = None,
        word_maximum: int = 0,
        word_mean: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        optional = {"words": words, "chunk": chunk, "filters": filters, "hidden": hidden, "word_map": word_map}
        beside = {"word_maximum": word_maximum, "word_mean": word_mean}
        given = {name: size for name, size in optional.items() if size is not None}
        given |= {name: size for name, size in beside.items() if size != 0}
        at_least_one(self, **given, vector_width=vector_width, kernel_words=kernel_words, pool=pool)
        kernel_words = self._checked_parts(kernel_words, filters, pool, hidden, chunk, bidirectional, reduce)
        if words is not None and words < kernel_words:
            refuse(self, f"words ({words}) must be at least kernel_words ({kernel_words})")
        if words is not None and chunk is not None and (words - kernel_words + 1) % chunk:
            steps = words - kernel_words + 1
            fitting = ", ".join(str(size) for size in range(1, steps + 1) if steps % size == 0)
            refuse(self, f"chunk ({chunk}) must divide steps ({steps} = words - kernel_words + 1): one of {fitting}")
        self.words, self.chunk = words, chunk
        self.accepted = Accepted()
        self.reduce: Reduce = reduce
        self.vector_width, self.kernel_words, self.hidden = vector_width, kernel_words, hidden or 0
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.word_map = None if word_map is None else WordMap(vector_width, word_map, **where)
        read = vector_width if word_map is None else word_map
        if filters is None:
            self.register_module("conv", None)
            self.register_module("pool", None)
        else:
            self.conv = PhraseConv(read, filters, kernel_words, **where)
            self.pool = FeaturePool(pool, filters=filters)
        steps_width = read if filters is None else self.pool.features
        if hidden is None:
            self.register_module("lstm", None)
        else:
            self.lstm = RaggedLSTM(steps_width, hidden, bias="single", bidirectional=bidirectional,
                                   recurrent_activation=recurrent_activation, **where)  # fmt: skip
            steps_width = self.lstm.output_width
        self.walks = hidden is not None or filters is not None
        if not self.walks and not (word_maximum or word_mean):
            refuse(self, "has no part: give filters, hidden, word_maximum or word_mean")
        self.word_maximum = WordFeatures(read, word_maximum, "max", **where) if word_maximum else None
        self.word_mean = WordFeatures(read, word_mean, "mean", **where) if word_mean else None
        self.width = steps_width * self.walks + word_maximum + word_mean
        self.has_other_parts = (
            None in (filters, hidden)
            or bidirectional
            or reduce != "last"
            or bool(word_map or word_maximum or word_mean)
        )
        self.reset_parameters()

    def _checked_parts(
        self, kernel_words: int, filters: int | None, pool: int, hidden: int | None, chunk: int | None,
        bidirectional: bool, reduce: str,
    ) -> int:  # fmt: skip
        """Refuse an argument of a part that is not there. Returns the number of words that the first part reads."""
        if reduce not in get_args(Reduce):
            refuse(self, f"reduce ({reduce!r}) must be one of {', '.join(map(repr, get_args(Reduce)))}")
        if chunk is not None and (bidirectional or reduce != "last" or hidden is None):
            refuse(self, f"chunk ({chunk}) goes with an LSTM in one direction and reduce='last'")
        if hidden is None and bidirectional:
            refuse(self, "bidirectional goes with an LSTM, and hidden is None")
        if filters is None:
            if kernel_words not in (1, 2) or pool not in (1, 4):  # 2 and 4 are the defaults
                refuse(self, f"kernel_words ({kernel_words}) and pool ({pool}) go with filters, which is None")
            return 1
        if filters % pool:
            refuse(self, f"pool ({pool}) must divide filters ({filters})")
        return kernel_words

    @property
    def weight(self) -> Tensor:
        """The first weights that read the vectors: their dtype is what the tower takes."""
        if self.word_map is not None:
            return self.word_map.linear.weight
        parts: tuple[Any, ...] = (self.conv, self.lstm)  # None where there is none
        if parts[0] is not None:
            return self.conv.weight
        words = self.word_maximum or self.word_mean
        return self.lstm.weight_ih_l0 if words is None else words.linear.weight

    def reset_parameters(self) -> None:
        """Keras's initial values: glorot-uniform kernels, orthogonal recurrence, biases 0, those of forget gates 1."""
        parts: tuple[Any, ...] = (self.word_map, self.conv, self.word_maximum, self.word_mean)
        for part in parts:
            if part is not None:
                part.reset_parameters()
        named = {} if not self.hidden else dict(self.lstm.named_parameters())
        for name, parameter in named.items():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            elif name.startswith("weight_hh"):
                exact = torch.promote_types(parameter.dtype, torch.float32)  # half precision has no QR
                drawn = nn.init.orthogonal_(torch.empty(parameter.shape, dtype=exact, device=parameter.device))
                with torch.no_grad():
                    parameter.copy_(drawn)
            else:
                nn.init.zeros_(parameter)
                with torch.no_grad():
                    parameter[self.hidden : 2 * self.hidden] = 1

    @_takes_sentences
    def forward(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch {self.width}"]:
        """The state of each sentence: by default the LSTM's at its end.

        Args:
            sentences: word vectors (batch, words, vector_width), padded on the right; or Ragged, or a jagged tensor.
            lengths: the number of real words of each padded sentence; None: all of them.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or the tower does not take this number of words.
            ValueError: the tower does not take one of the lengths.
        """
        states = None if self.has_other_parts else fused.last_states(self, sentences, lengths)
        if states is not None:
            return states
        if isinstance(sentences, Tensor) and exporting_onnx():
            lengths = None if lengths is None else checked_lengths(lengths, self.kernel_words, sentences.shape[1])
            return padded_states(self, sentences, lengths, self._padded_walk)
        padded = sentences if isinstance(sentences, Tensor) and not sentences.is_nested else None
        if lengths is None and padded is not None and self.words is None and torch.compiler.is_exporting():
            # Without lengths torch.export would ask for one word more: it takes a single step for a constant.
            lengths = torch.full(padded.shape[:1], padded.shape[1], device=padded.device)
        words = to_ragged(sentences, lengths, owner=self, keep_ids=True)
        if self.word_map is not None:
            words = self.word_map(words)
        states = [self._walk(self._steps(words))] if self.walks else []
        states += [part(words) for part in (self.word_maximum, self.word_mean) if part is not None]
        return states[0] if len(states) == 1 else torch.cat(states, 1)

    def _padded_walk(self, features: Tensor, steps: Tensor, outputs: bool) -> Tensor:
        """As `_walk`, for `padded_states`."""
        return self.lstm(features, lengths=steps)[0] if outputs else self.lstm.last(features, lengths=steps)

    def _steps(self, words: Ragged) -> Ragged:
        """What the LSTM reads: the pooled features of phrases, or the vectors themselves."""
        return words if self.conv is None else self.pool(self.conv(words))  # pyright: ignore

    def _fused_backend(self, sentences: Tensor | Ragged) -> fused.Backend:
        """The code that runs the whole tower in one call; "torch": the layers are called, one after the other."""
        return "torch" if self.has_other_parts else fused.backend(self, sentences)

    def _walk_shape(self, steps: Ragged) -> Tensor:
        """What `verify` runs in place of `_walk`: all steps at once end in the same state."""
        if not self.hidden or self.reduce != "last":
            return over_steps(self.lstm(steps)[0] if self.hidden else steps, self.reduce)
        ends = self.lstm(steps)[1][0]
        return torch.cat(list(ends.unbind()), 1) if self.lstm.bidirectional else ends[-1]

    @operation(_walk_shape)
    def _walk(self, steps: Ragged) -> Tensor:
        """One vector for each sentence: the LSTM's last h, `chunk` steps at a time, or what `reduce` says."""
        if not self.hidden or self.reduce != "last":
            return over_steps(self.lstm(steps)[0] if self.hidden else steps, self.reduce)
        state: tuple[Tensor, Tensor] | None = None
        *parts, end = steps.chunks(self.chunk)
        for part in parts:
            _, state = self.lstm(part, state)
        ends = self.lstm(end, state)[1][0] if fused.has_forward_hooks(self.lstm) else self.lstm.last(end, state)
        return torch.cat(list(ends.unbind()), 1) if self.lstm.bidirectional else ends[-1]

    @_takes_sentences
    def encode(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch {self.width}"]:
        """As `forward`, for any number of sentences: without gradients they are taken in slices.

        The slices keep the working memory at about 32 MB, and at most 64, beside the input, the output and the kept
        product of a table of vectors; a sentence is never cut. On a GPU with Triton there is one slice, which takes
        about 100 bytes a word.
        """
        if self._fused_backend(sentences) == "triton":
            return self(sentences, lengths)
        parts = list(slices(sentences, lengths, WORKING_BYTES // self._bytes_a_word()))
        return self(*parts[0]) if len(parts) == 1 else torch.cat([self(*part) for part in parts])

    def _bytes_a_word(self) -> int:
        """The working memory for each word."""
        phrases = 0 if self.conv is None else (self.kernel_words + 1) * self.conv.filters + self.pool.features  # pyright: ignore
        directions = 1 + (self.hidden > 0 and self.lstm.bidirectional)
        mapped = 0 if self.word_map is None else self.word_map.features
        numbers = self.vector_width + mapped + phrases + 12 * self.hidden * directions + 2 * self.width
        return numbers * self.weight.element_size() + 64

    def config(self) -> dict[str, Any]:
        """The arguments of another tower of the same sizes: `Tower(**tower.config())`."""
        parts: dict[str, Any] = {"conv": self.conv, "lstm": self.lstm}  # None where there is none
        conv, lstm = parts["conv"], parts["lstm"]
        usual = {"recurrent_activation": "sigmoid", "bidirectional": False, "reduce": "last", "word_map": None,
                 "word_maximum": 0, "word_mean": 0}  # fmt: skip
        other = {
            "recurrent_activation": lstm.recurrent_activation if lstm else "sigmoid",
            "bidirectional": bool(lstm and lstm.bidirectional),
            "reduce": self.reduce,
            "word_map": self.word_map and self.word_map.features,
            "word_maximum": self.word_maximum.features if self.word_maximum else 0,
            "word_mean": self.word_mean.features if self.word_mean else 0,
        }
        return {
            "words": self.words,
            "vector_width": self.vector_width,
            "kernel_words": self.kernel_words,
            "filters": conv and conv.filters,
            "pool": self.pool.size if conv else 1,
            "hidden": lstm and lstm.hidden_size,
            "chunk": self.chunk,
            **{name: value for name, value in other.items() if value != usual[name]},
        }

    def extra_repr(self) -> str:
        """For `repr`, what the layers do not say."""
        words = "any" if self.words is None else self.words
        return f"words={words}" + (f", chunk={self.chunk}" if self.chunk else "")


class TwoTowers(Shareable):
    """Two towers, one for each sentence of a pair; the difference of their states goes through two dense layers.

    In Keras: `Subtract()([left, right])`, `Dense(dense, "relu")`, `Dense(1)`; the sigmoid is in `probability`.

    Where the towers are one and `features` are symmetric ("absolute difference", "product"), so is the answer: a pair
    and the pair the other way round have the same logits (`symmetric`).

    Args:
        left: the tower of the first sentence; by default one for any number of words.
        right: the tower of the second sentence; by default one for exactly five words. `left` again: shared weights.
        dense: the number of units of the first dense layer.
        features: of the two states, what the first dense layer reads: see PairFeatures.
        outputs: the number of logits of a pair. 1: one number, without an axis. More: one for each class; or for each
            of some bins, neighbouring degrees from the lowest to the highest (Tai et al., 2015).
        dropout: the probability of dropout on the features, in training.
        dense_dropout: the same behind the first dense layer.
        word_dropout: the probability of dropout on word vectors, the same for a word in both sentences: see
            WordDropout.
        second: a head of its own on the same states, for a second label (entailment beside relatedness).

    Raises:
        ValueError: the towers' `width` differ, a tower is not a Tower, `dense` or `outputs` is not an int of at least
            1, a feature is unknown, a probability is not one, or `second` is for states of another width.

    >>> import torch
    >>> from towers import Tower, TwoTowers
    >>> model = TwoTowers(Tower(vector_width=5), Tower(words=5, vector_width=5))
    >>> model(torch.randn(2, 7, 5), torch.randn(2, 5, 5)).shape  # a logit for each pair
    torch.Size([2])
    """

    def __init__(
        self,
        left: Tower | None = None,
        right: Tower | None = None,
        *,
        dense: int = 16,
        features: Sequence[Feature] = ("difference",),
        outputs: int = 1,
        dropout: float = 0.0,
        dense_dropout: float = 0.0,
        word_dropout: float = 0.0,
        second: PairHead | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(self, dense=dense, outputs=outputs)
        probability(self, "dropout", dropout)
        probability(self, "dense_dropout", dense_dropout)
        probability(self, "word_dropout", word_dropout)
        for name, tower in (("left", left), ("right", right)):
            if not isinstance(tower, (Tower, NoneType)):  # pyright: ignore[reportUnnecessaryIsInstance]
                refuse(self, f"{name} ({tower!r}) must be a Tower, or None for the usual one")
        self.left = Tower(device=device, dtype=dtype) if left is None else left
        self.right = Tower(words=5, device=device, dtype=dtype) if right is None else right
        self.hidden = self.left.width
        if self.right.width != self.hidden:
            refuse(self, f"left.width ({self.hidden}) and right.width ({self.right.width}) must be equal")
        if second is not None and second.hidden != self.hidden:
            refuse(self, f"second is for states of {second.hidden} numbers; the towers' have {self.hidden}")
        if word_dropout and self.left.vector_width != self.right.vector_width:
            refuse(self, "word_dropout is for towers that read the same vectors; their vector_width differ")
        weight = self.left.weight
        device, dtype = device or weight.device, dtype or weight.dtype
        self.outputs = outputs
        self.word_dropout = WordDropout(word_dropout) if word_dropout else None
        self.pair_features = PairFeatures(self.hidden, features)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.dense = nn.Linear(self.pair_features.width, dense, device=device, dtype=dtype)
        self.dense_dropout = nn.Dropout(dense_dropout) if dense_dropout else None
        self.logit = nn.Linear(dense, outputs, device=device, dtype=dtype)
        self.second = second
        self.accepted = Accepted()
        reset_dense(self.dense, self.logit)

    @property
    def symmetric(self) -> bool:
        """Whether the logits of (a, b) are those of (b, a), whatever the weights."""
        return self.left is self.right and self.pair_features.symmetric

    @property
    def has_other_parts(self) -> bool:
        """Whether it is another network than two plain towers whose difference goes through two dense layers."""
        other_head = self.pair_features.features != ("difference",) or self.outputs != 1 or self.second is not None
        return other_head or self.left.has_other_parts or self.right.has_other_parts

    def reset_parameters(self) -> None:
        """Keras's initial values, in both towers and the dense layers."""
        for tower in dict.fromkeys((self.left, self.right)):
            tower.reset_parameters()
        reset_dense(self.dense, self.logit)
        if self.second is not None:
            self.second.reset_parameters()

    @contract(
        where=(
            "batch >= 0",
            "left_words >= {self.left.kernel_words}",
            "right_words >= {self.right.kernel_words}",
            "left_words == {self.left.words}",
            "right_words == {self.right.words}",
        )
    )
    def forward(
        self,
        left: Float[Tensor | Ragged, "batch left_words {self.left.vector_width}"],
        right: Float[Tensor | Ragged, "batch right_words {self.right.vector_width}"],
        left_lengths: Int[Tensor, "batch"] | None = None,
        right_lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch"] | Float[Tensor, "batch {self.outputs}"]:
        """A logit for each pair, or `outputs` of them.

        `left` and `left_lengths`, and `right` and `right_lengths`, are the arguments of `Tower.forward`.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or a tower does not take this number of words.
            ValueError: a tower does not take one of the lengths.
        """
        kind = type(self)
        if kind.compare is TwoTowers.compare and kind.states is TwoTowers.states:
            logits = fused.logits(self, left, right, left_lengths, right_lengths, Tower.forward)
            if logits is not None:
                return logits
        return self.compare(*self.states(left, right, left_lengths, right_lengths))

    def states(
        self,
        left: Tensor | Ragged,
        right: Tensor | Ragged,
        left_lengths: Tensor | None = None,
        right_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The states of both sentences of each pair, for both heads.

        `left_lengths` and `right_lengths`, and the errors, are those of `forward`.
        """
        if self.word_dropout is not None and self.training:
            left, right = self.word_dropout(left, right, left_lengths, right_lengths)
            left_lengths = right_lengths = None
        return self.left(left, left_lengths), self.right(right, right_lengths)

    @contract
    def probability(
        self,
        left: Float[Tensor | Ragged, "batch left_words {self.left.vector_width}"],
        right: Float[Tensor | Ragged, "batch right_words {self.right.vector_width}"],
        left_lengths: Int[Tensor, "batch"] | None = None,
        right_lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch"] | Float[Tensor, "batch {self.outputs}"]:
        """The sigmoid of `forward`, which is the network's output in Keras; of several outputs their softmax.

        `left_lengths` and `right_lengths`, and the errors, are those of `forward`.
        """
        logits = self(left, right, left_lengths, right_lengths)
        return torch.sigmoid(logits) if self.outputs == 1 else logits.softmax(-1)

    @contract
    def encode_left(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.left.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch {self.hidden}"]:
        """The states of left sentences of these `lengths`, by `Tower.encode`, for `compare`.

        It raises the errors of `Tower.forward`.
        """
        return self.left.encode(sentences, lengths)

    @contract
    def encode_right(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.right.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch {self.hidden}"]:
        """The states of right sentences of these `lengths`, by `Tower.encode`, for `compare`.

        It raises the errors of `Tower.forward`.
        """
        return self.right.encode(sentences, lengths)

    @property
    def head_weight(self) -> Tensor:
        """The weights that read the features of a pair: their dtype is what `compare` takes.

        A dense layer that `torch.ao.quantization.quantize_dynamic` made has none, and reads what the towers give.
        """
        weight = self.dense.weight
        return weight if isinstance(weight, Tensor) else self.left.weight  # pyright: ignore[reportUnnecessaryIsInstance]

    @contract(dtype_of="head_weight")
    def compare(
        self,
        left_state: Float[Tensor, "*#leading {self.hidden}"],
        right_state: Float[Tensor, "*#leading {self.hidden}"],
    ) -> Float[Tensor, "*leading {self.outputs}"] | Float[Tensor, "*leading"]:
        """The logits of `left_state` and `right_state`; leading axes broadcast: (n, 1, hidden), (m, hidden) -> (n, m).

        Raises:
            ShapeContractError: a width is not `hidden`, or the leading axes do not broadcast.
        """
        features = self.pair_features(left_state, right_state)
        logits = logits_of(features, self.dropout, self.dense, self.dense_dropout, self.logit)
        return logits.squeeze(-1) if self.outputs == 1 else logits

    @contract(dtype_of="head_weight")
    def similarity(
        self,
        left_state: Float[Tensor, "lefts {self.hidden}"],
        right_state: Float[Tensor, "rights {self.hidden}"],
    ) -> Float[Tensor, "lefts rights"] | Float[Tensor, "lefts rights {self.outputs}"]:
        """The logits of every `left_state` with every `right_state`, by `compare`.

        Without gradients the memory beside the result is bounded.

        Raises:
            ShapeContractError: a width is not `hidden`.
        """
        if torch.is_grad_enabled() or not is_plain(left_state) or left_state.is_meta:
            return self.compare(left_state[:, None], right_state)
        of_a_pair = (self.pair_features.width + self.dense.out_features) * left_state.element_size()
        size = max(1, isqrt(WORKING_BYTES // of_a_pair))
        ends = () if self.outputs == 1 else (self.outputs,)
        result = left_state.new_empty(len(left_state), len(right_state), *ends)
        for left, rows in zip(left_state.split(size), result.split(size), strict=True):
            for right, block in zip(right_state.split(size), rows.split(size, 1), strict=True):
                block.copy_(self.compare(left[:, None], right))
        return result

    # On disk; `save_pretrained`, `push_to_hub` and `from_pretrained` are those of Shareable.

    def save(self, folder: str | PathLike[str], *, extra: Mapping[str, Any] | None = None) -> None:
        """Write config.json and model.safetensors to a folder; each file is written whole, then renamed.

        Args:
            folder: it is created if there is none; a model in it is replaced.
            extra: more entries for config.json, beside "model". The command reads "vectors" and "data".

        Raises:
            ImportError: safetensors is not installed.
            ValueError: `extra` has an entry "format" or "towers", which are written anyway; or the class has an
                `__init__` of its own that does not take what `load` would give it.
            OSError: the folder cannot be written.
        """
        sizes = self.sizes()
        head = {name: value for name, value in sizes.items() if name not in ("left", "right")}
        self.refuse_other_init(self.left, self.right, **head)
        checkpoint.write(folder, {**(extra or {}), "model": sizes}, self.own_weights())

    def own_weights(self) -> dict[str, Tensor]:
        """All weights by name, those of a shared tower once."""
        shared = self.right is self.left
        return {name: value for name, value in self.state_dict().items() if not (shared and name.startswith("right."))}

    def sizes(self) -> dict[str, Any]:
        """The entry "model" of config.json; `config` is a name in which Hugging Face's Trainer looks for its own."""
        right = "left" if self.right is self.left else self.right.config()
        return {"left": self.left.config(), "right": right, "dense": self.dense.out_features, **self._head_config()}

    def _head_config(self) -> dict[str, Any]:
        """The entries of a head that is not the usual one."""
        usual = {"features": ["difference"], "outputs": 1, "second": None}
        usual |= dict.fromkeys(("dropout", "dense_dropout", "word_dropout"), 0.0)
        own = {
            "features": list(self.pair_features.features),
            "outputs": self.outputs,
            "dropout": 0.0 if self.dropout is None else self.dropout.p,
            "dense_dropout": 0.0 if self.dense_dropout is None else self.dense_dropout.p,
            "word_dropout": 0.0 if self.word_dropout is None else self.word_dropout.p,
            "second": None if self.second is None else self.second.config(),
        }
        return {name: value for name, value in own.items() if value != usual[name]}

    @classmethod
    def load(cls, folder: str | PathLike[str], *, device: torch.device | str | None = None) -> Self:
        """A model that `save` wrote, on the CPU unless a device is given, in evaluation: without dropout.

        Before a training that goes on, call `train()`, as for a model of huggingface_hub; `towers.training.fit` does.

        Raises:
            ImportError: safetensors is not installed.
            FileNotFoundError: the folder or one of its two files is missing.
            ValueError: a file is damaged or of a newer format, has an unknown entry, the weights do not fit the sizes
                in config.json, or the folder holds an ensemble.
        """
        config, weights = checkpoint.read(folder)
        if isinstance(config.get("model"), dict) and "members" in config["model"]:
            raise ValueError(
                f"{folder}: holds an ensemble, which is several networks; towers.load(folder) loads it with its words, "
                "towers.ensemble.Ensemble.load(folder).each() gives its members, each a TwoTowers"
            )
        with checkpoint.explained(folder):
            model = cls.of_config(config["model"], weights).eval()
        return model if device is None else model.to(device)

    @classmethod
    def of_config(cls, sizes: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        """A model from its `sizes`, the entry "model" of config.json, and its `weights`.

        Errors are those of Tower, of TwoTowers and of torch's `load_state_dict`.
        """
        left = Tower(**sizes["left"], device="meta")
        shared = sizes["right"] == "left"
        right = left if shared else Tower(**sizes["right"], device="meta")
        head = {name: value for name, value in sizes.items() if name not in ("left", "right")}
        if head.get("second") is not None:
            head["second"] = PairHead(left.width, **head["second"], device="meta")
        model = cls(left, right, **head)
        again = {"right." + name[5:]: value for name, value in weights.items() if shared and name.startswith("left.")}
        model.load_state_dict({**weights, **again}, assign=True)  # each weight in the dtype in which it was saved
        return model


def need_network(model: object) -> None:
    """Check that something is a network, and not what `towers.load` returns, which has one.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(model, nn.Module):
        has_one = isinstance(getattr(model, "network", None), TwoTowers)
        raise TypeError(f"model is {type(model).__name__}, not TwoTowers{': give its network' if has_one else ''}")
