"""Two-tower sentence models in which every tensor boundary is a written and enforced shape contract."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towers import contracts, data, export, keras, optim, scale, search, training
    from towers.answers import load
    from towers.contracts import ShapeContractError
    from towers.layers.lstm import RaggedLSTM
    from towers.layers.pair_head import PairFeatures, PairHead
    from towers.layers.phrases import PhraseConv
    from towers.layers.pool import FeaturePool
    from towers.layers.step_pool import StepPool
    from towers.layers.word_dropout import WordDropout
    from towers.layers.word_features import WordFeatures
    from towers.layers.word_map import WordMap
    from towers.model import Tower, TwoTowers
    from towers.ragged import Ragged

__all__ = [
    "FeaturePool",
    "PairFeatures",
    "PairHead",
    "PhraseConv",
    "Ragged",
    "RaggedLSTM",
    "ShapeContractError",
    "StepPool",
    "Tower",
    "TwoTowers",
    "WordDropout",
    "WordFeatures",
    "WordMap",
    "contracts",
    "data",
    "export",
    "keras",
    "load",
    "optim",
    "scale",
    "search",
    "training",
]

_HOME = {
    "FeaturePool": "towers.layers.pool",
    "PairFeatures": "towers.layers.pair_head",
    "PairHead": "towers.layers.pair_head",
    "PhraseConv": "towers.layers.phrases",
    "Ragged": "towers.ragged",
    "RaggedLSTM": "towers.layers.lstm",
    "ShapeContractError": "towers.contracts",
    "StepPool": "towers.layers.step_pool",
    "WordDropout": "towers.layers.word_dropout",
    "WordFeatures": "towers.layers.word_features",
    "WordMap": "towers.layers.word_map",
    "load": "towers.answers",
    "Tower": "towers.model",
    "TwoTowers": "towers.model",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for, so that `import towers` costs next to nothing (PEP 562)."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in __all__:
        return import_module(f"towers.{name}")
    raise AttributeError(f"module 'towers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
