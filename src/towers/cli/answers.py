"""Why an LSTM takes any input shape, or so it seemed: the questions, what there is to say, and what comes of trying."""

from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import Any, NamedTuple

import torch

from towers.layers.lstm import RaggedLSTM
from towers.model import Tower, TwoTowers

WIDTH = 96


class Answer(NamedTuple):
    """A question, what there is to say, and what came out when it was tried on this model."""

    question: str
    said: list[str]
    tried: list[str]


def answers(model: TwoTowers) -> Iterator[Answer]:
    """The questions of the network's author, answered for the sizes of this model."""
    lstm, filters, pool = model.left.lstm, model.left.conv.filters, model.left.pool.size
    width, hidden = lstm.input_size, lstm.hidden_size
    yield Answer(
        "Why does an LSTM accept any number of steps?",
        _said(
            f"""It is one cell, applied to one step after the other. Its weights know how wide a step is ({width}) and
            how many units it has ({hidden}): 4 x {hidden} x ({width} + {hidden} + 1). The number of steps stands
            nowhere among them."""
        ),
        [f"lstm(zeros(1, {steps}, {width})): the last state is {_state_shape(lstm, steps)}" for steps in (1, 4, 100)],
    )
    yield Answer(
        "What did `input_shape=` do?",
        _said(
            """Nothing. In Keras's functional API a layer takes its shape from the tensor that it is called on. Keras 2
            ignores the argument in silence, Keras 3 warns."""
        ),
        [],
    )
    yield Answer(
        f"Where does the width of {width} come from?",
        _said(
            f"""{filters} filters, of which the largest of every {pool} neighbours is kept: {filters} / {pool} =
            {width}. The pooling runs over the features of a step, never over the steps: that is what
            `channels_first` means for data that is (batch, steps, features)."""
        ),
        [],
    )
    yield _about_chunks(model)
    yield Answer(
        "And what happens now with a wrong width?",
        _said(f"The {filters} features before pooling, given to the LSTM that was made for {width}:"),
        [f"lstm(zeros(3, 16, {filters}))", *_refusal(lambda: lstm(torch.zeros(3, 16, filters)))],
    )


def _about_chunks(model: TwoTowers) -> Answer:
    tower = model.left if model.right.words is None else model.right
    words = tower.words or tower.kernel_words + 3
    steps = words - tower.kernel_words + 1
    fitting = [size for size in range(1, steps + 1) if steps % size == 0]
    wrong = next((size for size in range(2, steps) if steps % size), steps + 1)
    sentences = torch.rand(7, words, tower.vector_width, generator=torch.Generator().manual_seed(0))
    whole = _rebuilt(tower, words, None)(sentences)
    apart = max(float((_rebuilt(tower, words, size)(sentences) - whole).abs().max()) for size in fitting)
    return Answer(
        f"What would {_listed(fitting, 'and')} mean?",
        _said(
            f"""How many of its {steps} steps ({words} words, {tower.kernel_words} a phrase) the LSTM is fed at a time:
            `chunk`. It carries its state from one part to the next and ends in the same state."""
        ),
        [
            f"chunk={_listed(fitting, 'or')}: the states differ by {_at_most(apart)}",
            f"chunk={wrong}: {_refusal(lambda: _rebuilt(tower, words, wrong))[0]}",
        ],
    )


def _at_most(apart: float) -> str:
    """Nothing that hangs on the machine, as long as it is no more than float32's own error."""
    return "at most 1e-06" if apart <= 1e-6 else f"{apart:.0e}"


def _rebuilt(tower: Tower, words: int, chunk: int | None) -> Tower:
    """The same tower for exactly this number of words, walking its steps in chunks."""
    sizes: dict[str, Any] = {**tower.config(), "words": words, "chunk": chunk}
    other = Tower(**sizes)
    other.load_state_dict(tower.state_dict())
    return other.requires_grad_(False)


def _state_shape(lstm: RaggedLSTM, steps: int) -> str:
    with torch.no_grad():
        _, (h_n, _) = lstm(torch.zeros(1, steps, lstm.input_size, dtype=lstm.weight_ih_l0.dtype))
    return str(tuple(h_n[-1].shape))


def _refusal(call: Callable[[], object]) -> list[str]:
    """What a call that must fail says."""
    try:
        call()
    except (TypeError, ValueError) as error:
        return str(error).splitlines()
    raise AssertionError("this was meant to be refused")


def _said(text: str) -> list[str]:
    return wrap(" ".join(text.split()), WIDTH)


def _listed(sizes: list[int], word: str) -> str:
    *front, last = map(str, sizes)
    return f"{', '.join(front)} {word} {last}" if front else last
