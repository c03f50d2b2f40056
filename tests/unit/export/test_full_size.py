"""Graphs of the published sizes: every parameter by its name, and less than 1 MB on disk. `make verify` runs this."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks.full_size import SD15_SIZES, SDXL_SIZES, Sizes
from export.make_artifact import make_artifact
from runtime.artifacts.manifest import ArtifactKey, low_rank_modes
from runtime.checkpoints.model_families import SD_2_V
from runtime.networks.architecture import NetworkKind, architecture_of

pytestmark = pytest.mark.verify

LIMIT = 1_000_000  # bytes of a compressed graph
_OPEN_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
SD21_SIZES = Sizes(
    SD_2_V,
    {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True},
    SD15_SIZES.vae,
    (_OPEN_CLIP_H,),
)
SIZES = {"sd15": SD15_SIZES, "sd21": SD21_SIZES, "sdxl": SDXL_SIZES}
# Those of the UNet that a ControlNet shares.
_CONTROLNET = (
    "attention_head_dim",
    "cross_attention_dim",
    "use_linear_projection",
    "block_out_channels",
    "down_block_types",
    "transformer_layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)
Shapes = dict[str, tuple[int, ...]]


def _networks(sizes: Sizes) -> dict[str, tuple[NetworkKind, dict[str, Any], Shapes]]:
    """Name -> kind, configuration, and the shapes of diffusers' or transformers' own state_dict."""
    family = sizes.family
    unet, vae = family.unet | sizes.unet, family.vae | sizes.vae
    controlnet = {name: unet[name] for name in _CONTROLNET if name in unet}
    with torch.device("meta"):
        vae_shapes = _shapes(AutoencoderKL(**vae))
        found: dict[str, tuple[NetworkKind, dict[str, Any], Shapes]] = {
            "unet": ("unet", unet, _shapes(UNet2DConditionModel(**unet))),
            "controlnet": ("controlnet", controlnet, _shapes(ControlNetModel(**controlnet))),
            "vae_encoder": ("vae_encoder", vae, _starting(vae_shapes, "encoder.", "quant_conv.")),
            "vae_decoder": ("vae_decoder", vae, _starting(vae_shapes, "decoder.", "post_quant_conv.")),
        }
        for index, (own, given) in enumerate(zip(family.text_encoders, sizes.text_encoders, strict=True)):
            found[f"text_encoder_{index}"] = ("text_encoder", own | given, _text_shapes(own | given))
    return found


# The image encoders of IP-Adapters for SD 1.x and SDXL.
_VISION = {"patch_size": 14, "num_attention_heads": 16, "hidden_act": "gelu", "projection_dim": 1024}
_IMAGE_ENCODERS = {
    "sd15": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32},
    "sdxl": {"hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48, "projection_dim": 1280},
}


@pytest.mark.parametrize("size", _IMAGE_ENCODERS)
def test_an_image_encoder_of_full_size(size: str, record_property: Any) -> None:
    config = _VISION | _IMAGE_ENCODERS[size]
    with torch.device("meta"):
        shapes = _shapes(CLIPVisionModelWithProjection(CLIPVisionConfig(**config)))
    _check("image_encoder", config, shapes, record_property)


def _shapes(module: torch.nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _starting(shapes: Shapes, *prefixes: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefixes)}


def _text_shapes(config: dict[str, Any]) -> Shapes:
    """By the names of published files; transformers 5 drops the prefix of CLIPTextModel."""
    if config["architectures"] == ["CLIPTextModelWithProjection"]:
        return _shapes(CLIPTextModelWithProjection(CLIPTextConfig(**config)))
    return {f"text_model.{name}": shape for name, shape in _shapes(CLIPTextModel(CLIPTextConfig(**config))).items()}


PARTS = ("unet", "controlnet", "vae_encoder", "vae_decoder", "text_encoder_0")
NAMES = [*((size, name) for size in SIZES for name in PARTS), ("sdxl", "text_encoder_1")]


@pytest.mark.parametrize(("size", "name"), NAMES)
def test_a_graph_of_full_size(size: str, name: str, record_property: Any) -> None:
    _check(*_networks(SIZES[size])[name], record_property)


def _check(kind: NetworkKind, config: dict[str, Any], shapes: Shapes, record_property: Any) -> None:
    architecture = architecture_of(kind, config)
    key = ArtifactKey(kind, architecture.digest, low_rank_modes(kind)[-1])
    made = make_artifact(key, architecture, lambda _: None)
    artifact = made.artifact
    graph = onnx.load_from_string(artifact.graph).graph
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    assert found == {name: shape for name, shape in shapes.items() if name not in artifact.manifest.outside}
    compressed = len(made.compressed)
    record_property("bytes", compressed)
    assert compressed < LIMIT
