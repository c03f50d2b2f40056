"""Diffusers pipelines with a ControlNet or the IP-Adapter."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image

from deploy.demo_model.paths import CONTROLNET, IP_ADAPTER, IP_ADAPTER_FILE
from deploy.demo_model.pipeline.image_generator import GUIDANCE, STEPS, ImageGenerator, autocast


def with_controlnet(generator: ImageGenerator, controlnet: ControlNetModel | None = None) -> Any:
    """A pipeline with `controlnet`, or the published one."""
    controlnet = controlnet or ControlNetModel.from_pretrained(CONTROLNET)
    return generator.pipeline(StableDiffusionControlNetPipeline, controlnet=controlnet)


def with_ip_adapter(generator: ImageGenerator) -> Any:
    """A pipeline with the published IP-Adapter and its image encoder. The adapter stays in the generator's UNet."""
    pipeline = generator.pipeline()
    pipeline.load_ip_adapter(IP_ADAPTER, subfolder="", weight_name=IP_ADAPTER_FILE)
    return pipeline


def generate(
    pipeline: Any, texts: list[str], *, steps: int = STEPS, guidance: float = GUIDANCE, seed: int = 0, **conditions: Any
) -> list[Image.Image]:
    """A picture for each text, from noise. A picture depends on `seed` and its index."""
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(texts))]
    with torch.no_grad(), autocast(pipeline.unet.device):
        generated = pipeline(
            texts, num_inference_steps=steps, guidance_scale=guidance, generator=generators, **conditions
        )
    pictures: list[Image.Image] = generated.images
    return pictures
