"""A diffusers pipeline with the server's dtype and number of threads."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

from benchmarks.unique_requests import GUIDANCE_SCALE, NOISE_STRENGTH, UniqueRequest
from runtime.engines.placement import pin_threads, place
from runtime.settings import load_settings


class DiffusersBaseline:
    """A pipeline in memory. In reduced precision it uses channels last, as diffusers' guide advises: without it,
    convolutions take twice as long on a CPU, and the comparison would be unfair to diffusers."""

    def __init__(self, checkpoint: Path) -> None:
        for logging in (diffusers_logging, transformers_logging):
            logging.disable_progress_bar()
            logging.set_verbosity_error()
        settings = load_settings()
        pin_threads(settings)
        placement = place(settings)
        self._pipe: Any = StableDiffusionImg2ImgPipeline.from_pretrained(
            checkpoint, dtype=placement.dtype, local_files_only=True
        ).to(placement.device)
        self._pipe.scheduler = DDIMScheduler.from_config(self._pipe.scheduler.config)
        self._pipe.set_progress_bar_config(disable=True)
        if placement.dtype != torch.float32:
            self._pipe.unet.to(memory_format=torch.channels_last)
            self._pipe.vae.to(memory_format=torch.channels_last)

    def about(self) -> dict[str, object]:
        """The number of threads and the dtype."""
        return {"threads": torch.get_num_threads(), "dtype": str(self._pipe.unet.dtype).removeprefix("torch.")}

    def generate(self, request: UniqueRequest, steps: int) -> float:
        """Seconds from the PNG file to the PNG result. Asserts that the pipeline ran `steps` steps."""
        taken: list[int] = []

        def count(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            taken.append(step)
            return tensors

        begun = time.perf_counter()
        run_request(self._pipe, request, steps, callback_on_step_end=count)
        seconds = time.perf_counter() - begun
        assert len(taken) == steps, f"diffusers ran {len(taken)} steps, not {steps}"
        return seconds

    def keep_fused(self, loras: Sequence[Path]) -> None:
        """Fuse LoRA files at scale 1, for all later requests."""
        for lora in loras:
            self._pipe.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name=lora.stem)
        self._pipe.set_adapters([lora.stem for lora in loras])
        self._pipe.fuse_lora()

    def fuse(self, lora: Path) -> float:
        """Seconds to load a LoRA file and fuse it. The LoRA is removed afterwards."""
        begun = time.perf_counter()
        self._pipe.load_lora_weights(lora.parent, weight_name=lora.name)
        self._pipe.fuse_lora()
        seconds = time.perf_counter() - begun
        self._pipe.unfuse_lora()
        self._pipe.unload_lora_weights()
        return seconds


def run_request(pipe: Any, request: UniqueRequest, steps: int, **options: Any) -> Image.Image:
    """The picture of an image-to-image pipeline that runs `steps` steps, from the PNG file to the PNG result."""
    schedule_steps = int(steps / NOISE_STRENGTH)
    picture: Image.Image = pipe(
        prompt=request.prompt,
        image=Image.open(io.BytesIO(request.image)),
        strength=(steps + 0.5) / schedule_steps,
        num_inference_steps=schedule_steps,
        guidance_scale=GUIDANCE_SCALE,
        generator=torch.Generator().manual_seed(request.seed),
        **options,
    ).images[0]
    picture.save(io.BytesIO(), "PNG")
    return picture
