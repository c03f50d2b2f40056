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
                handle = network.register_forward_hook(partial(_masked, _pixels(controlnet.mask)))
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


def _masked(mask: torch.Tensor, _network: Any, _inputs: Any, output: Any) -> Any:
    down, mid = output
    return [_times(residual, mask) for residual in down], _times(mid, mask)


def _times(residual: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return residual * torch.nn.functional.interpolate(mask, residual.shape[-2:], mode="area")
