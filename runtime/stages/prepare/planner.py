"""Makes a plan of a validated request: each feature resolves its part, in order, cheap checks first."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from lorikeet.schema import MAX_REF, ImageToImageInput, map_file_refs, unknown_field_warnings
from lorikeet.schema.walk import walk_models
from runtime.jobs.job_table import JobRef
from runtime.plan import Plan
from runtime.stages.prepare import checkpoint as checkpoints
from runtime.stages.prepare import clip_skip, embeddings, loras, pictures, prompts, schedule, size, unavailable
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.pictures import Pictures

_SEED_BITS = 32  # JavaScript's numbers hold that exactly


@dataclass(frozen=True)
class Admission:
    """An admitted job, when it was admitted (CLOCK_MONOTONIC seconds), and its priority."""

    job: JobRef
    started: float
    priority: int


@dataclass(frozen=True)
class Prepared:
    """A plan, and the pictures of its request."""

    plan: Plan
    pictures: Pictures


def make_plan(request: ImageToImageInput, context: PrepareContext, admission: Admission) -> Prepared:
    """Raises InvalidArgument that names the field of what is refused, and what `context.check_cancelled` raises."""
    unavailable.check(request)
    prompts.check(request)
    schedule.check(request)
    decoded = pictures.resolve(request, context)
    checkpoint = checkpoints.resolve(request, context)
    pixels = size.resolve(request, context, decoded, checkpoint)
    unavailable.check_tiles(request, pixels)
    schedule.check_on(request, checkpoint)
    clip_skip.check_on(request, checkpoint)
    adapters = loras.resolve(request, context, checkpoint)
    inversions = embeddings.resolve(request, context, checkpoint, adapters)
    plan = Plan(
        job_id=admission.job.id,
        slot=admission.job.slot,
        started=admission.started,
        priority=admission.priority,
        request=_lean(request),
        checkpoint=checkpoint,
        loras=adapters,
        embeddings=inversions,
        pictures=decoded.plans,
        seed=secrets.randbits(_SEED_BITS) if request.seed is None else request.seed,
        width=pixels.width,
        height=pixels.height,
        padded_width=pixels.padded_width,
        padded_height=pixels.padded_height,
        files=checkpoints.file_digests(checkpoint)
        | {lora.field: lora.digest for lora in adapters}
        | {inversion.field: inversion.digest for inversion in inversions},
        warnings=(
            *unknown_field_warnings(request),
            *prompts.warnings(request),
            *checkpoints.warnings(request, checkpoint),
            *loras.warnings(adapters),
            *embeddings.warnings(request, inversions),
            *schedule.warnings(request, checkpoint),
        ),
    )
    return Prepared(plan, decoded)


def _lean(request: ImageToImageInput) -> ImageToImageInput:
    """The request without unknown fields, and with its file references cut: both may be megabytes.

    The plan names files by digest. Only messages and the receipt contain the references.
    """
    lean = map_file_refs(request, lambda _, value: value[:MAX_REF])
    for _, part in walk_models(lean):
        if part.model_extra:
            part.model_extra.clear()
    return lean
