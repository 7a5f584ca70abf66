"""Cuts this folder's files out of what Keras wrote: python tests/keras_network/cut.py FOLDER_OF_KERAS

The inputs are no part of the cut. They come from one generator of numpy, and `inputs` draws them again.
"""

import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
WORDS = (2, 3, 4, 5, 7, 10, 33)
PARAMETERS = 39_313  # of the network: the generator drew them first
Arrays = dict[str, np.ndarray]


def inputs() -> tuple[Arrays, Arrays]:
    """Those of the cases, by `n{words}/left` and `n{words}/right`, and those of the training run."""
    numbers = np.random.default_rng(1)
    numbers.standard_normal(PARAMETERS)
    cases: Arrays = {}
    for words in WORDS:
        cases[f"n{words}/left"] = numbers.standard_normal((6, words, 300)).astype(np.float32)
        cases[f"n{words}/right"] = numbers.standard_normal((6, 5, 300)).astype(np.float32)
    training = {
        name: numbers.random((100, words, 300)).astype(np.float32) for name, words in (("left", 7), ("right", 5))
    }
    return cases, training


def checksum(arrays: Arrays) -> np.ndarray:
    """One number for the bytes of all of them."""
    return np.array(zlib.crc32(b"".join(array.tobytes() for _, array in sorted(arrays.items()))))


def read(folder: Path = FOLDER) -> tuple[Arrays, Arrays]:
    """The cases and the training run, inputs and what Keras made of them."""
    both: list[Arrays] = []
    for name, drawn in zip(("cases", "training"), inputs(), strict=True):
        with np.load(folder / f"{name}.npz") as file:
            outputs = dict(file)
        assert outputs.pop("checksum") == checksum(drawn), f"numpy {np.__version__} draws others: {name}'s inputs"
        both.append(drawn | outputs)
    return both[0], both[1]


def cut(source: Path, folder: Path = FOLDER) -> None:
    for name, drawn in zip(("cases", "training"), inputs(), strict=True):
        with np.load(source / f"{name}.npz") as file:
            arrays = dict(file)
        assert all(np.array_equal(array, arrays.pop(key)) for key, array in drawn.items())
        np.savez_compressed(folder / f"{name}.npz", checksum=checksum(drawn), **arrays)
    with (
        zipfile.ZipFile(source / "model.keras") as whole,
        zipfile.ZipFile(folder / "model.keras", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(zipfile.ZipInfo(name), whole.read(name), zipfile.ZIP_DEFLATED)
    trained = keras_files.read_layers(source / "model_after_training.keras")
    np.savez_compressed(folder / "model_after_training.npz", **trained)


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parent))
    from helpers import keras_files

    cut(Path(sys.argv[1]))
