"""Training: fit a model to sentence pairs, measure it, predict with it, save a run."""

from towers.training.fitting import evaluate, fit, predict
from towers.training.history import Epoch, History
from towers.training.saving import run_folder, save_run

__all__ = ["Epoch", "History", "evaluate", "fit", "predict", "run_folder", "save_run"]
