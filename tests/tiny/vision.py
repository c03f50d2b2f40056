"""The vision configuration of the tiny CLIP models: 17 tokens."""

from typing import Any

from transformers import CLIPVisionConfig

WIDTH, EMBEDDING = 32, 24
SIDE, PATCH = 32, 8


def vision_config(**options: Any) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=EMBEDDING,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        **options,
    )
