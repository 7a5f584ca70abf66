# Only here so that `import torch.autograd` is a package beside these stubs; all of it is the installed torch's.

from collections.abc import Sequence

import torch.autograd.forward_ad as forward_ad
import torch.autograd.function as function
import torch.autograd.functional as functional
import torch.autograd.grad_mode as grad_mode
import torch.autograd.graph as graph
import torch.autograd.profiler as profiler
from torch import Tensor
from torch.autograd.anomaly_mode import detect_anomaly as detect_anomaly
from torch.autograd.anomaly_mode import set_detect_anomaly as set_detect_anomaly
from torch.autograd.function import Function as Function
from torch.autograd.function import NestedIOFunction as NestedIOFunction
from torch.autograd.grad_mode import enable_grad as enable_grad
from torch.autograd.grad_mode import inference_mode as inference_mode
from torch.autograd.grad_mode import no_grad as no_grad
from torch.autograd.grad_mode import set_grad_enabled as set_grad_enabled
from torch.autograd.grad_mode import set_multithreading_enabled as set_multithreading_enabled
from torch.autograd.gradcheck import gradcheck as gradcheck
from torch.autograd.gradcheck import gradgradcheck as gradgradcheck
from torch.autograd.variable import Variable as Variable

__all__ = ["forward_ad", "function", "functional", "grad_mode", "graph", "profiler"]

def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Tensor | Sequence[Tensor | None] | None = None,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None: ...
def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]: ...
