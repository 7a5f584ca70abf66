"""A small model and few pairs: what the tests of training share."""

import random

import torch
from torch import nn

from towers import Tower, TwoTowers
from towers.data import SentencePairs, WordVectors

WORDS = ("yes", "no", "well", "then", "now", "here")
WIDTH = 12


def vectors():
    return WordVectors(WORDS, torch.randn(len(WORDS), WIDTH, generator=torch.Generator().manual_seed(7)), source="test")


def some_pairs(count=60, *, seed=0, soft=False, labelled=True):
    """Sentences of 2 to 7 words and statements of five; true if the sentence begins with "yes", half with "no"."""
    numbers = random.Random(seed)
    left = [(numbers.choice(WORDS[:2]), *numbers.choices(WORDS[2:], k=numbers.randint(1, 6))) for _ in range(count)]
    right = [tuple(numbers.choices(WORDS[2:], k=5)) for _ in range(count)]
    truth = [float(sentence[0] == "yes") for sentence in left]
    labels = [0.1 + 0.7 * label + 0.02 * len(sentence) for label, sentence in zip(truth, left, strict=True)]
    return SentencePairs(left, right, (labels if soft else truth) if labelled else None).with_vectors(vectors())


def small_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"vector_width": WIDTH, "filters": 8, "pool": 2, "hidden": 3}
        return TwoTowers(Tower(**sizes), Tower(5, **sizes), dense=4)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_weights(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


class Forgetful(TwoTowers):
    """Towers with dropout, which draws from torch's random state."""

    def compare(self, left_state, right_state):
        return super().compare(nn.functional.dropout(left_state, 0.5, self.training), right_state)


def forgetful_model(seed=0):
    base = small_model(seed)
    model = Forgetful(base.left, base.right, dense=4)
    model.load_state_dict(base.state_dict())
    return model


RESULTS = ["config.json", "curves.png", "metrics.json", "model.safetensors"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())
