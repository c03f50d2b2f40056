"""Estimates the memory of a job in the denoiser, beyond its latents and prompts, from its plan. An upper bound.

The configuration's lists may have different lengths. The denoiser refuses such a network, because it cannot be built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runtime.conditioning.slices import slice_latents
from runtime.conditioning.tiles import make_windows
from runtime.networks.architecture import architecture_of
from runtime.networks.level_size import level_size
from runtime.networks.skip_connections import skip_connections
from runtime.plan import IP_MASK, Plan

_FLOAT = 4
_SCORES = 3  # copies of the attention scores in a call: as computed, with the bias, and their softmax
_ATTENDED = 2  # copies of what each adapter's attention returns: before and after the mask
_ADDED_ROWS = 2  # rows of residuals while one is added: scaled, and the new sum


def job_bytes(plan: Plan, block_rows: int) -> int:
    """What a job holds while it runs. `block_rows`: rows in one UNet call."""
    return _control_bytes(plan) + _prediction_bytes(plan) + _mask_bytes(plan) + _residual_bytes(plan, block_rows)


def call_bytes(plan: Plan, block_rows: int) -> int:
    """What a call of the UNet takes for residuals and for image prompts.

    The attentions of all adapters to their image prompts are computed at once.
    """
    residuals = 2 * block_rows * _row_bytes(plan) if plan.controlnets else 0  # stacked, and added to the skips
    _, adapters, tokens, _ = plan.image_prompt_shape
    if not adapters:
        return residuals
    options = _options(plan)
    heads = options["num_attention_heads"] or options["attention_head_dim"]  # diffusers' second name for it
    most: int = max(
        queries * (_ATTENDED * width + _SCORES * count * tokens)
        for queries, width, count in zip(_queries(plan), options["block_out_channels"], heads, strict=False)
    )
    return residuals + _FLOAT * block_rows * adapters * most


def _control_bytes(plan: Plan) -> int:
    """Control images and masks as float32."""
    return _FLOAT * sum(picture.nbytes for picture in plan.pictures if picture.tensor == "CONTROLS")


def _prediction_bytes(plan: Plan) -> int:
    """The predictions of all windows, which are kept until the last one's. Windows may overlap many times.

    Each latent has one for each branch of the prompt, then the guided one, which is copied once.
    """
    count, channels, _, _ = plan.latents_shape
    height, width = _window(plan)
    return _FLOAT * channels * _windows(plan) * count * (_branches(plan) + 2) * height * width


def _mask_bytes(plan: Plan) -> int:
    """The resized masks of all windows, and one of ones."""
    masks = sum(plan.picture(IP_MASK.format(index)) is not None for index in range(len(plan.ip_adapters)))
    return _FLOAT * _windows(plan) * (masks + 1) * sum(_queries(plan)) if masks else 0


def _residual_bytes(plan: Plan, block_rows: int) -> int:
    """The residuals of a slice: their sum, and those of the last network. The rows of a slice fill whole blocks."""
    if not plan.controlnets:
        return 0
    branches = _branches(plan)
    rows = plan.request.num_images * _windows(plan) * branches
    blocks = -(-min(rows, slice_latents(block_rows, branches) * branches) // block_rows)
    return 2 * (blocks * block_rows + _ADDED_ROWS) * _row_bytes(plan)


def _row_bytes(plan: Plan) -> int:
    """The residuals of one row: one for each skip connection, and the middle block's."""
    options = _options(plan)
    skips, queries = skip_connections(options["block_out_channels"], options["layers_per_block"]), list(_queries(plan))
    return _FLOAT * int(sum(width * queries[level] for width, level in skips))


def _queries(plan: Plan) -> Iterator[int]:
    """The places of a window at each resolution level of the UNet."""
    options = _options(plan)
    padding = options["downsample_padding"]
    for level in range(len(options["block_out_channels"])):
        height, width = (level_size(side, level, padding) for side in _window(plan))
        yield height * width


def _options(plan: Plan) -> dict[str, Any]:
    return architecture_of("unet", plan.unet.config).options


def _window(plan: Plan) -> tuple[int, int]:
    """Height and width of the latents that the UNet sees in one call."""
    tiles = plan.unet_tiles
    return (tiles.height, tiles.width) if tiles else plan.latents_shape[2:]


def _windows(plan: Plan) -> int:
    return len(make_windows(*plan.latents_shape[2:], plan.unet_tiles))


def _branches(plan: Plan) -> int:
    return 2 if plan.guided else 1
