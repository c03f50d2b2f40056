"""Binds the ControlNets of a plan, with their control images and masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from runtime.checkpoints.checkpoint import Component
from runtime.conditioning.controlnet import ControlNet
from runtime.conditioning.tiles import make_windows
from runtime.engines.select import Engines
from runtime.networks.architecture import architecture_of
from runtime.networks.skip_connections import skip_sizes
from runtime.plan import CONTROL_IMAGE, CONTROL_MASK, Plan
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Tensors
from runtime.stages.denoiser.pictures import unit_picture


def bind_controlnets(
    engines: Engines, plan: Plan, tensors: Tensors, check_cancelled: Callable[[], None], block_rows: int
) -> list[ControlNet]:
    """The ControlNets in the request's order. `tensors`: the stage's inputs. `block_rows`: rows of their calls.

    Raises what `bind_component` raises, and then holds no binding.
    """
    found: list[ControlNet] = []
    try:
        for index, component in enumerate(plan.controlnets):
            found.append(_bind(engines, plan, index, component, tensors, check_cancelled, block_rows))
    except BaseException:
        for controlnet in found:
            controlnet.bound.release()
        raise
    return found


def _bind(
    engines: Engines,
    plan: Plan,
    index: int,
    component: Component,
    tensors: Tensors,
    check_cancelled: Callable[[], None],
    block_rows: int,
) -> ControlNet:
    asked = plan.request.controlnets[index]
    condition = unit_picture(plan, CONTROL_IMAGE.format(index), tensors)
    mask = unit_picture(plan, CONTROL_MASK.format(index), tensors)
    assert condition is not None
    image_tokens = _image_tokens(plan, asked.ip_adapter_index, tensors)
    text = tensors["PROMPT_EMBEDS"] if image_tokens is None else image_tokens
    return ControlNet(
        bind_component(engines, "controlnet", plan, component, check_cancelled, block_rows, text.shape[1]),
        condition,
        mask=None if mask is None else _thresholded(mask[0], asked.mask_threshold),  # grey: its channels are equal
        conditioning_scale=asked.conditioning_scale,
        start=asked.start_percentage,
        end=asked.end_percentage,
        pooled=_residual_sizes(plan) if component.config.get("global_pool_conditions") else None,
        tokens=image_tokens,
    )


def _residual_sizes(plan: Plan) -> list[tuple[int, int]]:
    """Those of each window: all have one size."""
    window = make_windows(*plan.latents_shape[2:], plan.unet_tiles)[0]
    return skip_sizes(architecture_of("unet", plan.unet.config).options, window.height, window.width)


def _image_tokens(plan: Plan, adapter: int | None, tensors: Tensors) -> torch.Tensor | None:
    """The tokens [branches, T, D] of an IP-Adapter; None: the ControlNet names none."""
    if adapter is None:
        return None
    counts = plan.control_tokens
    start = sum(count for index, count in counts.items() if index < adapter)
    # Copied: Triton frees its tensors with the request.
    return torch.from_numpy(np.array(tensors["IP_TOKENS"][:, start : start + counts[adapter]]))


def _thresholded(mask: torch.Tensor, threshold: float | None) -> torch.Tensor:
    return mask if threshold is None else (mask >= threshold).float()
