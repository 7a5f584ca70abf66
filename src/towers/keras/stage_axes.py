"""The axes of a tensor after each stage of a tower, as the settings of its layers have them."""

from typing import Any, cast

from towers.keras.graph import Layer
from towers.keras.settings import is_ints, is_list, setting, size

Axes = tuple[int | None, ...]
"""Sizes of a tensor without its batch; None: any number (of words)."""


def input_axes(layer: Layer) -> Axes:
    """Of an InputLayer."""
    shape: Any = setting(layer, "batch_shape", "batch_input_shape")
    if not is_list(shape) or len(shape) not in (2, 3, 4):
        raise ValueError(f"{layer}: its shape is {str(shape)[:60]}; (batch, words, vector width, 1) belongs there")
    axes = shape[1:]
    if any(axis is not None and (type(axis) is not int or axis < 1) for axis in axes):
        raise ValueError(
            f"{layer}: its shape is {str(shape)[:60]}; sizes of at least 1 belong there, or None for words"
        )
    if layer.config.get("sparse") or layer.config.get("ragged"):
        raise ValueError(f"{layer}: takes sparse or ragged tensors, which Keras's LSTM masks; dense ones are read")
    return tuple(axes)


def convolution(layer: Layer, axes: Axes) -> tuple[int, int, int]:
    """(kernel words, vector width, filters): a kernel that is as wide as a word vector, over neighbouring words."""
    filters = size(layer, "filters", "nb_filter")
    if layer.kind.endswith("1D"):
        kernel: Any = [size(layer, "kernel_size", "filter_length"), 1]
        wanted = 2
    else:
        kernel = setting(layer, "kernel_size", default=[layer.config.get("nb_row"), layer.config.get("nb_col")])
        wanted = 3
    if not is_ints(kernel) or len(kernel) != 2 or min(kernel) < 1:
        raise ValueError(f"{layer}: kernel_size is {str(kernel)[:60]}; (words, vector width) belongs there")
    rows, columns = kernel
    if len(axes) != wanted:
        raise ValueError(f"{layer}: takes {in_words(axes)}; a {layer.kind} takes {wanted} axes beside the batch")
    inner = axes[1:]
    if None in inner:
        raise ValueError(f"{layer}: the width of a word vector is not said by the input: {in_words(axes)}")
    if wanted == 3 and inner[0] != columns:
        raise ValueError(
            f"{layer}: its kernel is {columns} wide, a word vector is {inner[0]}; a phrase takes whole word vectors"
        )
    width = 1
    for axis in inner:
        width *= cast("int", axis)
    return rows, width, filters


def pool_size(layer: Layer, filters: int) -> int:
    """How many neighbouring features a MaxPooling1D takes the largest of."""
    pool = size(layer, "pool_size", "pool_length")
    strides = setting(layer, "strides", "stride")
    if is_ints(strides) and len(strides) == 1:
        strides = strides[0]
    if strides not in (None, pool):
        raise ValueError(f"{layer}: strides are {strides}, pool_size is {pool}; groups that overlap are not read")
    if "data_format" not in layer.config:
        raise ValueError(f"{layer}: takes the maximum over time; a FeaturePool takes it over neighbouring features")
    if filters % pool:
        raise ValueError(
            f"{layer}: pool_size {pool} does not divide {filters} filters: Keras leaves the last {filters % pool} out, "
            "a FeaturePool must not"
        )
    return pool


def reshaped(layer: Layer, axes: Axes) -> Axes:
    """After Reshape, whose -1 is the number of words, or the axis that is left."""
    target: Any = layer.config.get("target_shape", layer.config.get("dims"))
    if not is_ints(target):
        raise ValueError(f"{layer}: target_shape is {str(target)[:60]}; ints belong there")
    entries = target
    real = [axis for axis in axes if axis != 1]
    kept = [entry for entry in entries if entry != 1]
    filled = [old if new == -1 else new for old, new in zip(real, kept, strict=False)]
    if len(kept) != len(real) or kept.count(-1) > 1 or filled != real:
        raise ValueError(f"{layer}: makes {tuple(entries)} of {in_words(axes)}; it may only add or take away axes of 1")
    rest = iter(real)
    return tuple(1 if entry == 1 else next(rest) for entry in entries)


def in_words(axes: Axes) -> str:
    """For messages."""
    return "(" + ", ".join(["batch", *("any" if axis is None else str(axis) for axis in axes)]) + ")"
