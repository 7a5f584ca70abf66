"""Presets: networks and trainings that answer well, by name. What each reaches is in `benchmarks/answers.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from towers.layers.lstm import RaggedLSTM
from towers.layers.pair_head import Feature, PairHead
from towers.model import Tower, TwoTowers

DIRECTED: tuple[Feature, ...] = ("absolute difference", "product", "positive difference", "negative difference")
SYMMETRIC: tuple[Feature, ...] = ("absolute difference", "product")
_ADAMW: dict[str, Any] = {"optimizer": "adamw", "weight_decay": 1e-4, "final_lr": 1e-5, "batch_size": 32}
_BOTH_DIRECTIONS: dict[str, Any] = {
    "filters": None, "hidden": 100, "bidirectional": True, "reduce": "max", "word_maximum": 400,
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """One shared tower for any number of words, its head, and its training.

    Attributes:
        does: what it is for, in a sentence.
        tower: the arguments of Tower beside `vector_width`.
        features: of the two states, for the first head.
        dense: the units of each head's dense layer.
        settings: the options of `fit` that are not the usual ones.
        as_classes: whether labels are names of classes, even where they are numbers.
        dropout, dense_dropout, word_dropout: as of TwoTowers.
    """

    does: str
    tower: Mapping[str, Any]
    features: tuple[Feature, ...] = SYMMETRIC
    dense: int = 100
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    as_classes: bool = False
    dropout: float = 0.1
    dense_dropout: float = 0.0
    word_dropout: float = 0.05


PRESETS: Mapping[str, Preset] = {
    "similarity": Preset(
        "how alike two sentences are: an LSTM in both directions and the largest features of words, either way round",
        _BOTH_DIRECTIONS,
        settings={
            **_ADAMW,
            "lr": 2e-3,
            "epochs": 10,
            "average": 0.998,
            "correlation": 1.0,
            "smoothing": 0.05,
            "second_weight": 0.8,
            "dropout_samples": 8,
            "by_length": False,
        },
        dropout=0.4,
        dense_dropout=0.2,
    ),
    "entailment": Preset(
        "which of some classes a pair is of, where the order of the two sentences matters",
        _BOTH_DIRECTIONS,
        features=DIRECTED,
        settings={
            **_ADAMW,
            "lr": 2e-3,
            "epochs": 10,
            "average": 0.998,
            "keep_best": "last",
            "smoothing": 0.05,
            "by_length": False,
        },
        dropout=0.7,
        dense_dropout=0.2,
        as_classes=True,
    ),
    "small": Preset(
        "how alike the words of two sentences are: small and fast; word order plays no part in it",
        {"filters": None, "hidden": None, "word_maximum": 48, "word_mean": 32},
        dense=24,
        settings={**_ADAMW, "lr": 3e-3, "epochs": 32, "average": 0.998, "dropout_samples": 8},
        dropout=0.4,
    ),
    "seed-with-words": Preset(
        "how alike two sentences are: the original tower, its largest states, and the largest features of words",
        {"reduce": "max", "word_maximum": 24},
        settings={**_ADAMW, "lr": 3e-3, "epochs": 12},
        dropout=0.0,
        word_dropout=0.0,
    ),
}
"""Beside them "seed" is the network with which this package began: TwoTowers() as it is."""


def build(
    preset: Preset, *, vector_width: int, outputs: int = 1, second_outputs: int | None = None, seed: int = 0
) -> TwoTowers:
    """The network of a preset, with the initial weights of a seed.

    Its LSTM and dense layers begin with torch's initial values: on the dev pairs of SICK they did better than Keras's.

    Args:
        preset: one of PRESETS.
        vector_width: the size of a word vector.
        outputs: the logits of a pair: 1, or the number of bins or classes.
        second_outputs: the classes of a second label; None: there is none.
        seed: of the initial weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        tower = Tower(vector_width=vector_width, **preset.tower)
        second = None
        if second_outputs is not None:
            how: dict[str, Any] = {"dense": preset.dense, "outputs": second_outputs, "dropout": preset.dropout}
            second = PairHead(tower.width, DIRECTED, dense_dropout=preset.dense_dropout, **how)
        model = TwoTowers(
            tower,
            tower,
            dense=preset.dense,
            features=preset.features,
            outputs=outputs,
            dropout=preset.dropout,
            dense_dropout=preset.dense_dropout,
            word_dropout=preset.word_dropout,
            second=second,
        )
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | RaggedLSTM):
                module.reset_parameters()
        return model


def bins_of(label_range: tuple[float, float]) -> int:
    """The number of bins for degrees: one for each whole number of a range such as 1 to 5, else 5."""
    low, high = label_range
    span = high - low
    return int(span) + 1 if span == int(span) and 2 <= span <= 10 else 5
