"""Estimates the shared memory that the tensors of a request need in each stage's region, from its plan.

The Python backend copies a request's inputs into the stage's region, and the stage copies them out before it takes the
next request. So the need does not grow with the number of requests in flight: a region holds the inputs of at most two
requests, one that comes and one that is not freed yet, and the answer that the stage sends.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from math import prod
from typing import get_args

from lorikeet.protocol import tensors
from runtime.plan import PictureTensor, Plan
from runtime.schedulers.check_schedule import most_steps
from runtime.shared_memory import IN_USE_BYTES, REGION_BYTES
from runtime.stages.text_size import prompt_embeds_bytes

_FLOAT = 4
_SMALL = 16 << 10  # PLAN, REPORT, SEAL and the backend's own records of one request
_LARGE_TENSORS = 2  # of a stage; a region grows by multiples of `REGION_BYTES`
_ANSWERS = {"prepare": 2}  # a thread may begin to send an answer before another one's is freed
_LORA_RECEIPT = 4 << 10  # bytes of one LoRA's part of the receipt
_JSON_ESCAPE = 6  # bytes of a character that JSON escapes
_CLIP_WIDTH = 512  # of a pooled embedding whose configuration has no width: transformers' default

# The tensors that each stage takes and answers with, as in the ensemble's configuration. `prepare` copies FILES and
# IMAGE out of its region before it makes the plan.
STAGE_TENSORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prepare": ((), ("PICTURES", "IMAGE_PROMPTS", "CONTROLS")),
    "text_encoder": ((), ("PROMPT_EMBEDS", "POOLED_EMBEDS")),
    "image_encoder": (("IMAGE_PROMPTS",), ("IP_KEYS", "IP_VALUES", "IP_BIAS", "IP_TOKENS")),
    "vae_encoder": (("PICTURES",), ("LATENT_MEAN", "LATENT_STD", "CONCAT")),
    "denoiser": (
        (
            "CONTROLS",
            "PROMPT_EMBEDS",
            "POOLED_EMBEDS",
            "IP_KEYS",
            "IP_VALUES",
            "IP_BIAS",
            "IP_TOKENS",
            "LATENT_MEAN",
            "LATENT_STD",
            "CONCAT",
        ),
        ("LATENTS", "PER_PASS_LATENTS"),
    ),
    "vae_decoder": (("LATENTS",), ("PIXELS",)),
    "finish": (
        ("PIXELS", "LATENTS", "PER_PASS_LATENTS"),
        (tensors.RESPONSE, tensors.IMAGES, tensors.DEBUG_LATENTS, tensors.DEBUG_PER_PASS_LATENTS),
    ),
}


@dataclass(frozen=True)
class StageBytes:
    """Bytes of one request in a stage's region: its inputs, its answer, and the largest tensor of both."""

    taken: int
    answered: int
    largest: int


def stage_bytes(plan: Plan, *, inline: bool, parameters: int) -> dict[str, StageBytes]:
    """What a request needs in each stage's region, an upper bound.

    `inline`: RESPONSE holds the encoded pictures, too. `parameters`: bytes of the request's id and parameters, which
    Triton passes to every stage.
    """
    sizes = _tensor_bytes(plan, inline)
    small = _SMALL + parameters
    return {
        stage: StageBytes(
            small + sum(sizes[name] for name in taken),
            small + sum(sizes[name] for name in answered),
            max(sizes[name] for name in (*taken, *answered)),
        )
        for stage, (taken, answered) in STAGE_TENSORS.items()
    }


def passes_bytes(plan: Plan) -> int:
    """Of PER_PASS_LATENTS, an upper bound."""
    if not plan.request.debug_per_pass_latents:
        return 0
    steps = most_steps(plan.request, plan.checkpoint.scheduler, has_image=plan.has_image)
    return _FLOAT * steps * prod(plan.latents_shape)


def growth(requests: Collection[Mapping[str, StageBytes]], regions: Mapping[str, int]) -> int:
    """Bytes by which the regions may grow while these requests are in flight. A region without a size counts as new."""
    return sum(
        _stage_growth(
            [request[stage] for request in requests], regions.get(stage, REGION_BYTES), _ANSWERS.get(stage, 1)
        )
        for stage in STAGE_TENSORS
    )


def _stage_growth(requests: Sequence[StageBytes], region: int, answers: int) -> int:
    used = sum(nlargest(2, (request.taken for request in requests)))
    used += sum(nlargest(answers, (request.answered for request in requests)))
    if IN_USE_BYTES + used <= region:
        return 0
    # A tensor that does not fit makes the region grow by the tensor's size, rounded up, even if it lacks only a part.
    unused = max(request.largest for request in requests) + REGION_BYTES
    return min(used + _LARGE_TENSORS * REGION_BYTES, IN_USE_BYTES + used + unused - region)


def _picture_bytes(plan: Plan, tensor: str) -> int:
    return sum(picture.nbytes for picture in plan.pictures if picture.tensor == tensor)


def _tensor_bytes(plan: Plan, inline: bool) -> dict[str, int]:
    request, checkpoint = plan.request, plan.checkpoint
    count, channels, height, width = plan.latents_shape
    latent = _FLOAT * channels * height * width
    moment = latent if plan.has_image else 0
    passes = passes_bytes(plan)
    branches = 2 if plan.guided else 1
    pooled = [encoder.config.get("projection_dim", _CLIP_WIDTH) for encoder in checkpoint.text_encoders]
    pixels = 3 * plan.width * plan.height * count
    # Noise does not shrink when it is encoded. The metadata of each file is the receipt, with prompts and LoRAs.
    text = _JSON_ESCAPE * (len(request.prompt) + len(request.negative_prompt)) + _LORA_RECEIPT * len(plan.loras)
    encoded = pixels + pixels // 50 + count * (text + _SMALL)
    image_prompts = _FLOAT * prod(plan.image_prompt_shape)
    return {
        "IP_KEYS": image_prompts,
        "IP_VALUES": image_prompts,
        "IP_BIAS": _FLOAT * prod(plan.image_prompt_shape[1:3]),
        "IP_TOKENS": _FLOAT * prod(plan.control_tokens_shape),
        **{name: _picture_bytes(plan, name) for name in get_args(PictureTensor)},
        "PROMPT_EMBEDS": prompt_embeds_bytes(plan),
        "POOLED_EMBEDS": _FLOAT * branches * max(pooled),
        "LATENT_MEAN": moment,
        "LATENT_STD": moment,
        "CONCAT": 2 * latent if plan.ic_light else 0,
        "LATENTS": count * latent,
        "PER_PASS_LATENTS": passes,
        "PIXELS": pixels,
        tensors.RESPONSE: text + (encoded * 4 // 3 if inline else 0),
        tensors.IMAGES: encoded,
        tensors.DEBUG_LATENTS: count * latent if request.debug_latents else 0,
        tensors.DEBUG_PER_PASS_LATENTS: passes,
    }
