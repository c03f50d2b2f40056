"""The IP-Adapters of a request in diffusers' pipelines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from diffusers.models.embeddings import IPAdapterFaceIDPlusImageProjection, IPAdapterPlusImageProjection
from PIL import Image

from tests.reference.faces import embed_face, find_face
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
    of_files = [name for name in pipe.unet.peft_config if name.startswith("faceid_")] if _has_loras(pipe) else []
    try:
        if of_files:  # loading one has turned the request's own off
            names = [f"lora_{index}" for index in range(len(request.loras))]
            scales = [lora.scale for lora in request.loras]
            pipe.set_adapters([*names, *of_files], [*scales, *(1.0 for _ in of_files)])
        pipe.set_ip_adapter_scale([_scale(adapter) for adapter in adapters])
        yield {**_images(pipe, request), **_masks(request)}
    finally:
        if of_files:
            pipe.unload_lora_weights()
        pipe.unload_ip_adapter()


def _has_loras(pipe: Any) -> bool:
    return hasattr(pipe.unet, "peft_config")


def _scale(adapter: ReferenceIpAdapter) -> Any:
    return json.loads(adapter.scale) if isinstance(adapter.scale, str) else float(adapter.scale)


def _images(pipe: Any, request: ReferenceRequest) -> dict[str, Any]:
    adapters = request.ip_adapters
    if not any(adapter.noising_factor or adapter.face_pack for adapter in adapters):
        return {"ip_adapter_image": [list(adapter.images) for adapter in adapters]}
    layers = pipe.unet.encoder_hid_proj.image_projection_layers
    found = [_embeds(pipe, layer, adapter, request) for layer, adapter in zip(layers, adapters, strict=True)]
    # Without guidance, the pipelines expect the positive half alone.
    return {"ip_adapter_image_embeds": [one if request.guidance_scale > 1 else one[1:] for one in found]}


def _embeds(pipe: Any, layer: Any, adapter: ReferenceIpAdapter, request: ReferenceRequest) -> torch.Tensor:
    """[2, images, ...]: the negative image prompts, and the image prompts."""
    if adapter.face_pack is None:
        return _picture_embeds(pipe, type(layer).__name__ != "ImageProjection", adapter, adapter.images, request)
    faces = [find_face(adapter.face_pack, image) for image in adapter.images]
    if isinstance(layer, IPAdapterFaceIDPlusImageProjection):
        crops = tuple(face.crop for face in faces)
        layer.clip_embeds = _picture_embeds(pipe, True, adapter, crops, request)
        layer.shortcut = adapter.shortcut
        if request.guidance_scale <= 1:
            layer.clip_embeds = layer.clip_embeds[1:]
    embeds = _face_embeds(adapter, [face.aligned for face in faces], request)
    if isinstance(layer, IPAdapterPlusImageProjection):  # InstantID
        return embeds[:, :, None]
    lengths = embeds.norm(dim=-1, keepdim=True)
    return embeds / torch.where(lengths > 0, lengths, 1.0)


def _face_embeds(adapter: ReferenceIpAdapter, aligned: list[Any], request: ReferenceRequest) -> torch.Tensor:
    """[2, images, 512]. What diffusers lacks: the negative prompt may be the aligned face plus noise, in [0, 1]."""
    assert adapter.face_pack is not None
    positive = torch.stack([embed_face(adapter.face_pack, face) for face in aligned])
    if not adapter.noising_factor:
        return torch.stack([torch.zeros_like(positive), positive])
    generator = torch.Generator().manual_seed(request.seed)
    negative = []
    for face in aligned:
        unit = torch.from_numpy(face).double() / 255
        noise = torch.randn(face.shape, generator=generator)
        noised = (255 * (unit + adapter.noising_factor * noise).clamp(0, 1)).round().numpy()
        negative.append(embed_face(adapter.face_pack, noised))
    return torch.stack([torch.stack(negative), positive])


def _picture_embeds(
    pipe: Any, hidden: bool, adapter: ReferenceIpAdapter, pictures: Sequence[Image.Image], request: ReferenceRequest
) -> torch.Tensor:
    """[2, pictures, ...] of CLIP, its hidden states with `hidden`. What diffusers lacks: the negative prompt may be the
    picture plus noise, both in [0, 1]."""
    if not adapter.noising_factor:
        positive, negative = pipe.encode_image(list(pictures), "cpu", 1, hidden)
        return torch.stack([negative, positive])
    processor = pipe.feature_extractor
    unit = processor(list(pictures), return_tensors="pt", do_normalize=False).pixel_values
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


def _mask(adapter: ReferenceIpAdapter, size: Any) -> torch.Tensor | None:
    """diffusers lets an adapter without a mask act everywhere, beside others that have one."""
    if adapter.mask is None:
        return None
    width, height = size
    mask = IPAdapterMaskProcessor().preprocess([adapter.mask] * len(adapter.images), height=height, width=width)
    stacked: torch.Tensor = mask.reshape(1, len(adapter.images), height, width)
    return stacked
