"""The UNets: the topology of SD 1.5, SD 2.1 and SDXL, a few channels wide."""

from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel

from tests.tiny.denoising import lean_towards_noise
from tests.tiny.text_encoders import POOLED_2, WIDTH, WIDTH_2, WIDTH_H
from tests.tiny.weights import fill

TIME_IDS = 6
TIME_ID_WIDTH = 8
SD15: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (16, 32, 32, 32),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "attention_head_dim": 8,
    "cross_attention_dim": WIDTH,
}
SD2: dict[str, Any] = {
    **SD15,
    "sample_size": 24,
    "attention_head_dim": [2, 4, 4, 4],
    "cross_attention_dim": WIDTH_H,
    "use_linear_projection": True,
    "upcast_attention": True,
}
LCM: dict[str, Any] = {**SD15, "time_cond_proj_dim": 12}  # distilled with guidance, as LCM_Dreamshaper_v7
SDXL: dict[str, Any] = {
    "sample_size": 24,
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 3],
    "attention_head_dim": [2, 4, 8],
    "cross_attention_dim": WIDTH + WIDTH_2,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": TIME_ID_WIDTH,
    "projection_class_embeddings_input_dim": TIME_IDS * TIME_ID_WIDTH + POOLED_2,
}
SSD: dict[str, Any] = {  # the blocks of SSD-1B, which is distilled from SDXL
    **SDXL,
    "transformer_layers_per_block": [1, 2, 4],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}
EVERYTHING: dict[str, Any] = {**SDXL, "in_channels": 8, "time_cond_proj_dim": 12}
GAINS = {"conv_out.weight": 0.4}  # a quiet output, so that guidance does not run away with the prompt
TRUST = 1.0
TRUST_IN_V = 0.0  # of white latents nothing of v can be seen


def write_unet(folder: Path, seed: int, config: dict[str, Any], trust: float = TRUST) -> None:
    """Write a UNet2DConditionModel of `config` (`SD15`, `SD2`, `SDXL`, ...) into `folder`."""
    make_unet(seed, config, trust).save_pretrained(folder)


def make_unet(seed: int, config: dict[str, Any], trust: float = TRUST) -> UNet2DConditionModel:
    """A UNet2DConditionModel of `config`, with two ResNet layers in a block unless it says otherwise."""
    unet = UNet2DConditionModel(**{"layers_per_block": 2, "norm_num_groups": 4, **config})
    fill(unet, seed, GAINS)
    lean_towards_noise(unet, trust)
    return unet
