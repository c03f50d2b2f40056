"""MultiDiffusion (arXiv 2302.08113) on top of diffusers' pipelines, which have none for SD and SDXL alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

LATENT = 8  # pixels


@dataclass(frozen=True)
class ReferenceTiles:
    """Tiles in pixels, in the API's terms; a stride of None is not sent."""

    width: int
    height: int
    stride_width: int | None = None
    stride_height: int | None = None


@contextmanager
def multidiffusion(pipe: Any, tiles: ReferenceTiles | None, image: Image.Image | None) -> Iterator[None]:
    """Let the pipeline's UNet see windows, and its VAE tiles, if the picture is larger than a tile.

    The UNet's predictions are averaged before the pipeline applies guidance, which is linear. diffusers' VAE has square
    tiles only, so other ones need a request without an image.
    """
    if tiles is None:
        yield
        return
    if image is not None and tiles.width != tiles.height:
        raise ValueError("diffusers' VAE has square tiles only")
    unet, vae = pipe.unet, pipe.vae
    whole = unet.forward
    kept = {name: getattr(vae, name) for name in ("use_tiling", "tile_sample_min_size", "tile_latent_min_size")}

    def forward(sample: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        return (_averaged(whole, tiles, sample, args, kwargs),)

    # In the instance: peft changes the layers below it.
    unet.forward = forward
    vae.use_tiling = image is not None and max(image.size) > tiles.width
    vae.tile_latent_min_size = tiles.width // (4 * LATENT) * 4
    vae.tile_sample_min_size = LATENT * vae.tile_latent_min_size
    try:
        yield
    finally:
        del unet.forward
        for name, value in kept.items():
            setattr(vae, name, value)


def _averaged(
    whole: Any, tiles: ReferenceTiles, sample: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.Tensor:
    rows, columns = sample.shape[2:]
    total, count = torch.zeros_like(sample), torch.zeros_like(sample)
    for top, height in _places(rows, tiles.height, tiles.stride_height):
        for left, width in _places(columns, tiles.width, tiles.stride_width):
            place = (..., slice(top, top + height), slice(left, left + width))
            total[place] += whole(sample[place], *args, **_moved(kwargs, top, left))[0]
            count[place] += 1
    return total / count


def _places(side: int, tile: int, stride: int | None) -> list[tuple[int, int]]:
    """(start, size) of each window along a side, in latents."""
    size = min(tile // LATENT, side)
    step = min(tile // 2 if stride is None else stride, tile) // LATENT
    places: list[tuple[int, int]] = []
    end = 0
    while end < side:
        start = min(len(places) * step, side - size)
        places.append((start, size))
        end = start + size
    return places


def _moved(kwargs: dict[str, Any], top: int, left: int) -> dict[str, Any]:
    """SDXL's conditions of a window: the crop of the time ids is its place, as in DemoFusion (arXiv 2311.16973)."""
    added = kwargs.get("added_cond_kwargs")
    if not added:
        return kwargs
    time_ids = added["time_ids"].clone()
    time_ids[:, 2], time_ids[:, 3] = LATENT * top, LATENT * left
    return {**kwargs, "added_cond_kwargs": {**added, "time_ids": time_ids}}
