"""Answers for tables of any size: one callable for many engines, runs that go on, and indexes in several files."""

from towers.scale.index_shards import Shards as Shards
from towers.scale.index_shards import merge as merge
from towers.scale.scorer import Scorer as Scorer
from towers.scale.scorer import loads as loads
from towers.scale.tasks import Encode as Encode
from towers.scale.tasks import Predict as Predict
from towers.scale.tasks import Search as Search

__all__ = ["Encode", "Predict", "Scorer", "Search", "Shards", "loads", "merge"]
