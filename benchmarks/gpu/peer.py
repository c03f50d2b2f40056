"""diffusers' image-to-image pipelines on the GPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoPipelineForImage2Image, DDIMScheduler
from PIL import Image

from benchmarks.diffusers_baseline import run_request
from benchmarks.unique_requests import UniqueRequest

PeerForm = Literal["eager", "channels_last", "compiled", "float32"]


class GpuPeer:
    """A pipeline in memory, in float16 but for `float32`. `compiled`: channels last, and the UNet by torch.compile with
    CUDA graphs."""

    def __init__(self, checkpoint: Path, form: PeerForm) -> None:
        pipe: Any = AutoPipelineForImage2Image.from_pretrained(
            checkpoint, dtype=torch.float32 if form == "float32" else torch.float16, local_files_only=True
        ).to("cuda")
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        if form in ("channels_last", "compiled"):
            pipe.unet.to(memory_format=torch.channels_last)
            pipe.vae.to(memory_format=torch.channels_last)
        if form == "compiled":
            pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead", fullgraph=True)
        self._pipe = pipe

    def generate(self, request: UniqueRequest, steps: int) -> tuple[float, Image.Image]:
        """Seconds from the PNG file to the PNG result, and the picture."""
        begun = time.perf_counter()
        picture = run_request(self._pipe, request, steps)
        return time.perf_counter() - begun, picture

    @torch.inference_mode()
    def bare(self, rows: dict[str, torch.Tensor], calls: int) -> float:
        """Seconds of one of `calls` UNet calls that follow each other without anything between them."""
        inputs = {key: value.to("cuda", torch.float16 if key != "t" else None) for key, value in rows.items()}
        added = {"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]} if "pooled" in inputs else None

        def call() -> None:
            self._pipe.unet(inputs["latent"], inputs["t"], inputs["text"], added_cond_kwargs=added, return_dict=False)

        return seconds_a_call(call, calls)


def seconds_a_call(call: Any, calls: int) -> float:
    """The mean of `calls` calls, after three others, until the GPU has ended them all."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / calls
