"""Public packages with jaxtyping's annotations: a forward and backward pass with and without their contracts.

Each package is installed through a hook before its first import, so each candidate runs in a process of its own:
without a hook, with `towers.contracts.install`, and with jaxtyping's `install_import_hook` and beartype, where the
package can be imported with it. The results and all gradients must be the same bits. The models are small and have
random weights: nothing is downloaded. A package that is not installed has no row.

    python benchmarks/public_code.py CASE HOW    such a process: "time 10" in a line, seconds of a call in the next
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from inspect import isfunction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Step = Callable[[], list[Tensor]]
"""A forward and backward pass: the loss, and the gradients."""

HOOKS = {"plain": "no hook", "towers": "towers.contracts", "jaxtyping": "jaxtyping + beartype"}


def transformer_lens() -> Step:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=2, d_model=32, n_ctx=16, d_head=8, n_heads=4, d_mlp=64, d_vocab=50, act_fn="gelu", device="cpu"
    )
    model, tokens = HookedTransformer(config), torch.randint(0, 50, (3, 10))
    return trained(model, lambda: model(tokens, return_type="loss"))


def gpytorch() -> Step:
    import gpytorch
    from gpytorch.distributions import MultivariateNormal

    class Regression(gpytorch.models.ExactGP):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.mean = gpytorch.means.ConstantMean()
            self.covariance = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=3))

        def forward(self, x: Tensor) -> Any:
            return MultivariateNormal(self.mean(x), self.covariance(x))

    x, y = torch.rand(20, 3), torch.rand(20)
    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    model = Regression(x, y, likelihood).train()
    marginal = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    return trained(model, lambda: -marginal(model(x), y))


def nerfstudio() -> Step:
    from nerfstudio.field_components.encodings import NeRFEncoding, SHEncoding
    from nerfstudio.field_components.mlp import MLP
    from nerfstudio.model_components.renderers import AccumulationRenderer, RGBRenderer

    encoding = NeRFEncoding(3, num_frequencies=6, min_freq_exp=0.0, max_freq_exp=5.0, include_input=True)
    directions = SHEncoding(levels=3, implementation="torch")
    density = MLP(encoding.get_out_dim(), num_layers=3, layer_width=32, out_dim=9)
    colour = MLP(8 + directions.get_out_dim(), num_layers=2, layer_width=32, out_dim=3, out_activation=nn.Sigmoid())
    model = nn.ModuleList([density, colour])
    render, total = RGBRenderer(background_color="white"), AccumulationRenderer()
    points, towards = torch.randn(16, 8, 3), nn.functional.normalize(torch.randn(16, 8, 3), dim=-1)

    def loss() -> Tensor:
        found = density(encoding(points))
        weights = found[..., :1].softmax(-2)
        rgb = colour(torch.cat([found[..., 1:], directions(towards)], -1))
        return render(rgb=rgb, weights=weights).sum() + total(weights).sum()

    return trained(model, loss)


def physicsnemo() -> Step:
    from physicsnemo.models.fno import FNO

    model = FNO(
        in_channels=2, out_channels=2, decoder_layers=1, decoder_layer_size=16, dimension=2, latent_channels=8,
        num_fno_layers=2, num_fno_modes=4, padding=2,
    )  # fmt: skip
    images = torch.randn(2, 2, 16, 16)
    return trained(model, lambda: model(images).square().mean())


CASES: dict[str, tuple[tuple[str, ...], Callable[[], Step]]] = {
    "transformer_lens: HookedTransformer": (("transformer_lens",), transformer_lens),
    "linear_operator with gpytorch: ExactGP": (("linear_operator", "gpytorch"), gpytorch),
    "nerfstudio: encodings, MLP, renderers": (("nerfstudio",), nerfstudio),
    "physicsnemo: FNO": (("physicsnemo",), physicsnemo),
}


def trained(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """A forward pass and its backward pass."""

    def step() -> list[Tensor]:
        torch.manual_seed(0)
        model.zero_grad(set_to_none=True)
        found = loss()
        found.backward()
        return [found.detach(), *(one.grad for one in model.parameters() if one.grad is not None)]

    return step


def installed() -> list[str]:
    """The cases whose packages are there and have jaxtyping's annotations; newer releases of some have none."""
    return [case for case, (packages, _) in CASES.items() if all(map(annotated, packages[:1]))]


def annotated(package: str) -> bool:
    """Whether a file of a package names jaxtyping."""
    spec = find_spec(package)
    places = (spec and spec.submodule_search_locations) or []
    return any(b"jaxtyping" in file.read_bytes() for place in places for file in Path(place).rglob("*.py"))


class Process:
    """A candidate in a process of its own. It reports the seconds that a call took there."""

    def __init__(self, case: str, how: str) -> None:
        command = [sys.executable, "-W", "ignore", __file__, case, how]
        pipe = subprocess.PIPE
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.given, self.replies = self.process.stdin, self.process.stdout
        line = self.replies.readline()
        self.about: dict[str, Any] = json.loads(line) if line else {}
        """The digest of the results and the number of contracts; empty if the package cannot be imported so."""

    def __call__(self) -> None:
        self.seconds(1)

    def seconds(self, calls: int) -> float:
        print(calls, file=self.given, flush=True)
        return float(self.replies.readline())

    def close(self) -> None:
        self.given.close()
        self.process.wait()


def processes(case: str) -> dict[str, Process]:
    """The candidates that can run, which have the same results.

    Raises:
        AssertionError: a hook changes a bit of the results, or the package cannot be imported with that of towers.
    """
    found = {name: Process(case, how) for how, name in HOOKS.items()}
    running = {name: one for name, one in found.items() if one.about or name != HOOKS["jaxtyping"]}
    if len({one.about.get("digest") for one in running.values()}) != 1:
        raise AssertionError(f"{case}: { ({name: one.about for name, one in found.items()}) }")
    return running


def main(case: str, how: str) -> None:
    """Run one candidate."""
    replies, sys.stdout = sys.stdout, sys.stderr  # packages print too, and that is no reply
    os.environ["WANDB_MODE"] = "disabled"
    torch.set_num_threads(1)
    for name in ("nms", "qnms"):  # torchvision asks for operations that its compiled part defines
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    packages, make = CASES[case]
    if how == "towers":
        from towers.contracts import install

        install(*packages)
    if how == "jaxtyping":
        from jaxtyping import install_import_hook

        install_import_hook(list(packages), "beartype.beartype")
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    step = make()
    digest = hashlib.sha256(b"".join(one.numpy().tobytes() for one in step())).hexdigest()
    about = {"digest": digest, "functions": sum(1 for _ in under_contract(packages))}
    print(json.dumps(about), file=replies, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print((time.perf_counter() - start) / int(line), file=replies, flush=True)


def under_contract(packages: tuple[str, ...]) -> Iterator[object]:
    """The functions and methods in the imported modules of some packages that have a contract of towers."""
    seen: set[int] = set()
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in packages]
    for one in [one for module in modules for one in list(vars(module).values())]:
        for found in list(vars(one).values()) if isinstance(one, type) else [one]:
            if isinstance(found, (staticmethod, classmethod, property)):
                found = found.fget if isinstance(found, property) else found.__func__
            ours = isfunction(found) and (found.__module__ or "").partition(".")[0] in packages
            if ours and id(found) not in seen and getattr(found, "__contract__", None) is not None:
                seen.add(id(found))
                yield found


if __name__ == "__main__":
    main(*sys.argv[1:])
