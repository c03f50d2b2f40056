"""The ControlNets of a request in diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel
from PIL import Image
from torch.utils.hooks import RemovableHandle

from tests.reference.request import ReferenceControlNet, ReferenceRequest


@contextmanager
def loaded_controlnets(controlnets: tuple[ReferenceControlNet, ...]) -> Iterator[list[ControlNetModel]]:
    """The networks of the request. What diffusers lacks: each mask multiplies its network's residuals, resized by
    area."""
    with ExitStack() as hooks:
        # Two of one folder are two networks, because each has its own mask.
        networks = [_load(index, controlnet.path) for index, controlnet in enumerate(controlnets)]
        for network, controlnet in zip(networks, controlnets, strict=True):
            if controlnet.mask is not None:
                for handle in _mask_residuals(network, _pixels(controlnet.mask)):
                    hooks.callback(handle.remove)
        yield networks


def controlnet_arguments(request: ReferenceRequest) -> dict[str, Any]:
    """The pipelines' arguments for the ControlNets of the request."""
    if not request.controlnets:
        return {}
    pictures = [controlnet.image for controlnet in request.controlnets]
    return {
        ("image" if request.image is None else "control_image"): pictures,
        "controlnet_conditioning_scale": [float(controlnet.conditioning_scale) for controlnet in request.controlnets],
        "control_guidance_start": [controlnet.start for controlnet in request.controlnets],
        "control_guidance_end": [controlnet.end for controlnet in request.controlnets],
        "guess_mode": request.controlnet_guess_mode,
    }


@cache
def _load(_index: int, folder: Path) -> ControlNetModel:
    return ControlNetModel.from_pretrained(folder)


def _pixels(mask: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(mask.convert("L"))).float()[None, None] / 255


def _mask_residuals(network: ControlNetModel, mask: torch.Tensor) -> Iterator[RemovableHandle]:
    """Hooks that mask each residual at the size of its layer's output: a network may give means of the outputs."""
    layers = [*network.controlnet_down_blocks, network.controlnet_mid_block]
    masks: dict[int, torch.Tensor] = {}

    def resize(index: int, _layer: Any, _inputs: Any, output: torch.Tensor) -> None:
        masks[index] = torch.nn.functional.interpolate(mask, output.shape[-2:], mode="area")

    def multiply(_network: Any, _inputs: Any, output: Any) -> Any:
        down, mid = output
        return [residual * masks[index] for index, residual in enumerate(down)], mid * masks[len(down)]

    for index, layer in enumerate(layers):
        yield layer.register_forward_hook(partial(resize, index))
    yield network.register_forward_hook(multiply)
