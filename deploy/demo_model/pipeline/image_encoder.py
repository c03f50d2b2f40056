"""The IP-Adapter's image encoder: a small CLIP vision model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

SIDE = 64  # pixels that the encoder sees
WIDTH = 128


def make_image_encoder() -> CLIPVisionModelWithProjection:
    """An untrained image encoder: pixels [n, 3, SIDE, SIDE] to `image_embeds` [n, WIDTH]."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=8,
            projection_dim=WIDTH,
        )
    )


def image_processor() -> CLIPImageProcessorPil:
    """CLIP's image processor at the encoder's size, as `load_ip_adapter` creates it."""
    return CLIPImageProcessorPil(size=SIDE, crop_size=SIDE)


def prepare(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """The encoder's input for `pictures`: float32 [n, 3, SIDE, SIDE]."""
    pixels: torch.Tensor = image_processor()(images=list(pictures), return_tensors="pt").pixel_values
    return pixels


def save_image_encoder(image_encoder: CLIPVisionModelWithProjection, folder: Path) -> None:
    """Write the encoder in float16 and its image processor."""
    image_encoder.half().save_pretrained(folder)
    image_processor().save_pretrained(folder)
