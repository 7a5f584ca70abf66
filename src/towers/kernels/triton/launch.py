"""What every launcher needs: the launch of a kernel, torch's precision setting, and rows as the kernels read them."""

from typing import Any

import torch
from torch import Tensor


def start(kernel: Any, grid: tuple[int, ...], first: Tensor, *others: Any, **options: Any) -> None:
    """Launch a kernel on the device of its first argument; an empty grid launches nothing.

    The kernels tell Triton not to specialize on batch, lengths and rows, so other values compile nothing again.

    Raises:
        RuntimeError: the tensors are on the CPU, and Triton does not interpret its kernels there.
    """
    if not (first.is_cuda or interpreted(kernel)):
        raise RuntimeError(
            f"towers.kernels.triton: the tensors are on {first.device}; these kernels run on an NVIDIA GPU,"
            " or on the CPU in a process that was started with TRITON_INTERPRET=1"
        )
    if 0 in grid:
        return
    with torch.cuda.device_of(first):
        kernel[grid](first, *others, **options, enable_fp_fusion=True)


def interpreted(kernel: Any) -> bool:
    """Whether Triton runs this kernel in its interpreter, which TRITON_INTERPRET=1 chooses when a kernel is defined."""
    return type(kernel).__name__ == "InterpretedFunction"


def torch_precision() -> str:
    """The `input_precision` of Triton's products that follows torch's setting for float32 matrix products.

    "tf32x3", three products of TF32 parts, where torch asks for "ieee", its default; "tf32" where torch allows TF32.
    """
    backends: Any = torch.backends
    setting = backends.cuda.matmul.fp32_precision
    if setting == "none":
        setting = backends.fp32_precision
    return "tf32" if setting == "tf32" else "tf32x3"


def covered(starts: Tensor, lengths: Tensor, rows: int) -> Tensor:
    """Which of `rows` rows belong to a sentence, "rows" of bool, found without waiting for the device."""
    edges = torch.zeros(rows + 1, dtype=torch.int32, device=starts.device)
    some = (lengths > 0).int()
    return edges.index_add(0, starts, some).index_add(0, starts + lengths, -some).cumsum(0)[:-1] > 0


def aligned(tensor: Tensor | None) -> Any:
    """Contiguous and at a multiple of 16 bytes, as Triton assumes of what large loads read; else a copy."""
    if tensor is None:
        return None
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def contiguous(*tensors: Tensor | None) -> list[Any]:
    """Each tensor as the kernels read it; one that is contiguous already is not copied."""
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]
