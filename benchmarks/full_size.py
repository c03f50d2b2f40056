"""Checkpoints of the published sizes with random weights: the values of weights do not change time and memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from runtime.checkpoints.clip_vocabulary import clip_vocabulary
from runtime.checkpoints.model_families import SD_1, SDXL, Family
from tests.tiny.weights import fill

STORED = torch.bfloat16
MAX_TOKENS = 77
AnyModule = TypeVar("AnyModule", bound=nn.Module)
_GAINS = {"conv_out.weight": 0.4}  # with small predictions, pictures stay finite under guidance


@dataclass(frozen=True)
class Sizes:
    """A family's networks: the values that their configurations add to the family's."""

    family: Family
    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoders: tuple[dict[str, Any], ...]

    def make_unet(self) -> UNet2DConditionModel:
        return UNet2DConditionModel(**self.family.unet | self.unet)


_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
_OPEN_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
SD15_SIZES = Sizes(SD_1, {"attention_head_dim": 8, "cross_attention_dim": 768}, _VAE, (_CLIP_L,))
SDXL_SIZES = Sizes(
    SDXL,
    {
        "attention_head_dim": (5, 10, 20),
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "projection_class_embeddings_input_dim": 2816,
    },
    _VAE,
    (_CLIP_L, _OPEN_CLIP_G),
)


def write_checkpoint(folder: Path, sizes: Sizes, seed: int, device: torch.device | None = None) -> None:
    """Write a diffusers folder in bfloat16. The whole checkpoint is in memory.

    Equal seeds give equal weights on one kind of device, by default the CPU.
    """
    family = sizes.family
    texts = [
        CLIPTextConfig(**own | given) for own, given in zip(family.text_encoders, sizes.text_encoders, strict=True)
    ]
    parts: dict[str, Any] = {
        "unet": random_network(sizes.make_unet, seed, device),
        "vae": random_network(lambda: AutoencoderKL(**family.vae | sizes.vae), seed + 1, device),
        "text_encoder": random_network(lambda: CLIPTextModel(texts[0]), seed + 2, device),
        "tokenizer": _tokenizer(family.pads[0]),
        "scheduler": _scheduler(family),
    }
    if family.kind == "sdxl":
        second = random_network(lambda: CLIPTextModelWithProjection(texts[1]), seed + 3, device)
        pipeline = StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=_tokenizer(family.pads[1]))
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(folder)
    for tokenizer in folder.glob("tokenizer*"):
        _write_vocabulary(tokenizer)


def random_network(make: Callable[[], AnyModule], seed: int, device: torch.device | None = None) -> AnyModule:
    """A network with random weights in bfloat16. At most one tensor at a time is in float32."""
    with torch.device("meta"):
        module = make()
    nn.Module.to(module, STORED)  # diffusers' own `to` warns about casts of weights
    module.to_empty(device=device or "cpu")
    fill(module, seed, _GAINS, device)
    return module


def _scheduler(family: Family) -> Any:
    return getattr(diffusers, family.scheduler["_class_name"]).from_config(family.scheduler)


def _tokenizer(pad: str) -> CLIPTokenizer:
    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=MAX_TOKENS)


def _write_vocabulary(folder: Path) -> None:
    """Write the two files that every published folder has, but transformers 5 does not write."""
    vocabulary, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
