"""Shape rules for convolution, pooling, padding and resizing, in one to three dimensions.

torch's own rules ask many questions about sizes that do not matter, such as how a tensor lies in memory, and a network
for images has two axes of which each layer makes new sizes. Here each layer asks one question: does the window fit?
What no rule serves is left to torch. As in `layer_rules`, the first argument is the symbols of the run.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.nn import functional as F

from towers.contracts.proofs.axis_rules import channels_last
from towers.contracts.proofs.elementwise_rules import autocast_on, floating, hinted
from towers.contracts.proofs.fast_meta import Order, items_of, lying, made, plain, upright, whole
from towers.contracts.proofs.symbols import Symbols


def _order(input: Any, count: int) -> Order | None:
    """How a batch of images lies, if it is in one of the two ways that layers keep; None where torch must be asked."""
    order = lying(input)
    if (
        order is None
        or len(order) != count + 2
        or not hinted(input.shape)
        or not input.dtype.is_floating_point
        or autocast_on()
    ):
        return None
    kept = (tuple(range(len(order))), *([channels_last(len(order))] if count == 2 else []))
    return order if order in kept else None


def _each(value: Any, count: int) -> list[int] | None:
    """One number for each axis; None where they are no ints."""
    values = items_of(value)
    values = values * count if len(values) == 1 else values
    return values if len(values) == count and all(type(each) is int for each in values) else None


def convolution(count: int) -> Callable[..., Any]:
    """torch.conv1d, conv2d and conv3d."""

    def rule(
        symbols: Symbols,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        order, kernel = _order(input, count), _kernel(input, weight, bias)
        if order is None or kernel is None or not _alike_channels(input.shape[1], weight.shape[1] * groups):
            return NotImplemented
        steps, reach = _each(stride, count), _each(dilation, count)
        if steps is None or reach is None or weight.shape[0] % groups or min(*steps, *reach) < 1:
            return NotImplemented
        windows = [apart * (size - 1) + 1 for size, apart in zip(kernel, reach, strict=True)]
        around = _around(padding, windows, steps)
        if around is None:
            return NotImplemented
        sizes = [size + more for size, more in zip(input.shape[2:], around, strict=True)]
        if not all(size >= window for size, window in zip(sizes, windows, strict=True)):
            told = " x ".join(map(str, sizes)), " x ".join(map(str, windows))
            raise RuntimeError(
                f"Calculated padded input size per channel: ({told[0]}). Kernel size: ({told[1]}). "
                "Kernel size can't be greater than actual input size"
            )
        out = [symbols.short(_windows(*each)) for each in zip(sizes, windows, steps, strict=True)]
        return made((input.shape[0], weight.shape[0], *out), input.dtype, order)

    return rule


def _windows(size: Any, window: int, step: int) -> Any:
    """How many windows fit."""
    return size - (window - 1) if step == 1 else (size - window) // step + 1


def _around(padding: Any, windows: Sequence[int], steps: Sequence[int]) -> list[int] | None:
    """Padding on both sides together."""
    if padding == "valid":
        return [0] * len(windows)
    if padding == "same":
        return [window - 1 for window in windows] if set(steps) == {1} else None
    each = _each(padding, len(windows))
    return None if each is None or min(each) < 0 else [2 * one for one in each]


def _kernel(input: Any, weight: Any, bias: Any) -> list[int] | None:
    """The sizes of a kernel that fits its input's number of axes and its dtype; None where torch must be asked."""
    if not plain(weight) or weight.dim() != input.dim() or not whole(weight):
        return None
    if input.dtype != weight.dtype:
        raise RuntimeError(f"Input type ({input.dtype}) and weight type ({weight.dtype}) should be the same")
    sizes = list(weight.shape)
    if any(isinstance(size, SymInt) or size < 1 for size in sizes):
        return None
    if isinstance(bias, Tensor) and (bias.dim() != 1 or bias.dtype != input.dtype):
        return None
    return sizes[2:]


def _alike_channels(came: Any, wanted: int) -> bool:
    return type(came) is int and came == wanted


def transposed_convolution(count: int) -> Callable[..., Any]:
    """torch.conv_transpose1d, conv_transpose2d and conv_transpose3d of contiguous tensors."""

    def rule(
        symbols: Symbols,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Any:
        order, kernel = _order(input, count), _kernel(input, weight, bias)
        if (
            order is None
            or kernel is None
            or not upright(input)
            or not _alike_channels(input.shape[1], weight.shape[0])
        ):
            return NotImplemented
        how = [
            each for given in (stride, padding, output_padding, dilation) if (each := _each(given, count)) is not None
        ]
        if len(how) < 4 or input.shape[1] % groups:
            return NotImplemented
        out: list[Any] = []
        for size, window, step, around, more, apart in zip(input.shape[2:], kernel, *how, strict=True):
            if step < 1 or apart < 1 or around < 0 or not 0 <= more < max(step, apart):
                return NotImplemented
            out.append(symbols.short((size - 1) * step - 2 * around + apart * (window - 1) + more + 1))
        if not all(size >= 1 for size in out):
            raise RuntimeError(f"Calculated output size ({', '.join(map(str, out))}) is too small")
        return made((input.shape[0], weight.shape[1] * groups, *out), input.dtype)

    return rule


def max_pool(count: int) -> Callable[..., Any]:
    """F.max_pool2d, F.max_pool3d and torch's own of these names."""

    def rule(
        symbols: Symbols,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        return (
            NotImplemented
            if return_indices
            else _pool(symbols, input, count, kernel_size, stride, padding, dilation, ceil_mode)
        )

    return rule


def average_pool(count: int) -> Callable[..., Any]:
    """F.avg_pool1d, F.avg_pool2d and F.avg_pool3d."""

    def rule(
        symbols: Symbols,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Any:
        return _pool(symbols, input, count, kernel_size, stride, padding, 1, ceil_mode)

    return rule


def _pool(
    symbols: Symbols,
    input: Any,
    count: int,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Any:
    order, windows = _order(input, count), _each(kernel, count)
    steps = windows if stride is None or stride == [] else _each(stride, count)
    around, apart = _each(padding, count), _each(dilation, count)
    if order is None or windows is None or steps is None or around is None or apart is None or ceil_mode:
        return NotImplemented
    if min(*windows, *steps, *apart) < 1 or any(
        not 0 <= 2 * side <= size for side, size in zip(around, windows, strict=True)
    ):
        return NotImplemented
    windows = [each * (size - 1) + 1 for size, each in zip(windows, apart, strict=True)]
    sizes = [size + 2 * side for size, side in zip(input.shape[2:], around, strict=True)]
    if not all(size >= window for size, window in zip(sizes, windows, strict=True)):
        came = "x".join(map(str, input.shape[1:]))
        raise RuntimeError(f"Given input size: ({came}). The pool's window does not fit: output size is too small")
    out = [symbols.short(_windows(*each)) for each in zip(sizes, windows, steps, strict=True)]
    return made((*input.shape[:2], *out), input.dtype, order)


def _blocks(
    symbols: Symbols, sizes: Sequence[Any], kernel: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[int, list[Any]] | None:
    """Of F.unfold and F.fold the numbers in a block, and how many blocks fit along each axis of an image.

    Raises:
        RuntimeError: none fits.
    """
    windows, apart, sides, steps = (_each(given, 2) for given in (kernel, dilation, padding, stride))
    if windows is None or apart is None or sides is None or steps is None:
        return None
    if min(*windows, *apart, *steps) < 1 or min(sides) < 0:
        return None
    wide = [size + 2 * side for size, side in zip(sizes, sides, strict=True)]
    reach = [each * (size - 1) + 1 for size, each in zip(windows, apart, strict=True)]
    if not all(size >= window for size, window in zip(wide, reach, strict=True)):
        came = ", ".join(map(str, sizes))
        raise RuntimeError(f"Given an image of size ({came}), kernel_size={windows}: no sliding block fits into it")
    found = [symbols.short(_windows(*each)) for each in zip(wide, reach, steps, strict=True)]
    return windows[0] * windows[1], found


def unfold(symbols: Symbols, input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """F.unfold of a batch of images."""
    if _order(input, 2) is None:
        return NotImplemented
    found = _blocks(symbols, input.shape[2:], kernel_size, dilation, padding, stride)
    if found is None:
        return NotImplemented
    numbers, [high, wide] = found
    return made((input.shape[0], input.shape[1] * numbers, high * wide), input.dtype)


def fold(
    symbols: Symbols,
    input: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """F.fold of a batch of blocks."""
    sizes = items_of(output_size)
    sizes = sizes * 2 if len(sizes) == 1 else sizes
    if _order(input, 1) is None or len(sizes) != 2 or not all(symbols.from_on(size, 1) for size in sizes):
        return NotImplemented
    found = _blocks(symbols, sizes, kernel_size, dilation, padding, stride)
    if found is None or type(input.shape[1]) is not int or input.shape[1] % found[0] or not input.shape[1]:
        return NotImplemented
    numbers, [high, wide] = found
    if input.shape[2] != high * wide:
        raise RuntimeError(
            f"Given output_size=({', '.join(map(str, sizes))}), expected {high * wide} blocks, but got {input.shape[2]}"
        )
    return made((input.shape[0], input.shape[1] // numbers, *sizes), input.dtype)


def adaptive_pool(count: int) -> Callable[..., Any]:
    """F.adaptive_avg_pool1d to 3d and F.adaptive_max_pool1d to 3d."""

    def rule(symbols: Symbols, input: Any, output_size: Any, return_indices: bool = False) -> Any:
        order = _order(input, count)
        wanted = items_of(output_size) if isinstance(output_size, (tuple, list)) else [output_size] * count
        if order is None or return_indices or len(wanted) != count:
            return NotImplemented
        if not all(size is None or (type(size) is int and size > 0) for size in wanted):
            return NotImplemented
        sizes = input.shape[2:]
        if any(type(size) is int and size < 1 for size in sizes):
            return NotImplemented
        out = [came if size is None else size for came, size in zip(sizes, wanted, strict=True)]
        return made((*input.shape[:2], *out), input.dtype, order)

    return rule


def pad(symbols: Symbols, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """F.pad with a constant, or with the values at the edges, of contiguous tensors.

    Sizes may be symbols. A negative one takes away from the axis, which must be as long.

    Raises:
        RuntimeError: the axis is shorter.
    """
    sides = items_of(pad)
    if mode == "replicate" and plain(input):  # which leaves batch and channels as they are
        fits = 3 <= input.dim() <= 5 and len(sides) == 2 * (input.dim() - 2) and input.dtype.is_floating_point
        if not fits or not all(symbols.from_on(size, 1) for size in input.shape):
            return NotImplemented
        if not all(symbols.from_on(side, 0) for side in sides):
            return NotImplemented
    elif mode != "constant":
        return NotImplemented
    if not upright(input) or not sides or len(sides) % 2 or len(sides) > 2 * input.dim():
        return NotImplemented
    if not all(type(side) is int or isinstance(side, SymInt) for side in sides):
        return NotImplemented
    shape: list[Any] = list(input.shape)
    for at in range(len(sides) // 2):
        axis, around = input.dim() - 1 - at, sides[2 * at : 2 * at + 2]
        left = shape[axis]
        for side in around:
            if not symbols.from_on(side, 0) and side < 0:
                left = left + side
                if left < 0:
                    raise RuntimeError("narrow(): length must be non-negative.")
        more = around[0] + around[1]
        shape[axis] = shape[axis] + more if type(more) is not int or more else shape[axis]
    return made(shape, input.dtype)


def interpolate(
    symbols: Symbols,
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Any:
    """F.interpolate to given sizes or by whole factors, of contiguous tensors."""
    count = input.dim() - 2 if plain(input) else 0
    modes = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}.get(count, ())
    if not modes or _order(input, count) is None or not upright(input) or antialias:
        return NotImplemented
    if mode not in ("nearest", "nearest-exact", "area", *modes) or (align_corners is not None and mode not in modes):
        return NotImplemented
    if (size is None) == (scale_factor is None):
        return NotImplemented
    given = scale_factor if size is None else size
    wanted = items_of(given) if isinstance(given, (tuple, list)) else [given] * count
    if len(wanted) != count:
        return NotImplemented
    if size is not None:
        fine = all((type(each) is int and each > 0) or isinstance(each, SymInt) for each in wanted)
        if not fine or not all(each >= 1 for each in wanted):
            return NotImplemented
        out = [symbols.short(each) for each in wanted]
    else:
        if not all(isinstance(each, (int, float)) and each >= 1 and float(each).is_integer() for each in wanted):
            return NotImplemented
        out = [symbols.short(came * int(factor)) for came, factor in zip(input.shape[2:], wanted, strict=True)]
    return made((*input.shape[:2], *out), input.dtype)


def affine_grid(symbols: Symbols, theta: Any, size: Any, align_corners: Any = None) -> Any:
    """F.affine_grid for a batch of images, of two or three axes."""
    sizes = items_of(size)
    count = len(sizes) - 2
    if count not in (2, 3) or not plain(theta) or theta.dim() != 3 or not floating(theta) or autocast_on():
        return NotImplemented
    if tuple(theta.shape[1:]) != (count, count + 1):
        raise ValueError(f"Expected a batch of affine matrices of {count} x {count + 1}. Got {list(theta.shape)}.")
    if not all(symbols.from_on(each, 1) or each >= 1 for each in sizes):
        raise ValueError(f"Expected non-zero, positive output size. Got {sizes}")
    if theta.shape[0] != sizes[0]:
        raise RuntimeError(f"Expected a batch of {sizes[0]} affine matrices. Got {theta.shape[0]}.")
    return made((sizes[0], *sizes[2:], count), theta.dtype)


RULES: dict[Any, Callable[..., Any]] = {
    F.affine_grid: affine_grid,
    torch.conv1d: convolution(1),
    torch.conv2d: convolution(2),
    torch.conv3d: convolution(3),
    torch.conv_transpose1d: transposed_convolution(1),
    torch.conv_transpose2d: transposed_convolution(2),
    torch.conv_transpose3d: transposed_convolution(3),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), max_pool(2)),
    **dict.fromkeys((F.max_pool3d, torch.max_pool3d), max_pool(3)),
    F.avg_pool1d: average_pool(1),
    F.avg_pool2d: average_pool(2),
    F.avg_pool3d: average_pool(3),
    F.adaptive_avg_pool1d: adaptive_pool(1),
    F.adaptive_avg_pool2d: adaptive_pool(2),
    F.adaptive_avg_pool3d: adaptive_pool(3),
    F.adaptive_max_pool1d: adaptive_pool(1),
    F.adaptive_max_pool2d: adaptive_pool(2),
    F.adaptive_max_pool3d: adaptive_pool(3),
    F.unfold: unfold,
    F.fold: fold,
    F.pad: pad,
    F.interpolate: interpolate,
}
