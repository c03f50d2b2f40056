"""The safety checker of SD 1.x, tiny: its thresholds lie among the similarities of random pictures."""

from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPTextConfig

from tests.tiny.vision import EMBEDDING, WIDTH, vision_config
from tests.tiny.weights import fill


def write_safety_checker(folder: Path, threshold: float) -> None:
    """Write a StableDiffusionSafetyChecker all of whose concepts have the threshold, a cosine similarity."""
    config = CLIPConfig(
        text_config=CLIPTextConfig(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4).to_dict(),
        vision_config=vision_config().to_dict(),
        projection_dim=EMBEDDING,
    )
    checker = StableDiffusionSafetyChecker(config)
    fill(checker, 120, {})
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(threshold)
        checker.special_care_embeds_weights.fill_(threshold)
    checker.save_pretrained(folder)
