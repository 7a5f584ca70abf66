"""`towers verify` on modules of public packages, as they are installed: einops, lightning and torchmetrics."""

import sys
from pathlib import Path

import pytest

from towers.cli import main

EINOPS = """
from einops.layers.torch import EinMix, Rearrange, Reduce

heads = Rearrange("batch time (head width) -> batch head time width", head=4)
patches = Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=4, q=4)
largest = Reduce("batch time width -> batch width", "max")
halved = Reduce("b c (h two) (w deux) -> b c h w", "mean", two=2, deux=2)
mixed = EinMix("batch time width -> batch time out", weight_shape="width out", bias_shape="out", width=8, out=6)
"""

LIGHTNING = """
from lightning.pytorch.demos.transformer import PositionalEncoding


def positions():
    return PositionalEncoding(8, max_len=50)
"""

PROVEN, LIMITED, FAILED = "proven", "holds if", "failed"

CASES = [
    ("einops", "theirs:heads", "batch time 4*width -> batch 4 time width", PROVEN),
    ("einops", "theirs:heads", "batch time 32 -> batch time 4 8", "specialised time == 4"),
    ("einops", "theirs:heads", "batch time 30 -> batch 4 time 8", FAILED),
    ("einops", "theirs:patches", "batch 3 4*high 4*wide -> batch high*wide 48", PROVEN),
    ("einops", "theirs:patches", "batch 3 4*high 4*wide -> batch high+wide 48", "holds if high*wide == high+wide"),
    ("einops", "theirs:largest", "batch time width -> batch width", PROVEN),
    ("einops", "theirs:largest", "batch time width -> batch time", "holds if time == width"),
    ("einops", "theirs:halved", "batch c 2*high 2*wide -> batch c high wide", PROVEN),
    ("einops", "theirs:halved", "batch c high 2*wide -> batch c high//2 wide", LIMITED),
    ("einops", "theirs:mixed", "batch time 8 -> batch time 6", PROVEN),
    ("einops", "theirs:mixed", "batch time 8 -> batch time 8", FAILED),
    ("lightning", "lightning.pytorch.demos.boring_classes:BoringModel", "batch 32 -> batch 2", PROVEN),
    ("lightning", "lightning.pytorch.demos.boring_classes:BoringModel", "batch 32 -> batch 3", FAILED),
    ("lightning", "lightning.pytorch.demos.boring_classes:Net", "batch 1 28 28 -> batch 10", PROVEN),
    ("lightning", "lightning.pytorch.demos.boring_classes:Net", "batch 28 28 1 -> batch 10", FAILED),
    ("lightning", "theirs:positions", "batch time 8 -> batch time 8", "holds if time <= 49"),
    ("torchmetrics", "torchmetrics.functional.image.lpips:ScalingLayer", "n 3 high wide -> n 3 high wide", PROVEN),
    (
        "torchmetrics",
        "torchmetrics.functional.image.lpips:ScalingLayer",
        "n high wide 3 -> n high wide 3",
        "specialised",
    ),
    ("torchmetrics", "torchmetrics:MeanSquaredError", "batch, batch -> ", PROVEN),
    ("torchmetrics", "torchmetrics:MeanSquaredError", "batch, batch -> batch", FAILED),
    ("torchmetrics", "torchmetrics:CosineSimilarity", "batch 8, batch 8 -> ", PROVEN),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    return tmp_path


@pytest.mark.parametrize(("package", "target", "text", "verdict"), CASES)
def test_modules_of_public_packages(
    package: str, target: str, text: str, verdict: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip(package, reason=f"{package} comes with the extra `train`")
    (folder / "theirs.py").write_text({"einops": EINOPS, "lightning": LIGHTNING}.get(package, ""), "utf8")
    code = main(["verify", target, "--contract", text, "--seconds", "60"])
    printed = capsys.readouterr().out
    assert code == (0 if verdict == PROVEN else 1)
    assert printed.splitlines()[0].partition(": ")[2].startswith(verdict)
    assert max(map(len, printed.splitlines())) <= 100
