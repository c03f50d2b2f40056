"""The IP-Adapters of a request in diffusers' pipelines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from PIL import Image

from tests.reference.request import ReferenceIpAdapter, ReferenceRequest


@contextmanager
def loaded_ip_adapters(pipe: Any, request: ReferenceRequest) -> Iterator[dict[str, Any]]:
    """Load the request's adapters into a pipeline; yields its arguments for them. Unloads them afterwards."""
    adapters = request.ip_adapters
    if not adapters:
        yield {}
        return
    pipe.load_ip_adapter(
        [str(adapter.path.parent) for adapter in adapters],
        subfolder="",
        weight_name=[adapter.path.name for adapter in adapters],
    )
    try:
        pipe.set_ip_adapter_scale([_scale(adapter) for adapter in adapters])
        yield {**_images(pipe, request), **_masks(request)}
    finally:
        pipe.unload_ip_adapter()


def _scale(adapter: ReferenceIpAdapter) -> Any:
    return json.loads(adapter.scale) if isinstance(adapter.scale, str) else float(adapter.scale)


def _images(pipe: Any, request: ReferenceRequest) -> dict[str, Any]:
    if not any(adapter.noising_factor for adapter in request.ip_adapters):
        return {"ip_adapter_image": [list(adapter.images) for adapter in request.ip_adapters]}
    layers = pipe.unet.encoder_hid_proj.image_projection_layers
    embeds = [
        _noised_embeds(pipe, layer, adapter, request)
        for layer, adapter in zip(layers, request.ip_adapters, strict=True)
    ]
    return {"ip_adapter_image_embeds": embeds}


def _noised_embeds(pipe: Any, layer: Any, adapter: ReferenceIpAdapter, request: ReferenceRequest) -> torch.Tensor:
    """[2, images, ...]: what diffusers lacks. The negative image prompt is the picture plus noise, both in [0, 1]."""
    hidden = type(layer).__name__ != "ImageProjection"
    processor = pipe.feature_extractor
    unit = processor(list(adapter.images), return_tensors="pt", do_normalize=False).pixel_values
    generator = torch.Generator().manual_seed(request.seed)
    noise = torch.stack([torch.randn(picture.shape, generator=generator) for picture in unit])
    noised = (unit + adapter.noising_factor * noise).clamp(0, 1)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    positive, negative = (
        pipe.encode_image((pixels - mean) / deviation, "cpu", 1, hidden)[0] for pixels in (unit, noised)
    )
    return torch.stack([negative, positive])


def _masks(request: ReferenceRequest) -> dict[str, Any]:
    """diffusers takes a mask for each picture."""
    if not any(adapter.mask for adapter in request.ip_adapters):
        return {}
    size = request.image.size if request.image else (request.width, request.height)
    masks = [_mask(adapter, size) for adapter in request.ip_adapters]
    return {"cross_attention_kwargs": {"ip_adapter_masks": masks}}


def _mask(adapter: ReferenceIpAdapter, size: Any) -> torch.Tensor:
    width, height = size
    white = Image.fromarray(np.full((height, width), 255, np.uint8))
    mask = IPAdapterMaskProcessor().preprocess(
        [adapter.mask or white] * len(adapter.images), height=height, width=width
    )
    stacked: torch.Tensor = mask.reshape(1, len(adapter.images), height, width)
    return stacked
