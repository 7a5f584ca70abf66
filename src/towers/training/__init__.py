"""Training: fit a model to sentence pairs, go on with a run, measure, predict."""

from towers.training.fitting import evaluate, fit, predict
from towers.training.history import Epoch, History
from towers.training.prediction import Predictor

__all__ = ["Epoch", "History", "Predictor", "evaluate", "fit", "predict"]
