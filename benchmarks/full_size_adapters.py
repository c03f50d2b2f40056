"""A ControlNet, an IP-Adapter and its image encoder with random weights in bfloat16, in the published sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.full_size import Sizes, random_network
from runtime.networks.architecture import architecture_of
from runtime.networks.image_projection import ImageProjection

TOKENS = 4  # of an IP-Adapter of the kind `base`
VIT_H: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1024,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}


def write_controlnet(folder: Path, sizes: Sizes, seed: int) -> None:
    """Write a ControlNet of the UNet of `sizes`. No weight is 0: before training, its last convolutions are."""

    def make() -> ControlNetModel:
        return ControlNetModel.from_unet(sizes.make_unet(), load_weights_from_unet=False)

    random_network(make, seed).save_pretrained(folder)


def write_image_encoder(folder: Path, vision: dict[str, Any], seed: int) -> None:
    random_network(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**vision)), seed).save_pretrained(folder)


def write_ip_adapter(path: Path, sizes: Sizes, vision: dict[str, Any], seed: int) -> None:
    """Write an IP-Adapter of the kind `base` for the UNet of `sizes`, under the names of the technique's authors."""
    with torch.device("meta"):
        modules = sizes.make_unet().named_modules()
    options = {
        "projection": "base",
        "image_embed_dim": vision["projection_dim"],
        "cross_attention_dim": sizes.unet["cross_attention_dim"],
        "tokens": TOKENS,
        "inner_widths": [module.inner_dim for name, module in modules if name.endswith(".attn2")],
    }
    network = random_network(lambda: ImageProjection(architecture_of("image_projection", options)), seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({_stored_name(name): tensor for name, tensor in network.state_dict().items()}, path)


def _stored_name(name: str) -> str:
    """Layers are numbered as diffusers counts its attention processors: self-attention has the even numbers."""
    part, _, rest = name.partition(".")
    if part == "image_proj":
        return name.replace("image_embeds", "proj")
    number, _, ending = rest.partition(".")
    return f"ip_adapter.{2 * int(number) + 1}.{part}.{ending}"
