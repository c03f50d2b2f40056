"""Estimates the memory that a request needs, from its plan alone. The estimate is an upper bound.

It covers pictures, latents, the prompts' embeddings, the residuals of ControlNets and the activations of a network.
Weights are not included: `LruBudget` limits them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from runtime.plan import Plan
from runtime.stages.prepare.denoiser_bytes import call_bytes, job_bytes
from runtime.stages.prepare.shared_memory_estimate import StageBytes, passes_bytes, stage_bytes
from runtime.stages.text_size import prompt_embeds_bytes

_FLOAT = 4
_COPIES = 3  # of each tensor between two stages: in the sender, in shared memory and in the receiver
_UNSTACKED = 1  # further copy of PER_PASS_LATENTS: the denoiser keeps the latents of each step until it stacks them
_TENSORS_AT_ONCE = 3  # of the widest layer at full size: its input, its output and one intermediate
_DECODER_WIDTHS = (128, 256, 512, 512)  # of the published VAEs; used when the configuration has no widths


@dataclass(frozen=True)
class Need:
    """Bytes: `own` while the request is in the server, and `peak` in addition while a network processes it.

    `stages`: bytes of shared memory by stage.
    """

    own: int
    peak: int
    stages: Mapping[str, StageBytes]


def need(plan: Plan, sent: int, *, block_rows: int = 0, inline: bool = False, parameters: int = 0) -> Need:
    """The memory that a plan needs. `sent`: bytes of the files in the request's tensors.

    `block_rows`: the setting. `inline` and `parameters`: see `stage_bytes`.
    """
    rows = plan.block_rows(block_rows)
    request = plan.request
    pixels = plan.padded_width * plan.padded_height
    latents = _FLOAT * prod(plan.latents_shape)
    pictures = sum(picture.nbytes for picture in plan.pictures) + 3 * pixels * request.num_images
    prompts = 2 * _FLOAT * prod(plan.image_prompt_shape) + _FLOAT * prod(plan.control_tokens_shape)
    prompts += prompt_embeds_bytes(plan)
    own = sent + _COPIES * (pictures + latents + prompts) + job_bytes(plan, rows)
    own += (_COPIES + _UNSTACKED) * passes_bytes(plan)
    widths = plan.checkpoint.vae.config.get("block_out_channels") or _DECODER_WIDTHS
    # The block before the last one upsamples to the full size in its own width; all later layers are narrower.
    widest = widths[min(1, len(widths) - 1)]
    stages = stage_bytes(plan, inline=inline, parameters=parameters)
    peak = max(_TENSORS_AT_ONCE * _FLOAT * widest * _pixels_of_a_call(plan), call_bytes(plan, rows))
    return Need(own, peak, stages)


def _pixels_of_a_call(plan: Plan) -> int:
    """Pixels of the largest piece that the VAE processes in one call."""
    height, width = plan.padded_height, plan.padded_width
    if plan.vae_tile:
        scale = plan.checkpoint.vae_scale_factor
        height, width = min(height, scale * plan.vae_tile.height), min(width, scale * plan.vae_tile.width)
    return height * width
