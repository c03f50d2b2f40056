"""MultiDiffusion (arXiv 2302.08113) on top of diffusers' pipelines, which have none for SD and SDXL alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

    The UNet's predictions are averaged before the pipeline applies guidance, which is linear. ControlNets see the same
    window of the latents and of their pictures. diffusers' VAE has square tiles only, so other ones need a request
    without an image.
    """
    if tiles is None:
        yield
        return
    if image is not None and tiles.width != tiles.height:
        raise ValueError("diffusers' VAE has square tiles only")
    unet, vae = pipe.unet, pipe.vae
    whole = unet.forward
    kept = {name: getattr(vae, name) for name in ("use_tiling", "tile_sample_min_size", "tile_latent_min_size")}
    with _late_controlnets(getattr(pipe, "controlnet", None)) as residuals:

        def forward(sample: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
            def predict(window: _Window) -> torch.Tensor:
                own = _cropped(kwargs, window) | residuals(window)
                prediction: torch.Tensor = whole(window.latents(sample), *args, **own)[0]
                return prediction

            return (_averaged(predict, tiles, sample),)

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


@dataclass(frozen=True)
class _Window:
    """A part of the picture, in latents."""

    top: int
    left: int
    height: int
    width: int

    def latents(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._crop(tensor, 1)

    def pixels(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._crop(tensor, LATENT)

    def _crop(self, tensor: torch.Tensor, scale: int) -> torch.Tensor:
        top, left = scale * self.top, scale * self.left
        return tensor[..., top : top + scale * self.height, left : left + scale * self.width]


@contextmanager
def _late_controlnets(controlnet: Any) -> Iterator[Callable[[_Window], dict[str, Any]]]:
    """Lets the pipeline's call of its ControlNets only note what they are asked. Yields a function that calls them for
    a window, for the UNet's arguments. Masks and guess mode are not taken apart."""
    if controlnet is None:
        yield lambda window: {}
        return
    whole = controlnet.forward
    asked: list[tuple[torch.Tensor, torch.Tensor, dict[str, Any]]] = []

    def note(sample: torch.Tensor, t: torch.Tensor, **kwargs: Any) -> tuple[list[torch.Tensor], None]:
        asked[:] = [(sample, t, kwargs)]
        return [], None

    def residuals(window: _Window) -> dict[str, Any]:
        sample, t, kwargs = asked[0]
        pictures = [window.pixels(picture) for picture in kwargs["controlnet_cond"]]
        own = _cropped(kwargs, window) | {"controlnet_cond": pictures}
        down, middle = whole(window.latents(sample), t, **own)
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

    controlnet.forward = note
    try:
        yield residuals
    finally:
        del controlnet.forward


def _averaged(predict: Callable[[_Window], torch.Tensor], tiles: ReferenceTiles, sample: torch.Tensor) -> torch.Tensor:
    rows, columns = sample.shape[2:]
    total, count = torch.zeros_like(sample), torch.zeros_like(sample)
    for top, height in _places(rows, tiles.height, tiles.stride_height):
        for left, width in _places(columns, tiles.width, tiles.stride_width):
            window = _Window(top, left, height, width)
            window.latents(total).add_(predict(window))
            window.latents(count).add_(1)
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


def _cropped(kwargs: dict[str, Any], window: _Window) -> dict[str, Any]:
    """The conditions of a window: its part of the masks of IP-Adapters; in SDXL's time ids, the crop is its place, as
    in DemoFusion (arXiv 2311.16973)."""
    changed = dict(kwargs)
    if added := kwargs.get("added_cond_kwargs"):
        changed["added_cond_kwargs"] = dict(added)
        if "time_ids" in added:
            time_ids = added["time_ids"].clone()
            time_ids[:, 2], time_ids[:, 3] = LATENT * window.top, LATENT * window.left
            changed["added_cond_kwargs"]["time_ids"] = time_ids
    attention = kwargs.get("cross_attention_kwargs") or {}
    if masks := attention.get("ip_adapter_masks"):
        cropped = [None if mask is None else window.pixels(mask) for mask in masks]
        changed["cross_attention_kwargs"] = {**attention, "ip_adapter_masks": cropped}
    return changed
