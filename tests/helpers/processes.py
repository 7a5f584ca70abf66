"""What the processes of a training run, where a test starts several: train few pairs, and say what came of it.

python tests/helpers/processes.py [--end-in EPOCH] KEYWORD=VALUE …      the keywords of `fit`, values as in Python
"""

import ast
import json
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.helpers.small import forgetful_model, small_model, some_pairs

from towers import training


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    options = dict(argument.split("=", 1) for argument in arguments)
    values = {name: ast.literal_eval(value) for name, value in options.items()}
    end_in = values.pop("end_in", 0)
    model = forgetful_model() if values.pop("forgetful", False) else small_model()

    def on_epoch(epoch: training.Epoch) -> None:
        print(json.dumps({"epoch": epoch.number, "train": epoch.train, "dev": epoch.dev}), flush=True)
        if epoch.number == end_in:
            signal.raise_signal(signal.SIGTERM)

    # 41 pairs in eights: the last batch has one pair, and a process that has none of it.
    training.fit(
        model, some_pairs(41), some_pairs(23, seed=1), device="cpu", progress=False, on_epoch=on_epoch, **values
    )


if __name__ == "__main__":
    main(sys.argv[1:])
