"""Makes a plan of a validated request: each feature resolves its part, in order, cheap checks first."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from lorikeet.schema import MAX_REF, ImageToImageInput, map_file_refs, unknown_field_warnings
from lorikeet.schema.walk import walk_models
from runtime.checkpoints.unread_tensors import warn_of_unread_tensors
from runtime.jobs.job_table import JobRef
from runtime.plan import INIT_IMAGE, Plan
from runtime.stages.prepare import checkpoint as checkpoints
from runtime.stages.prepare import (
    clip_skip,
    controlnets,
    embeddings,
    ic_light,
    ip_adapters,
    loras,
    pictures,
    prompts,
    safety_checker,
    schedule,
    size,
    tiles,
    unused_fields,
)
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
    prompts.check(request)
    schedule.check(request)
    controlnets.check(request)
    ip_adapters.check(request)
    ic_light.check(request)
    decoded = pictures.resolve(_named_pictures(request), context)
    checkpoint, unread_variant = checkpoints.resolve(request, context)
    pixels = size.resolve(request, context, decoded, checkpoint)
    decoded = controlnets.fit_pictures(request, decoded, pixels)
    schedule.check_on(request, checkpoint)
    clip_skip.check_on(request, checkpoint)
    adapters = loras.resolve(request, context, checkpoint)
    inversions = embeddings.resolve(request, context, checkpoint, adapters)
    controls = controlnets.resolve(request, context, checkpoint)
    image_prompts = ip_adapters.resolve(request, context, checkpoint)
    decoded = ip_adapters.fit_pictures(decoded, pixels, image_prompts, context)
    relighting = ic_light.resolve(request, context, checkpoint)
    decoded = ic_light.fit_pictures(request, decoded, pixels)
    checker = safety_checker.resolve(request, context)
    components = (
        *checkpoint.components,
        *controls.networks,
        *image_prompts.components,
        *([checker] if checker else []),
    )
    unet_tiles = tiles.resolve_unet(request, pixels, checkpoint)
    plan = Plan(
        job_id=admission.job.id,
        slot=admission.job.slot,
        started=admission.started,
        priority=admission.priority,
        request=_lean(request),
        checkpoint=checkpoint,
        loras=(*adapters, *image_prompts.loras),
        embeddings=inversions,
        controlnets=controls.networks,
        ip_adapters=image_prompts.adapters,
        image_encoder=image_prompts.encoder,
        ic_light=relighting.plan,
        safety_checker=checker,
        pictures=decoded.plans,
        seed=secrets.randbits(_SEED_BITS) if request.seed is None else request.seed,
        width=pixels.width,
        height=pixels.height,
        padded_width=pixels.padded_width,
        padded_height=pixels.padded_height,
        files=checkpoints.file_digests(components)
        | {lora.field: lora.digest for lora in adapters}
        | {inversion.field: inversion.digest for inversion in inversions}
        | image_prompts.pack_digests
        | ({ic_light.FIELD: relighting.plan.digest} if relighting.plan else {}),
        warnings=(
            *unknown_field_warnings(request),
            *prompts.warnings(request),
            *unread_variant,
            *checkpoints.warnings(request, checkpoint),
            *loras.warnings(adapters),
            *embeddings.warnings(request, checkpoint, inversions),
            *controls.warnings,
            *image_prompts.warnings,
            *warn_of_unread_tensors((*controls.networks, *image_prompts.components)),
            *relighting.warnings,
            *schedule.warnings(request, checkpoint),
            *tiles.warnings(request, unet_tiles),
            *unused_fields.warnings(request, checkpoint, decoded, pixels, image_prompts.adapters),
        ),
        unet_tiles=unet_tiles,
        vae_tile=tiles.resolve_vae(request, pixels, checkpoint, context.settings.vae_tile_above),
    )
    return Prepared(plan, decoded)


def _named_pictures(request: ImageToImageInput) -> Iterator[tuple[str, str]]:
    """(field, file reference) of all pictures."""
    if request.image_url is not None:
        yield INIT_IMAGE, request.image_url
    yield from controlnets.named_pictures(request)
    yield from ip_adapters.named_pictures(request)
    yield from ic_light.named_pictures(request)


def _lean(request: ImageToImageInput) -> ImageToImageInput:
    """The request without unknown fields, and with its file references cut: both may be megabytes.

    The plan names files by digest. Only messages and the receipt contain the references.
    """
    lean = map_file_refs(request, lambda _, value: value[:MAX_REF])
    for _, part in walk_models(lean):
        if part.model_extra:
            part.model_extra.clear()
    return lean
