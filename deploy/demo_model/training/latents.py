"""Latents of scenes, encoded once: the training data of the UNet and its adapters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from diffusers import AutoencoderKL
from PIL import Image

from deploy.demo_model.paths import TRAINING
from deploy.demo_model.pipeline.image_generator import autocast
from deploy.demo_model.pipeline.pictures import to_pixels
from deploy.demo_model.pipeline.tokenizer import MAX_TOKENS, make_tokenizer
from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.loop import device
from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.random_scenes import training_scenes
from deploy.demo_model.world.scene import Scene, draw

EMPTY_SHARE = 0.1  # of captions are empty, as classifier-free guidance needs
_CHUNK = 16


@dataclass(frozen=True)
class LatentDataset:
    """`scenes` and their unscaled `latents` [n, 4, 16, 16]."""

    scenes: list[Scene]
    latents: torch.Tensor

    def batch(self, count: int, random: Random) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of `count` random scenes and the tokens [count, 77] of a new caption for each."""
        chosen = [random.randrange(len(self.scenes)) for _ in range(count)]
        texts = ["" if random.random() < EMPTY_SHARE else caption(self.scenes[index], random) for index in chosen]
        return self.latents[chosen].float().to(device()), tokens(texts).to(device())


def tokens(texts: list[str]) -> torch.Tensor:
    """Token ids int64 [n, 77], padded as diffusers pads them."""
    encoded = make_tokenizer()(texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids


def encode(vae: AutoencoderKL, pictures: Iterable[Image.Image]) -> torch.Tensor:
    """The unscaled latents [n, 4, 16, 16] of `pictures`, in float16 on the CPU."""
    parts, remaining = [], iter(pictures)
    while chunk := list(islice(remaining, _CHUNK)):
        with torch.no_grad(), autocast(device()):
            pixels = to_pixels(chunk).to(device(), memory_format=torch.channels_last)
            parts.append(vae.encode(pixels).latent_dist.mode().half().cpu())
    return torch.cat(parts)


def training_latents(vae: AutoencoderKL, count: int) -> LatentDataset:
    """The latents of the first `count` training scenes. Process 0 encodes them once and caches them in `TRAINING`."""
    scenes = list(islice(training_scenes(0), count))
    path = TRAINING / f"latents-{count}.pt"
    if not path.exists() and data_parallel.rank() == 0:
        TRAINING.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        torch.save(encode(vae, map(draw, scenes)), part)
        part.replace(path)
    data_parallel.barrier()
    return LatentDataset(scenes, torch.load(path, weights_only=True))


def remove_latents() -> None:
    """Delete cached latents, which become invalid when the autoencoder changes."""
    for path in TRAINING.glob("latents-*.pt"):
        path.unlink(missing_ok=True)
