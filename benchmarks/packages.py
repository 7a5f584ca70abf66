"""Public packages under `verify`: modules that other people wrote, each with a contract that is attached here.

The models are tiny and have random weights: nothing is downloaded. A package that is not installed has no rows.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from towers.contracts import attach

Made = tuple[nn.Module, str]
"""A module and its contract as text."""

CASES: dict[str, dict[str, Callable[[], Made]]] = {}
"""By package and name, what makes a case."""


def _of(package: str) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    def enter(make: Callable[[], Made]) -> Callable[[], Made]:
        CASES.setdefault(package, {})[(make.__doc__ or "").rstrip(".")] = make
        return make

    return enter


class Picked(nn.Module):
    """A model that returns a record, of which one tensor is looked at."""

    def __init__(self, inner: nn.Module, field: str, *names: str) -> None:
        super().__init__()
        self.inner, self.field, self.names = inner, field, names


class OfOne(Picked):
    def forward(self, one: Tensor) -> Tensor:
        found = self.inner(**dict(zip(self.names, (one,), strict=True))) if self.names else self.inner(one)
        return found[self.field]


class OfTwo(Picked):
    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return self.inner(**dict(zip(self.names, (one, two), strict=True)))[self.field]


IMAGES = "Float batch 3 height width -> Float batch 10"


# torchvision


@_of("torchvision")
def _() -> Made:
    """resnet18."""
    from torchvision.models import resnet18

    return resnet18(num_classes=10), IMAGES


@_of("torchvision")
def _() -> Made:
    """resnet18 in eval."""
    from torchvision.models import resnet18

    return resnet18(num_classes=10).eval(), IMAGES


@_of("torchvision")
def _() -> Made:
    """mobilenet_v3_small in eval."""
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(num_classes=10).eval(), IMAGES


@_of("torchvision")
def _() -> Made:
    """shufflenet_v2 in eval."""
    from torchvision.models import shufflenet_v2_x0_5

    return shufflenet_v2_x0_5(num_classes=10).eval(), IMAGES


@_of("torchvision")
def _() -> Made:
    """convnext_tiny in eval."""
    from torchvision.models import convnext_tiny

    return convnext_tiny(num_classes=10).eval(), IMAGES


@_of("torchvision")
def _() -> Made:
    """VisionTransformer of 32 by 32."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10), IMAGES


@_of("torchvision")
def _() -> Made:
    """SwinTransformerBlock, shifted."""
    from torchvision.models.swin_transformer import SwinTransformerBlock

    return SwinTransformerBlock(
        16, 2, [4, 4], [2, 2]
    ).eval(), "Float batch height width 16 -> Float batch height width 16"


@_of("torchvision")
def _() -> Made:
    """SwinTransformerBlock without shift."""
    from torchvision.models.swin_transformer import SwinTransformerBlock

    return SwinTransformerBlock(
        16, 2, [4, 4], [0, 0]
    ).eval(), "Float batch height width 16 -> Float batch height width 16"


@_of("torchvision")
def _() -> Made:
    """SwinTransformer, tiny."""
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 16, [1, 2], [2, 2], [4, 4], num_classes=10).eval(), IMAGES


@_of("torchvision")
def _() -> Made:
    """r3d_18 in eval."""
    from torchvision.models.video import r3d_18

    return r3d_18(num_classes=10).eval(), "Float batch 3 frames height width -> Float batch 10"


# transformers


def _config(name: str, **options: Any) -> Any:
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return getattr(transformers, name)(**small | {"vocab_size": 50} | options)


@_of("transformers")
def _() -> Made:
    """BertModel."""
    from transformers import BertModel

    model = BertModel(_config("BertConfig", max_position_embeddings=64)).eval()
    return OfOne(model, "last_hidden_state"), "Int64 batch words -> Float batch words 32"


@_of("transformers")
def _() -> Made:
    """BertModel with a mask."""
    from transformers import BertModel

    model = BertModel(_config("BertConfig", max_position_embeddings=64)).eval()
    made = OfTwo(model, "last_hidden_state", "input_ids", "attention_mask")
    return made, "Int64 batch words, Int64 batch words -> Float batch words 32"


@_of("transformers")
def _() -> Made:
    """LlamaForCausalLM."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(_config("LlamaConfig", num_key_value_heads=2, max_position_embeddings=64)).eval()
    return OfOne(model, "logits"), "Int64 batch words -> Float batch words 50"


@_of("transformers")
def _() -> Made:
    """GPT2Model."""
    from transformers import GPT2Config, GPT2Model

    model = GPT2Model(GPT2Config(vocab_size=50, n_positions=64, n_embd=32, n_layer=2, n_head=4)).eval()
    return OfOne(model, "last_hidden_state"), "Int64 batch words -> Float batch words 32"


@_of("transformers")
def _() -> Made:
    """T5ForConditionalGeneration."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    made = OfTwo(T5ForConditionalGeneration(config).eval(), "logits", "input_ids", "decoder_input_ids")
    return made, "Int64 batch words, Int64 batch steps -> Float batch steps 50"


@_of("transformers")
def _() -> Made:
    """WhisperModel."""
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=30,
        max_target_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
    )  # fmt: skip
    made = OfTwo(WhisperModel(config).eval(), "last_hidden_state", "input_features", "decoder_input_ids")
    return made, "Float batch 80 frames, Int64 batch steps -> Float batch steps 32"


@_of("transformers")
def _() -> Made:
    """ViTModel of 32 by 32."""
    from transformers import ViTModel

    model = ViTModel(_config("ViTConfig", image_size=32, patch_size=8)).eval()
    return OfOne(model, "last_hidden_state"), "Float batch 3 height width -> Float batch 17 32"


# timm


@_of("timm")
def _() -> Made:
    """resnet18 in eval."""
    from timm import create_model

    return create_model("resnet18", num_classes=10).eval(), IMAGES


@_of("timm")
def _() -> Made:
    """convnext_atto in eval."""
    from timm import create_model

    return create_model("convnext_atto", num_classes=10).eval(), IMAGES


@_of("timm")
def _() -> Made:
    """ViT of 32 by 32."""
    from timm.models import VisionTransformer

    return VisionTransformer(32, 8, num_classes=10, embed_dim=32, depth=2, num_heads=4).eval(), IMAGES


def _dynamic(**options: Any) -> Made:
    from timm.models import VisionTransformer

    sizes = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 32, "depth": 1, "num_heads": 4}
    return VisionTransformer(**sizes, dynamic_img_size=True, **options).eval(), IMAGES


@_of("timm")
def _() -> Made:
    """ViT with dynamic_img_size."""
    return _dynamic()


@_of("timm")
def _() -> Made:
    """ViT with dynamic_img_pad."""
    return _dynamic(dynamic_img_pad=True)


@_of("timm")
def _() -> Made:
    """SwinTransformer of 32 by 32."""
    from timm.models import SwinTransformer

    return SwinTransformer(
        32, 2, num_classes=10, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4
    ).eval(), IMAGES


@_of("timm")
def _() -> Made:
    """MLP-Mixer of 32 by 32."""
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=10, img_size=32, patch_size=8, num_blocks=2, embed_dim=32).eval(), IMAGES


# x-transformers


@_of("x_transformers")
def _() -> Made:
    """TransformerWrapper, a decoder."""
    from x_transformers import Decoder, TransformerWrapper

    model = TransformerWrapper(num_tokens=50, max_seq_len=64, attn_layers=Decoder(dim=32, depth=2, heads=4))
    return model.eval(), "Int64 batch words -> Float batch words 50"


@_of("x_transformers")
def _() -> Made:
    """Encoder with rotary positions."""
    from x_transformers import Encoder

    return Encoder(dim=32, depth=2, heads=4, rotary_pos_emb=True).eval(), "Float batch words 32 -> Float batch words 32"


@_of("x_transformers")
def _() -> Made:
    """ViTransformerWrapper of 32 by 32."""
    from x_transformers import Encoder, ViTransformerWrapper

    model = ViTransformerWrapper(
        image_size=32, patch_size=8, num_classes=10, attn_layers=Encoder(dim=32, depth=2, heads=4)
    )
    return model.eval(), IMAGES


@_of("x_transformers")
def _() -> Made:
    """ContinuousTransformerWrapper."""
    from x_transformers import ContinuousTransformerWrapper, Encoder

    model = ContinuousTransformerWrapper(
        dim_in=8, dim_out=6, max_seq_len=64, attn_layers=Encoder(dim=32, depth=2, heads=4)
    )
    return model.eval(), "Float batch words 8 -> Float batch words 6"


# torchaudio


@_of("torchaudio")
def _() -> Made:
    """Conformer."""
    from torchaudio.models import Conformer

    model = Conformer(16, 4, 32, 2, 7).eval()
    return OfFirst(model), "Float batch time 16 -> Float batch time 16"


class OfFirst(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, one: Tensor) -> Tensor:
        lengths = torch.full((one.shape[0],), one.shape[1], device=one.device)
        return self.inner(one, lengths)[0]


@_of("torchaudio")
def _() -> Made:
    """Wav2Letter on spectra."""
    from torchaudio.models import Wav2Letter

    return Wav2Letter(10, "mfcc", 16).eval(), "Float batch 16 time -> Float batch 10 steps"


@_of("torchaudio")
def _() -> Made:
    """ConvTasNet."""
    from torchaudio.models import ConvTasNet

    model = ConvTasNet(2, 16, 16, 3, 16, 16, 2, 1).eval()
    return model, "Float batch 1 time -> Float batch 2 time"


@_of("torchaudio")
def _() -> Made:
    """DeepSpeech."""
    from torchaudio.models import DeepSpeech

    return DeepSpeech(16, 32, 10).eval(), "Float batch 1 time 16 -> Float batch time 10"


@_of("torchaudio")
def _() -> Made:
    """MelSpectrogram."""
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(n_fft=64, hop_length=32, n_mels=8), "Float batch time -> Float batch 8 time//32+1"


# monai

FLAT = "Float batch 1 height width -> Float batch 2 height width"
DEEP = "Float batch 1 height width depth -> Float batch 2 height width depth"


@_of("monai")
def _() -> Made:
    """UNet in two dimensions."""
    from monai.networks.nets import UNet

    return UNet(2, 1, 2, (4, 8, 16), (2, 2)).eval(), FLAT


@_of("monai")
def _() -> Made:
    """UNet in three dimensions."""
    from monai.networks.nets import UNet

    return UNet(3, 1, 2, (4, 8, 16), (2, 2)).eval(), DEEP


@_of("monai")
def _() -> Made:
    """BasicUNet in two dimensions."""
    from monai.networks.nets import BasicUNet

    return BasicUNet(2, 1, 2, (4, 4, 8, 8, 8, 4)).eval(), FLAT


@_of("monai")
def _() -> Made:
    """AttentionUnet in two dimensions."""
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(2, 1, 2, (4, 8, 16), (2, 2)).eval(), FLAT


@_of("monai")
def _() -> Made:
    """SegResNet in two dimensions."""
    from monai.networks.nets import SegResNet

    return SegResNet(2, 8, 1, 2, blocks_down=(1, 1, 1), blocks_up=(1, 1)).eval(), FLAT


@_of("monai")
def _() -> Made:
    """UNETR of 32 by 32."""
    from monai.networks.nets import UNETR

    return UNETR(1, 2, (32, 32), 4, 16, 32, 2, spatial_dims=2).eval(), FLAT


@_of("monai")
def _() -> Made:
    """SwinUNETR in two dimensions."""
    from monai.networks.nets import SwinUNETR

    model = SwinUNETR(
        1, 2, 2, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2), window_size=4, feature_size=12, spatial_dims=2
    )
    return model.eval(), FLAT


# pytorch-forecasting


@_of("pytorch_forecasting")
def _() -> Made:
    """GatedResidualNetwork."""
    from pytorch_forecasting.models.temporal_fusion_transformer.sub_modules import GatedResidualNetwork

    return GatedResidualNetwork(8, 16, 4).eval(), "Float batch time 8 -> Float batch time 4"


@_of("pytorch_forecasting")
def _() -> Made:
    """InterpretableMultiHeadAttention."""
    from pytorch_forecasting.models.temporal_fusion_transformer.sub_modules import InterpretableMultiHeadAttention

    inputs, results = "Float batch steps 16, Float batch time 16, Float batch time 16", "Float batch steps 4 time"
    return InterpretableMultiHeadAttention(4, 16).eval(), f"{inputs} -> Float batch steps 16, {results}"


@_of("pytorch_forecasting")
def _() -> Made:
    """NBEATSSeasonalBlock."""
    from pytorch_forecasting.models.nbeats.sub_modules import NBEATSSeasonalBlock

    block = NBEATSSeasonalBlock(16, 4, backcast_length=12, forecast_length=6).eval()
    return block, "Float batch 12 -> Float batch 12, Float batch 6"


def installed(package: str) -> bool:
    """Whether a package can be imported; what it needs beside a CPU's torch is made ready before."""
    for name in ("nms", "qnms"):  # torchvision asks for operations that its compiled part defines
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        import_module(package)
    except (ImportError, OSError):  # the compiled part of a package may be for another torch
        return False
    return True


def cases(package: str) -> Iterator[tuple[str, nn.Module]]:
    """Each module of a package with its contract."""
    for name, make in CASES[package].items():
        torch.manual_seed(0)
        module, text = make()
        attach(module, text)
        yield name, module
