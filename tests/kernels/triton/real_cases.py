"""The cases that a GPU runs at real sizes; `test_rounding` checks on the CPU that float32 can compute them."""

import random

from .cases import Case


def random_lengths(seed: int, batch: int, longest: int) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.choice([0, 1, longest, draw.randint(0, longest)]) for _ in range(batch))


SIZES = {
    f"hidden {hidden}, {'padded' if gaps else 'end to end'}": Case(
        hidden, random_lengths(hidden, 70, 60), 8, gaps=gaps, state=True, precision="tf32x3",
        options={"bidirectional": gaps, "bias": "single"}, contractive=True,
    )
    for hidden in (1, 3, 6, 8, 9, 16, 17, 32, 33, 64, 65, 100, 128)
    for gaps in (False, True)
}  # fmt: skip


def drawn(seed: int) -> Case:
    draw = random.Random(seed)
    hidden = draw.choice([1, 2, 3, 5, 6, 7, 8, 9, 13, 16, 17, 24, 32, 33, 48, 64, 90, 128])
    options = {
        "num_layers": draw.choice([1, 1, 2]),
        "bidirectional": draw.random() < 0.5,
        "bias": draw.choice([True, False, "single"]),
    }
    return Case(
        hidden,
        random_lengths(seed, draw.randint(1, 20), draw.choice([1, 5, 20])),
        draw.choice([1, 4, 8, 9, 30]),
        gaps=draw.random() < 0.5,
        state=draw.random() < 0.5,
        outputs=draw.random() < 0.7,
        precision="tf32x3",
        options=options,
        contractive=True,
    )
