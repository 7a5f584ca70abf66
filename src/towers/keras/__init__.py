"""Networks in files of Keras <-> TwoTowers, without Keras. Nothing in a file is run, imported or unpickled."""

# What needs numpy is imported where it is used: the names are there without the extra "keras".

from collections.abc import Mapping
from os import PathLike

from torch import nn

from towers.model import TwoTowers
from towers.optim import KerasAdam

__all__ = ["convert_layer", "load", "load_optimizer", "save"]


def load(
    path: str | PathLike[str], like: TwoTowers | None = None, lambdas: Mapping[str, str] | None = None
) -> TwoTowers:
    """Read the network of a Keras file.

    Reads `.keras` (a zip or an unpacked folder) and `.weights.h5` of Keras 3, and `.h5` of Keras 1, 2 and 3. Left is
    the first operand of Subtract. TwoTowers.probability gives what the network gave in Keras.

    Args:
        path: the file.
        like: for a file of weights alone, a TwoTowers of its sizes; its towers are taken in the order of the layers in
            the file. Beside another file it must agree with what the file says.
        lambdas: what Lambda layers do, by their names: "squeeze", "expand_dims" or "subtract". Their code is not read.

    Raises:
        ImportError: pyfive is not installed.
        OSError: the file cannot be read.
        ValueError: the file is damaged, its network is not two towers, or `like` is missing or does not fit; the
            message names the layer and what differs.

    >>> import tempfile
    >>> from towers import TwoTowers, keras
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keras.save(TwoTowers(), f"{folder}/model.keras")
    ...     model = keras.load(f"{folder}/model.keras")
    >>> model.hidden
    6
    """
    from towers.keras.read_network import convert

    return convert(path, like, lambdas or {}).model


def save(model: TwoTowers, path: str | PathLike[str]) -> None:
    """Write a network for Keras 3: `.keras`, `.h5` (the whole network) or `.weights.h5`, by the name's end.

    Its output in Keras is TwoTowers.probability. `chunk`, which changes no result, is not in the file. The file is
    written whole and then renamed.

    Args:
        model: the network.
        path: the file; its name ends in `.keras`, `.h5` or `.weights.h5`.

    Raises:
        ImportError: h5py is not installed.
        OSError: the file cannot be written.
        ValueError: the name has another end; a layer of a tower was replaced; parameters are of several dtypes, of one
            that Keras's files do not hold, or not finite; or gates are the hard sigmoid of Keras 2.

    >>> import tempfile
    >>> from towers import TwoTowers, keras
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keras.save(TwoTowers(), f"{folder}/model.weights.h5")
    ...     model = keras.load(f"{folder}/model.weights.h5", like=TwoTowers())
    >>> model.hidden
    6
    """
    from towers.keras.write_network import write_network

    write_network(model, path)


def load_optimizer(path: str | PathLike[str], model: TwoTowers, kind: str | None = None) -> KerasAdam:
    """The optimizer of a Keras file, for a model that `load` read from it: moments, count of steps, learning rate.

    Args:
        path: a file with the network and the state of its Adam.
        model: what the optimizer trains.
        kind: "adam" where the file's config names no optimizer but you know that it was Adam.

    Raises:
        ImportError: pyfive is not installed.
        OSError: the file cannot be read.
        ValueError: the file names another optimizer or none, its Adam has what KerasAdam has not (decay, clipping,
            AMSGrad, a schedule), it holds no state, or the state is another network's.

    >>> import tempfile
    >>> from towers import TwoTowers, keras
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keras.save(TwoTowers(), f"{folder}/model.keras")  # not by Keras: no optimizer is in it
    ...     try:
    ...         keras.load_optimizer(f"{folder}/model.keras", TwoTowers())
    ...     except ValueError as error:
    ...         print(str(error).partition(": ")[2])
    its config names no optimizer (Keras itself would take RMSprop). If it was trained with Adam, say so: kind="adam"
    """
    from towers.keras.read_optimizer import read_optimizer

    return read_optimizer(path, model, kind)


def convert_layer(path: str | PathLike[str], name: str) -> nn.Module:
    """A single layer of any Keras file that says what its layers are.

    Conv2D (as wide as its input) and Conv1D become PhraseConv; LSTM, CuDNNLSTM and Bidirectional(LSTM) RaggedLSTM
    with one bias; Dense nn.Linear; Embedding nn.Embedding.

    Args:
        path: `.keras`, or `.h5` of a whole network.
        name: the layer's own name in Keras.

    Raises:
        ImportError: pyfive is not installed.
        OSError: the file cannot be read.
        ValueError: no layer or several have the name, or the layer has a setting that ours has not.

    Warns:
        UserWarning: the layer has an activation, which is not part of PhraseConv or nn.Linear.

    >>> import tempfile
    >>> from towers import TwoTowers, keras
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keras.save(TwoTowers(), f"{folder}/model.keras")
    ...     conv = keras.convert_layer(f"{folder}/model.keras", "left_conv")
    >>> conv.weight.shape
    torch.Size([2, 32, 300])
    """
    from towers.keras.read_layer import read_layer

    return read_layer(path, name)
