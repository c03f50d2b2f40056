"""Image generation with the trained networks in diffusers' pipelines."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextModel

from deploy.demo_model.pipeline.components import make_scheduler
from deploy.demo_model.pipeline.tokenizer import make_tokenizer
from runtime.cpu import has_bfloat16

STEPS = 12
GUIDANCE = 3.0
LCM_STEPS = 4  # with the LCM-LoRA, at guidance 1


@dataclass(frozen=True)
class ImageGenerator:
    """Generates pictures from prompts. A picture depends on `seed` and its index in the call, not on the other rows."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    scheduler: Callable[[], Any] = make_scheduler

    def generate(
        self,
        texts: Sequence[str],
        before: Sequence[Image.Image] | None = None,
        *,
        strength: float = 0.8,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        seed: int = 0,
    ) -> list[Image.Image]:
        """A picture for each text: from noise, or from `before` with `strength`. Runs exactly `steps` steps."""
        options: dict[str, Any] = {
            "prompt": list(texts),
            "guidance_scale": guidance,
            "generator": [torch.Generator().manual_seed(seed + index) for index in range(len(texts))],
        }
        with torch.no_grad(), autocast(self.unet.device):
            if before is None:
                generated = self.pipeline(StableDiffusionPipeline)(**options, num_inference_steps=steps)
            else:
                scheduled = int(steps / strength)
                generated = self.pipeline(StableDiffusionImg2ImgPipeline)(
                    **options,
                    image=list(before),
                    num_inference_steps=scheduled,
                    strength=min(1.0, (steps + 0.5) / scheduled),
                )
        pictures: list[Image.Image] = generated.images
        return pictures

    def set_loras(self, loras: Mapping[Path, float]) -> None:
        """Use exactly these LoRAs, file to scale, in later calls."""
        pipeline = self.pipeline(StableDiffusionPipeline)
        for path in loras:
            if path.stem not in getattr(self.unet, "peft_config", {}):
                pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=path.stem)
        pipeline.set_adapters([path.stem for path in loras], list(loras.values()))

    def pipeline(self, kind: Any = StableDiffusionPipeline, **parts: Any) -> Any:
        """A pipeline of `kind` with these networks, a copy of the tokenizer, and the caller's `parts`."""
        own = {
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "tokenizer": copy.deepcopy(make_tokenizer()),  # loading an embedding adds tokens
            "unet": self.unet,
            "scheduler": self.scheduler(),
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        pipeline = kind(**own | parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def autocast(device: torch.device) -> torch.autocast:
    """To bfloat16; not on a CPU without it, where float32 is thirty times as fast."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu" or has_bfloat16())


def load_image_generator(folder: Path) -> ImageGenerator:
    """The image generator of a published checkpoint folder."""
    return ImageGenerator(
        AutoencoderKL.from_pretrained(folder / "vae"),
        UNet2DConditionModel.from_pretrained(folder / "unet"),
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
    )
