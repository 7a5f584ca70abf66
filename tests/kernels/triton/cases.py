"""What the tests of the fused LSTM share: a case's inputs, a run of it, and the slow reference's results."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from towers import RaggedLSTM
from towers.kernels import Batch, Weights, triton

from ...helpers import reference

FLOAT64 = torch.float64


@dataclass(frozen=True)
class Case:
    hidden: int
    lengths: tuple[int, ...]
    input_size: int = 5
    gaps: bool = False  # padded, with NaN, instead of end to end
    state: bool = False
    outputs: bool = True
    precision: str = "ieee"
    dtype: torch.dtype = torch.float32
    options: dict[str, object] = field(default_factory=dict)
    contractive: bool = False  # a small error stays small: else the weights of a large hidden size are chaotic

    def layer(self) -> RaggedLSTM:
        """In float64, with the numbers that a float32 or bfloat16 layer has."""
        layer = reference.number_weights(RaggedLSTM(self.input_size, self.hidden, **self.options))
        if self.contractive:
            with torch.no_grad():
                for name, parameter in layer.named_parameters():
                    if "weight" in name:
                        parameter.mul_(2 / parameter.shape[1] ** 0.5)
        return layer.to(self.dtype).double()

    def rows(self) -> list[Tensor]:
        return [row.to(self.dtype).double() for row in reference.sentences(list(self.lengths), self.input_size)]

    def hx(self, layer: RaggedLSTM) -> tuple[Tensor, Tensor] | None:
        generator = torch.Generator().manual_seed(3)
        shape = (layer.state_rows, len(self.lengths), self.hidden)
        parts = [torch.randn(shape, generator=generator).double() for _ in range(2)]
        return (parts[0], parts[1]) if self.state else None


@dataclass
class Result:
    outputs: list[Tensor]
    h_n: Tensor
    c_n: Tensor
    gradients: dict[str, Tensor]


def weights_of(layer: RaggedLSTM, parameters: dict[str, Tensor]) -> Weights:
    """In the order of nn.LSTM."""
    biases = {True: ("bias_ih", "bias_hh"), "single": ("bias_ih",), False: ()}[layer.bias]
    flat = [
        parameters[f"{kind}_l{depth}{end}"]
        for depth in range(layer.num_layers)
        for end in ["", "_reverse"][: 1 + layer.bidirectional]
        for kind in ("weight_ih", "weight_hh", *biases)
    ]
    return Weights(tuple(flat), len(biases), False, layer.num_layers, layer.bidirectional, 0.0)


def place(case: Case, rows: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The sentences as rows: values, starts, lengths."""
    lengths = torch.tensor(case.lengths)
    if not case.gaps:
        return torch.cat(rows), torch.nn.functional.pad(lengths.cumsum(0), (1, 0))[:-1], lengths
    padded, _ = reference.pad(rows, words=max(case.lengths) + 2)
    return padded.flatten(0, 1), torch.arange(len(rows)) * padded.shape[1], lengths


def upstream(like: list[Tensor]) -> list[Tensor]:
    """Gradients that come from above, different everywhere."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(part.shape, generator=generator, dtype=FLOAT64) for part in like]


def run(case: Case, device: torch.device) -> Result:
    layer = case.layer()
    parameters = {
        name: value.detach().to(device, case.dtype).requires_grad_() for name, value in layer.named_parameters()
    }
    values, starts, lengths = place(case, case.rows())
    values = values.to(device, case.dtype).requires_grad_()
    hx = case.hx(layer)
    hx = None if hx is None else tuple(part.to(device, torch.float32).requires_grad_() for part in hx)
    batch = Batch(values, starts.to(device), lengths.to(device), None, dense=not case.gaps)
    output, (h_n, c_n) = triton.run(
        batch, hx, weights_of(layer, parameters), outputs=case.outputs, precision=case.precision
    )
    assert h_n.dtype == c_n.dtype == torch.float32
    assert (output is None) is not case.outputs
    assert output is None or (output.dtype, output.shape) == (torch.float32, (len(values), layer.output_width))
    spans = [slice(start, start + length) for start, length in zip(starts, case.lengths, strict=True)]
    outputs = [output[span] for span in spans] if case.outputs else []
    parts = [*outputs, h_n, c_n]
    loss = sum((part * up.to(device)).sum() for part, up in zip(parts, upstream(parts), strict=True))
    loss.backward()
    gradients = {name: value.grad for name, value in parameters.items()}
    gradients |= {f"sentence {index}": values.grad[span] for index, span in enumerate(spans)}
    if hx is not None:
        gradients |= {"h_0": hx[0].grad, "c_0": hx[1].grad}
    if case.gaps:
        hidden_from = torch.ones(len(values), dtype=torch.bool)
        for span in spans:
            hidden_from[span] = False
        assert not values.grad[hidden_from].any(), "padding gets no gradient"
        assert not case.outputs or not output[hidden_from].any(), "outputs of padding are 0"
    return Result(outputs, h_n, c_n, gradients)


def expect(case: Case) -> Result:
    """One sentence at a time, one step at a time, in float64."""
    layer = case.layer()
    rows = [row.requires_grad_() for row in case.rows()]
    hx = case.hx(layer)
    zero = torch.zeros(layer.state_rows, len(rows), case.hidden, dtype=FLOAT64)
    h_0, c_0 = (part.clone().requires_grad_() for part in (hx or (zero, zero)))
    found = [reference.lstm(row, layer, h_0[:, index], c_0[:, index]) for index, row in enumerate(rows)]
    outputs = [output for output, _, _ in found] if case.outputs else []
    h_n, c_n = (torch.stack([part[which] for part in found], 1) for which in (1, 2))
    parts = [*outputs, h_n, c_n]
    sum((part * up).sum() for part, up in zip(parts, upstream(parts), strict=True)).backward()
    gradients = {
        name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in layer.named_parameters()
    }
    gradients |= {
        f"sentence {index}": torch.zeros_like(row) if row.grad is None else row.grad for index, row in enumerate(rows)
    }
    if hx is not None:
        gradients |= {"h_0": h_0.grad, "c_0": c_0.grad}
    return Result(outputs, h_n, c_n, gradients)


def compare(found: Result, wanted: Result, tolerance: float, gradient_tolerance: float) -> None:
    for name in ("h_n", "c_n"):
        close(getattr(found, name), getattr(wanted, name), tolerance, name)
    for index, (one, other) in enumerate(zip(found.outputs, wanted.outputs, strict=True)):
        close(one, other, tolerance, f"output of sentence {index}")
    assert found.gradients.keys() == wanted.gradients.keys()
    for name, gradient in wanted.gradients.items():
        close(found.gradients[name], gradient, gradient_tolerance, f"gradient of {name}")


def errors(found: Result, wanted: Result) -> tuple[float, float]:
    """The tolerances at which `compare` would just pass: of results and of gradients."""
    results = zip((found.h_n, found.c_n, *found.outputs), (wanted.h_n, wanted.c_n, *wanted.outputs), strict=True)
    gradients = ((found.gradients[name], gradient) for name, gradient in wanted.gradients.items())
    return tuple(max((_error(*pair) for pair in pairs), default=0.0) for pairs in (results, gradients))


def _error(found: Tensor, wanted: Tensor) -> float:
    if not wanted.numel():
        return 0.0
    distance = (found.detach().cpu().double() - wanted.detach()).abs().max().item()
    return distance / max(1.0, wanted.abs().max().item())


def close(found: Tensor, wanted: Tensor, tolerance: float, name: str) -> None:
    bound = tolerance * max(1.0, wanted.abs().max().item() if wanted.numel() else 0.0)
    torch.testing.assert_close(
        found.detach().cpu().double(), wanted.detach(), rtol=0, atol=bound, msg=lambda text: f"{name}: {text}"
    )
