"""Networks in files of Keras <-> TwoTowers, without Keras. Nothing in a file is run, imported or unpickled."""

# What needs numpy is imported where it is used: the names are there without the extra "keras".

import warnings
from collections.abc import Mapping
from os import PathLike, fspath

from torch import nn

from towers.model import TwoTowers
from towers.optim import KerasAdam

__all__ = ["convert_layer", "load", "load_optimizer", "save"]


def load(
    path: str | PathLike[str], like: TwoTowers | None = None, lambdas: Mapping[str, str] | None = None
) -> TwoTowers:
    """Read the network of a Keras file.

    Reads `.keras` (a zip or an unpacked folder) and `.weights.h5` of Keras 3, and `.h5` of Keras 1, 2 and 3. Left is
    the first operand of Subtract. The model is in evaluation, and TwoTowers.probability gives what the network gave in
    Keras; call `train()` before a training that goes on. What Keras does not train is not trained here (requires_grad
    is False): layers that are frozen there (trainable=False), and the biases, zeros, of layers with use_bias=False.
    Dropout on the difference is TwoTowers's `dropout`.

    Args:
        path: the file.
        like: for a file of weights alone, a TwoTowers of its sizes; its towers are taken in the order of the layers in
            the file, and what it says of training (dropout, requires_grad) is taken over. That order is the depth of
            the layers in Keras: towers with other numbers of layers are refused where names show that they are mixed.
            Beside another file it must agree with what the file says.
        lambdas: what Lambda layers do, by their names: "squeeze", "expand_dims" or "subtract". Their code is not read.

    Raises:
        ImportError: pyfive is not installed.
        OSError: the file cannot be read.
        TypeError: `like` is no TwoTowers, or `lambdas` no dict.
        ValueError: the file is damaged, its network is not two towers, `like` is missing or does not fit, or `lambdas`
            names a layer that is no Lambda of the file; the message names the layer and what differs.

    Warns:
        UserWarning: a training that goes on would differ from Keras's: the network has regularizers, constraints, or
            dropout in another place than on the difference, which are left out. Or a call differs: the file's first
            input is the right sentence, its network ends without a sigmoid, its layers compute in half precision
            (mixed_float16), or dropout was called with training=True, which is refused in files of Keras 1 and 2.

    >>> import tempfile
    >>> from towers import TwoTowers, keras
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keras.save(TwoTowers(), f"{folder}/model.keras")
    ...     model = keras.load(f"{folder}/model.keras")
    >>> model.hidden
    6
    """
    from towers.keras.read_network import convert

    if like is not None:
        _check_model("like", like)
    found = convert(path, like, lambdas or {})
    if called := found.plan.called:
        warnings.warn(f"{fspath(path)}: {'; '.join(called)}", stacklevel=2)
    if differs := found.trained_otherwise:
        warnings.warn(
            f"{fspath(path)}: computes what it did in Keras, but is trained otherwise: {'; '.join(differs)}",
            stacklevel=2,
        )
    return found.model


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
        TypeError: `model` is no TwoTowers, such as what `towers.load` gives: that has one, its `network`.
        ValueError: the name has another end; a layer of a tower was replaced; parameters are of several dtypes, of one
            that Keras's files do not hold, or not finite; or gates are the hard sigmoid of Keras 2.

    Warns:
        UserWarning: a training that goes on in Keras would differ: the model has word_dropout, or a layer is frozen in
            part. Layers that are frozen as a whole are so there too, as is a bias of zeros alone (use_bias=False).

    >>> import tempfile
    >>> from towers import TwoTowers, keras
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keras.save(TwoTowers(), f"{folder}/model.weights.h5")
    ...     model = keras.load(f"{folder}/model.weights.h5", like=TwoTowers())
    >>> model.hidden
    6
    """
    from towers.keras.write_network import write_network

    _check_model("model", model)
    write_network(model, path)


def load_optimizer(
    path: str | PathLike[str],
    model: TwoTowers,
    kind: str | None = None,
    lambdas: Mapping[str, str] | None = None,
) -> KerasAdam:
    """The optimizer of a Keras file, for a model that `load` read from it: moments, count of steps, learning rate.

    Args:
        path: a file with the network and the state of its Adam.
        model: what the optimizer trains, with the weights of the file; call its `train()` before the next step.
        kind: "adam" where the file's config names no optimizer but you know that it was Adam.
        lambdas: as in `load`.

    Raises:
        ImportError: pyfive is not installed.
        OSError: the file cannot be read.
        TypeError: `model` is no TwoTowers, or `lambdas` no dict.
        ValueError: the file names another optimizer or none, its Adam has what KerasAdam has not (decay, clipping,
            AMSGrad, a schedule), it holds no state, or the state is another network's; or `model` has other weights, or
            trains what Keras does not, a frozen layer or the bias of one with use_bias=False: freeze it with
            requires_grad_(False).

    Warns:
        UserWarning: training goes on otherwise than in Keras: dropout, regularizers or constraints are left out.

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

    _check_model("model", model)
    return read_optimizer(path, model, kind, lambdas or {})


def convert_layer(path: str | PathLike[str], name: str) -> nn.Module:
    """A single layer of any Keras file that says what its layers are.

    Conv2D (as wide as its input) and Conv1D become PhraseConv; LSTM, CuDNNLSTM and Bidirectional(LSTM) RaggedLSTM
    with one bias; Dense nn.Linear; Embedding nn.Embedding. Parameters have the dtype of the arrays in the file, which
    may be another than the layer's dtype in its config: Keras on JAX saves a layer of float64 as float32, unless JAX
    was told to use 64 bits.

    Args:
        path: `.keras`, or `.h5` of a whole network.
        name: the layer's own name in Keras.

    Raises:
        ImportError: pyfive is not installed.
        OSError: the file cannot be read.
        ValueError: no layer or several have the name, the layer has a setting that ours has not, or an LSTM stands
            behind Masking or Embedding(mask_zero=True), whose masks are not carried over.

    Warns:
        UserWarning: the layer has an activation, which is not part of PhraseConv or nn.Linear, or computes in half
            precision in Keras (mixed_float16).

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


def _check_model(argument: str, model: object) -> None:
    if not isinstance(model, TwoTowers):
        more = ": give its network" if isinstance(getattr(model, "network", None), TwoTowers) else ""
        raise TypeError(f"{argument} is {type(model).__name__}; a TwoTowers belongs there{more}")
