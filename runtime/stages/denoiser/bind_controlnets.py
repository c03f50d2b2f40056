"""Binds the ControlNets of a plan, with their control images and masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from runtime.checkpoints.checkpoint import Component
from runtime.conditioning.controlnet import ControlNet
from runtime.engines.select import Engines
from runtime.plan import CONTROL_IMAGE, CONTROL_MASK, Plan
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Array


def bind_controlnets(
    engines: Engines, plan: Plan, pictures: Array, check_cancelled: Callable[[], None], block_rows: int
) -> list[ControlNet]:
    """The ControlNets in the request's order. `pictures`: the tensor PICTURES. `block_rows`: rows of their calls.

    Raises what `bind_component` raises, and then holds no binding.
    """
    found: list[ControlNet] = []
    try:
        for index, component in enumerate(plan.controlnets):
            found.append(_bind(engines, plan, index, component, pictures, check_cancelled, block_rows))
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
    pictures: Array,
    check_cancelled: Callable[[], None],
    block_rows: int,
) -> ControlNet:
    asked = plan.request.controlnets[index]
    condition = _picture(plan, CONTROL_IMAGE.format(index), pictures)
    mask = _picture(plan, CONTROL_MASK.format(index), pictures)
    assert condition is not None
    return ControlNet(
        bind_component(engines, "controlnet", plan, component, check_cancelled, block_rows),
        condition,
        mask=None if mask is None else mask[0],  # a grey picture: its channels are equal
        conditioning_scale=asked.conditioning_scale,
        start=asked.start_percentage,
        end=asked.end_percentage,
        pools=bool(component.config.get("global_pool_conditions")),
    )


def _picture(plan: Plan, field: str, pictures: Array) -> torch.Tensor | None:
    """A picture [3, padded H, padded W] in [0, 1], on the CPU; None: the request has none."""
    picture = plan.picture(field)
    if picture is None:
        return None
    bottom, right = plan.padded_height - picture.height, plan.padded_width - picture.width
    padded = np.pad(picture.pixels(pictures), ((0, bottom), (0, right), (0, 0)), mode="edge")
    return torch.from_numpy(padded).permute(2, 0, 1).float() / 255.0
