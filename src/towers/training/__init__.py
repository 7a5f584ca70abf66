"""Training: fit a model to sentence pairs, go on with a run, measure, predict.

>>> from towers import TwoTowers
>>> from towers.data import sample_pairs
>>> from towers.training import Epoch, History, Predictor, evaluate, fit, predict
>>> model, pairs = TwoTowers(), sample_pairs(20)
>>> history: History = fit(model, pairs, epochs=1, progress=False)
>>> last: Epoch = history.epochs[-1]
>>> sorted(last.train)
['accuracy', 'auc', 'loss']
>>> sorted(evaluate(model, pairs, progress=False))
['accuracy', 'auc', 'loss']
>>> predict(model, pairs, progress=False).shape
torch.Size([20])
>>> Predictor(model, pairs.vectors)(pairs).shape
torch.Size([20])
"""

from towers.training.fitting import evaluate, fit, predict
from towers.training.history import Epoch, History
from towers.training.prediction import Predictor

__all__ = ["Epoch", "History", "Predictor", "evaluate", "fit", "predict"]
