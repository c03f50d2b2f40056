"""RoundRobin a validated request into a plan: its files found, checked from their headers, and named by digest."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from functools import partial

import numpy as np

from lorikeet.schema import ImageToImageInput, map_file_refs, size_in_pixels
from lorikeet.schema.walk import walk_models
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.checks import CheckpointError, VariantError
from runtime.checkpoints.folder import Digest
from runtime.checkpoints.read import read_checkpoint, with_unet
from runtime.checkpoints.scheduler_config import ScheduleError, read_schedule
from runtime.files.image_codec import MIN_SIDE, ImageError, Pixels, decode_image
from runtime.files.located import SingleFile
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.safetensors_file import WeightFileError
from runtime.files.store import FileChangedError, Store
from runtime.jobs.job_table import JobRef
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import read_lora
from runtime.plan import LoraPlan, Plan
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.features import check_available, check_fits
from runtime.stages.prepare.limits import (
    check_limits_of_checkpoint,
    check_limits_of_sampler,
    check_number_of_loras,
    without_effect,
)

_VARIANT = re.compile(r"[A-Za-z0-9_-]{1,32}")
_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
_SEED_BITS = 32  # what JavaScript's numbers hold with room to spare
_KEPT_REF = 256  # a plan names files by digest: of a data URI only its beginning travels on, for messages


@dataclass(frozen=True)
class Admission:
    """A job that was let in, when (CLOCK_MONOTONIC), and its priority."""

    job: JobRef
    started: float
    priority: int


@dataclass(frozen=True)
class Prepared:
    """A plan, and its init image UINT8 [H, W, 3]; [0, 0, 3] without one."""

    plan: Plan
    image: Pixels


class Planner:
    """Plans requests. Every refusal is an InvalidArgument that names the field; cheap checks come first."""

    def __init__(self, settings: Settings, store: Store, sources: FileResolver) -> None:
        self._settings, self._store, self._sources = settings, store, sources

    def plan(self, request: ImageToImageInput, files: ResolveContext, admission: Admission) -> Prepared:
        check_available(request)
        check_number_of_loras(request)
        check_limits_of_sampler(request)
        image = self._image(request, files)
        checkpoint = self._checkpoint(request, files)
        width, height = self._size(request, image, checkpoint)
        check_fits(request, width, height)
        check_limits_of_checkpoint(request, checkpoint)
        loras = [self._lora(request, index, checkpoint, files) for index in range(len(request.loras))]
        scale = checkpoint.vae_scale_factor
        unknown = request.unknown_fields()
        plan = Plan(
            job_id=admission.job.id,
            slot=admission.job.slot,
            started=admission.started,
            priority=admission.priority,
            request=_lean(request),
            checkpoint=checkpoint,
            loras=tuple(loras),
            seed=secrets.randbits(_SEED_BITS) if request.seed is None else request.seed,
            has_image=request.image_url is not None,
            width=width,
            height=height,
            padded_width=-(-width // scale) * scale,
            padded_height=-(-height // scale) * scale,
            files=_digests(request, checkpoint) | {lora.field: lora.digest for lora in loras},
            warnings=(
                *(f"{name}: unknown field, ignored" for name in unknown),
                *_ignored(request, checkpoint),
                *without_effect(request, checkpoint),
            ),
        )
        return Prepared(plan, image)

    def _image(self, request: ImageToImageInput, files: ResolveContext) -> Pixels:
        if request.image_url is None:
            return _NO_IMAGE
        try:
            return decode_image(self._sources.image("image_url", request.image_url, files), self._settings.max_pixels)
        except ImageError as error:
            raise InvalidArgument("image_url", str(error)) from error

    def _checkpoint(self, request: ImageToImageInput, files: ResolveContext) -> Checkpoint:
        if request.variant is not None and not _VARIANT.fullmatch(request.variant):
            raise InvalidArgument("variant", "letters, digits, _ and - are a variant")
        try:
            source = self._sources.checkpoint("model_name", request.model_name, files, request.variant)
            variant = None if isinstance(source, SingleFile) else request.variant
            checkpoint = read_checkpoint(source, self._digest(files), variant)
            schedule = read_schedule(checkpoint.scheduler, checkpoint.kind, own=request.scheduler is None)
            checkpoint = checkpoint.model_copy(update={"scheduler": schedule})
        except VariantError as error:
            raise InvalidArgument("variant", str(error)) from error
        except (CheckpointError, ScheduleError, FileChangedError) as error:
            raise InvalidArgument("model_name", str(error)) from error
        return checkpoint if request.unet_name is None else self._with_unet(checkpoint, request, files)

    def _with_unet(self, checkpoint: Checkpoint, request: ImageToImageInput, files: ResolveContext) -> Checkpoint:
        assert request.unet_name is not None
        try:
            source = self._sources.unet("unet_name", request.unet_name, files, request.variant)
            return with_unet(checkpoint, source, self._digest(files), request.variant)
        except (CheckpointError, FileChangedError) as error:
            raise InvalidArgument("unet_name", str(error)) from error

    def _digest(self, files: ResolveContext) -> Digest:
        """What hashes a folder's files, as long as nobody cancels."""
        return partial(self._store.digest_local, stop=files.stop)

    def _size(self, request: ImageToImageInput, image: Pixels, checkpoint: Checkpoint) -> tuple[int, int]:
        """(width, height) of the result: the picture's own, else image_size, else what the checkpoint was made for."""
        if request.image_url is not None:
            return image.shape[1], image.shape[0]
        native = checkpoint.native_size
        width, height = size_in_pixels(request.image_size) if request.image_size else (native, native)
        if width * height > self._settings.max_pixels or min(width, height) < MIN_SIDE:
            most = self._settings.max_pixels
            raise InvalidArgument("image_size", f"{width}x{height}: at least {MIN_SIDE} a side, {most} pixels in all")
        return width, height

    def _lora(self, request: ImageToImageInput, index: int, checkpoint: Checkpoint, files: ResolveContext) -> LoraPlan:
        field, lora = f"loras[{index}].path", request.loras[index]
        files.stop()
        try:
            stored = self._sources.lora(field, lora.path, files)
            layers = read_lora(stored.path, checkpoint.adaptable)
        except (LoraError, WeightFileError, FileChangedError) as error:
            raise InvalidArgument(field, str(error)) from error
        return LoraPlan(
            field=field,
            path=stored.path,
            digest=stored.digest,
            stamp=stored.stamp,
            scale=lora.scale,
            components=frozenset(layer.target.component for layer in layers),
        )


def _digests(request: ImageToImageInput, checkpoint: Checkpoint) -> dict[str, str]:
    """What each weight file of the checkpoint is to the request -> its digest."""
    digests: dict[str, str] = {}
    for component in checkpoint.components:
        field = "unet_name" if component.name == "unet" and request.unet_name else "model_name"
        digests |= {f"{field}.{component.name}[{index}]": file.digest for index, file in enumerate(component.files)}
    return digests


def _ignored(request: ImageToImageInput, checkpoint: Checkpoint) -> list[str]:
    in_one_file = checkpoint.vae.layout != "component"
    return ["variant: a single file has none, ignored"] if request.variant and in_one_file else []


def _lean(request: ImageToImageInput) -> ImageToImageInput:
    """The request without what has been resolved or is not known, which may be megabytes."""
    lean = map_file_refs(request, lambda _, value: value[:_KEPT_REF])
    for _, part in walk_models(lean):
        if part.model_extra:
            part.model_extra.clear()
    return lean
