"""What a request will need of the machine's memory, told from its plan alone: an estimate, on the safe side.

Weights have budgets of their own (`MemoryBudget`); this is about pictures, latents and what a network holds meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.plan import Plan

_FLOAT = 4
_COPIES = 3  # of what passes from stage to stage: the sender's, shared memory's, the receiver's
_TENSORS_AT_ONCE = 3  # of the widest layer at full size: its input, its output, and one between
_DECODER_WIDTHS = (128, 256, 512, 512)  # of the published VAEs, where a configuration says nothing


@dataclass(frozen=True)
class Need:
    """Bytes: `own`, for as long as the request is in the server, and `peak` besides, while a network works on it."""

    own: int
    peak: int


def need(plan: Plan, sent: int) -> Need:
    """The memory for a plan whose request came with `sent` bytes."""
    request = plan.request
    pixels = plan.padded_width * plan.padded_height
    latents = 4 * pixels // plan.checkpoint.vae_scale_factor**2 * request.num_images
    steps = request.num_inference_steps if request.debug_per_pass_latents else 0
    pictures = 3 * pixels * (request.num_images + 1)
    own = sent + _COPIES * (pictures + _FLOAT * latents * (1 + steps))
    widths = plan.checkpoint.vae.config.get("block_out_channels") or _DECODER_WIDTHS
    # The last block but one hands its width to the full size; the picture's own layers are narrower.
    widest = widths[min(1, len(widths) - 1)]
    return Need(own, _TENSORS_AT_ONCE * _FLOAT * widest * pixels)
