"""Tower and TwoTowers: the network, readable from top to bottom."""

from collections.abc import Mapping
from os import PathLike
from types import NoneType
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from towers import checkpoint
from towers.contracts import contract
from towers.contracts.operations import operation
from towers.convert import to_ragged
from towers.kernels.recurrence import Gates
from towers.layers import fused
from towers.layers.lstm import RaggedLSTM
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.layers.validation import at_least_one, refuse
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
    dtype_of="conv.weight",
)


class Tower(nn.Module):
    """Word vectors of a sentence -> phrases of neighbouring words -> pooled features -> last state of an LSTM.

    In Keras: `Conv2D(filters, (kernel_words, vector_width))`, `MaxPooling1D(pool, data_format="channels_first")`,
    `LSTM(hidden)`, with Keras's initial values.

    Args:
        words: the number of words that every sentence must have; None: any number of at least `kernel_words`.
        vector_width: the size of a word vector.
        kernel_words: the number of neighbouring words of a phrase; `steps` = words - kernel_words + 1.
        filters: the number of features of a phrase.
        pool: the size of the groups of features of which the largest is kept; the LSTM's input size is filters / pool.
        hidden: the LSTM's hidden size.
        chunk: the LSTM takes this number of steps at a time and carries its state on; None: all steps at once. The
            result is the same. Where `words` is an int, `chunk` must divide the steps; where it is None, the last chunk
            may be shorter.
        recurrent_activation: the function of the LSTM's gates, see RaggedLSTM; old networks of Keras have others.

    Raises:
        ValueError: a size is not an int of at least 1, `pool` does not divide `filters`, `words` is below
            `kernel_words`, or `chunk` does not divide the steps.

    >>> import torch
    >>> from towers import Tower
    >>> tower = Tower(vector_width=5, filters=8, pool=2, hidden=3)
    >>> tower(torch.randn(2, 7, 5), lengths=torch.tensor([7, 4])).shape  # (batch, hidden)
    torch.Size([2, 3])
    """

    def __init__(
        self,
        words: int | None = None,
        *,
        vector_width: int = 300,
        kernel_words: int = 2,
        filters: int = 32,
        pool: int = 4,
        hidden: int = 6,
        chunk: int | None = None,
        recurrent_activation: Gates = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        given = {name: size for name, size in {"words": words, "chunk": chunk}.items() if size is not None}
        sizes = {"vector_width": vector_width, "kernel_words": kernel_words, "filters": filters, "pool": pool}
        at_least_one(self, **given, **sizes, hidden=hidden)
        if filters % pool:
            refuse(self, f"pool ({pool}) must divide filters ({filters})")
        if words is not None and words < kernel_words:
            refuse(self, f"words ({words}) must be at least kernel_words ({kernel_words})")
        if words is not None and chunk is not None and (words - kernel_words + 1) % chunk:
            steps = words - kernel_words + 1
            fitting = ", ".join(str(size) for size in range(1, steps + 1) if steps % size == 0)
            refuse(self, f"chunk ({chunk}) must divide steps ({steps} = words - kernel_words + 1): one of {fitting}")
        self.words, self.chunk = words, chunk
        self.vector_width, self.kernel_words, self.hidden = vector_width, kernel_words, hidden
        self.conv = PhraseConv(vector_width, filters, kernel_words, device=device, dtype=dtype)
        self.pool = FeaturePool(pool, filters=filters)
        self.lstm = RaggedLSTM(self.pool.features, hidden, bias="single", recurrent_activation=recurrent_activation,
                               device=device, dtype=dtype)  # fmt: skip
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Keras's initial values: glorot-uniform kernels, orthogonal recurrence, biases 0, those of forget gates 1."""
        self.conv.reset_parameters()
        nn.init.xavier_uniform_(self.lstm.weight_ih_l0)
        recurrent = self.lstm.weight_hh_l0
        exact = torch.promote_types(recurrent.dtype, torch.float32)  # half precision has no QR
        with torch.no_grad():
            recurrent.copy_(nn.init.orthogonal_(torch.empty(recurrent.shape, dtype=exact, device=recurrent.device)))
        nn.init.zeros_(self.lstm.bias_ih_l0)
        with torch.no_grad():
            self.lstm.bias_ih_l0[self.hidden : 2 * self.hidden] = 1

    @_takes_sentences
    def forward(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch {self.hidden}"]:
        """The LSTM's state at the end of each sentence.

        Args:
            sentences: word vectors (batch, words, vector_width), padded on the right; or Ragged, or a jagged tensor.
            lengths: the number of real words of each padded sentence; None: all of them.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or the tower does not take this number of words.
            ValueError: the tower does not take one of the lengths.
        """
        states = fused.last_states(self._layers(), sentences, lengths)
        if states is not None:
            return states
        features = self.pool(self.conv(to_ragged(sentences, lengths, owner=self, keep_ids=True)))
        return self._walk(features)[-1]

    def _layers(self) -> fused.Layers:
        return fused.Layers(self.conv, self.pool, self.lstm, self.chunk)

    def _fused_backend(self, sentences: Tensor | Ragged) -> fused.Backend:
        """The code that runs the whole tower in one call; "torch": the layers are called, one after the other."""
        return fused.backend(self._layers(), sentences)

    def _walk_shape(self, features: Ragged) -> Tensor:
        """What `verify` runs in place of `_walk`: all steps at once end in the same state."""
        return self.lstm(features)[1][0]

    @operation(_walk_shape)
    def _walk(self, features: Ragged) -> Tensor:
        """The last h of each sentence, `chunk` steps at a time."""
        state: tuple[Tensor, Tensor] | None = None
        *parts, end = features.chunks(self.chunk)
        for part in parts:
            _, state = self.lstm(part, state)
        return self.lstm(end, state)[1][0] if fused.has_forward_hooks(self.lstm) else self.lstm.last(end, state)

    @_takes_sentences
    def encode(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch {self.hidden}"]:
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
        shares = (self.kernel_words + 1) * self.conv.filters
        numbers = self.vector_width + shares + self.pool.features + 12 * self.hidden
        return numbers * self.conv.weight.element_size() + 64

    def config(self) -> dict[str, Any]:
        """The arguments of another tower of the same sizes: `Tower(**tower.config())`."""
        gates = self.lstm.recurrent_activation
        return {
            "words": self.words,
            "vector_width": self.vector_width,
            "kernel_words": self.kernel_words,
            "filters": self.conv.filters,
            "pool": self.pool.size,
            "hidden": self.hidden,
            "chunk": self.chunk,
            **({} if gates == "sigmoid" else {"recurrent_activation": gates}),
        }

    def extra_repr(self) -> str:
        """For `repr`, what the layers do not say."""
        words = "any" if self.words is None else self.words
        return f"words={words}" + (f", chunk={self.chunk}" if self.chunk else "")


class TwoTowers(Shareable):
    """Two towers, one for each sentence of a pair; the difference of their states goes through two dense layers.

    In Keras: `Subtract()([left, right])`, `Dense(dense, "relu")`, `Dense(1)`; the sigmoid is in `probability`.

    Args:
        left: the tower of the first sentence; by default one for any number of words.
        right: the tower of the second sentence; by default one for exactly five words. `left` again: shared weights.
        dense: the number of units of the first dense layer.

    Raises:
        ValueError: the towers' `hidden` differ, a tower is not a Tower, or `dense` is not an int of at least 1.

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(self, dense=dense)
        for name, tower in (("left", left), ("right", right)):
            if not isinstance(tower, (Tower, NoneType)):  # pyright: ignore[reportUnnecessaryIsInstance]
                refuse(self, f"{name} ({tower!r}) must be a Tower, or None for the usual one")
        self.left = Tower(device=device, dtype=dtype) if left is None else left
        self.right = Tower(words=5, device=device, dtype=dtype) if right is None else right
        self.hidden = self.left.hidden
        if self.right.hidden != self.hidden:
            refuse(self, f"left.hidden ({self.hidden}) and right.hidden ({self.right.hidden}) must be equal")
        weight = self.left.conv.weight
        device, dtype = device or weight.device, dtype or weight.dtype
        self.dense = nn.Linear(self.hidden, dense, device=device, dtype=dtype)
        self.logit = nn.Linear(dense, 1, device=device, dtype=dtype)
        self._reset_head()

    def reset_parameters(self) -> None:
        """Keras's initial values, in both towers and both dense layers."""
        for tower in dict.fromkeys((self.left, self.right)):
            tower.reset_parameters()
        self._reset_head()

    def _reset_head(self) -> None:
        for layer in (self.dense, self.logit):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

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
    ) -> Float[Tensor, "batch"]:
        """A logit for each pair. Sentences and lengths are as in `Tower.forward`.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or a tower does not take this number of words.
            ValueError: a tower does not take one of the lengths.
        """
        return self.compare(self.left(left, left_lengths), self.right(right, right_lengths))

    @contract
    def probability(
        self,
        left: Float[Tensor | Ragged, "batch left_words {self.left.vector_width}"],
        right: Float[Tensor | Ragged, "batch right_words {self.right.vector_width}"],
        left_lengths: Int[Tensor, "batch"] | None = None,
        right_lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch"]:
        """The sigmoid of `forward`, which is the network's output in Keras. It raises the same errors."""
        return torch.sigmoid(self(left, right, left_lengths, right_lengths))

    @contract
    def encode_left(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.left.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch {self.hidden}"]:
        """The states of left sentences, by `Tower.encode`, for `compare`. It raises the errors of `Tower.forward`."""
        return self.left.encode(sentences, lengths)

    @contract
    def encode_right(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.right.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch {self.hidden}"]:
        """The states of right sentences, by `Tower.encode`, for `compare`. It raises the errors of `Tower.forward`."""
        return self.right.encode(sentences, lengths)

    @contract(dtype_of="dense.weight")
    def compare(
        self,
        left_state: Float[Tensor, "*#leading {self.hidden}"],
        right_state: Float[Tensor, "*#leading {self.hidden}"],
    ) -> Float[Tensor, "*leading"]:
        """The logits of states. Leading axes broadcast: (n, 1, hidden) and (m, hidden) give (n, m).

        Raises:
            ShapeContractError: a width is not `hidden`, or the leading axes do not broadcast.
        """
        return self.logit(F.relu(self.dense(left_state - right_state))).squeeze(-1)

    # On disk; `save_pretrained`, `push_to_hub` and `from_pretrained` are those of Shareable.

    def save(self, folder: str | PathLike[str], *, extra: Mapping[str, Any] | None = None) -> None:
        """Write config.json and model.safetensors to a folder; each file is written whole, then renamed.

        Args:
            folder: it is created if there is none; a model in it is replaced.
            extra: more entries for config.json, beside "model". The command reads "vectors" and "data".

        Raises:
            ImportError: safetensors is not installed.
            ValueError: `extra` has an entry "format" or "towers", which are written anyway.
            OSError: the folder cannot be written.
        """
        shared = self.right is self.left
        config = {
            "left": self.left.config(),
            "right": "left" if shared else self.right.config(),
            "dense": self.dense.out_features,
        }
        weights = {name: value for name, value in self.state_dict().items() if not (shared and "right." in name)}
        checkpoint.write(folder, {**(extra or {}), "model": config}, weights)

    @classmethod
    def load(cls, folder: str | PathLike[str], *, device: torch.device | str | None = None) -> Self:
        """A model that `save` wrote, on the CPU unless a device is given.

        Raises:
            ImportError: safetensors is not installed.
            FileNotFoundError: the folder or one of its two files is missing.
            ValueError: a file is damaged or of a newer format, has an unknown entry, or the weights do not fit the
                sizes in config.json.
        """
        config, weights = checkpoint.read(folder)
        with checkpoint.explained(folder):
            sizes = config["model"]
            left = Tower(**sizes["left"], device="meta")
            shared = sizes["right"] == "left"
            right = left if shared else Tower(**sizes["right"], device="meta")
            model = cls(left, right, dense=sizes["dense"])
            if shared:
                weights |= {"right." + name[5:]: value for name, value in weights.items() if name.startswith("left.")}
            model.load_state_dict(weights, assign=True)  # each weight in the dtype in which it was saved
        return model if device is None else model.to(device)
