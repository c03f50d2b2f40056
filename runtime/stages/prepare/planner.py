"""Turns a validated request into a plan: its files found, checked from their headers, and named by digest."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np

from lorikeet.schema import ImageToImageInput, map_file_refs, size_in_pixels
from lorikeet.schema.walk import walk_models
from runtime.board import JobRef
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.folder import CheckpointError, read_folder
from runtime.checkpoints.schedule import ScheduleError, check_schedule
from runtime.errors import InvalidArgument
from runtime.files.images import MIN_SIDE, ImageError, Pixels, decode_image
from runtime.files.sources import Request, Sources
from runtime.files.store import Store
from runtime.files.tensors import WeightFileError
from runtime.lora.file import LoraError, read_lora
from runtime.plan import LoraPlan, Plan
from runtime.settings import Settings
from runtime.stages.prepare.features import check_available, check_fits

_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
_SEED_BITS = 32  # what JavaScript's numbers hold with room to spare
_KEPT_REF = 256  # a plan names files by digest: of a data URI only its beginning travels on, for messages


@dataclass(frozen=True)
class Prepared:
    """A plan, and its init image UINT8 [H, W, 3]; [0, 0, 3] without one."""

    plan: Plan
    image: Pixels


class Planner:
    """Plans requests. Every refusal is an InvalidArgument that names the field; cheap checks come first."""

    def __init__(self, settings: Settings, store: Store, sources: Sources) -> None:
        self._settings, self._store, self._sources = settings, store, sources

    def plan(self, request: ImageToImageInput, files: Request, job: JobRef, started: float) -> Prepared:
        check_available(request)
        image = self._image(request, files)
        checkpoint = self._checkpoint(request, files)
        width, height = self._size(request, image, checkpoint)
        check_fits(request, checkpoint, width, height)
        loras = [self._lora(request, index, checkpoint, files) for index in range(len(request.loras))]
        digests = {f"{c.name}[{i}]": f.digest for c in checkpoint.components for i, f in enumerate(c.files)}
        scale = checkpoint.vae_scale_factor
        unknown = request.unknown_fields()
        plan = Plan(
            job_id=job.id,
            slot=job.slot,
            started=started,
            request=_lean(request),
            checkpoint=checkpoint,
            loras=tuple(loras),
            seed=secrets.randbits(_SEED_BITS) if request.seed is None else request.seed,
            has_image=request.image_url is not None,
            width=width,
            height=height,
            padded_width=-(-width // scale) * scale,
            padded_height=-(-height // scale) * scale,
            files={f"model_name.{name}": digest for name, digest in digests.items()}
            | {lora.field: lora.digest for lora in loras},
            warnings=tuple(f"{name}: unknown field, ignored" for name in unknown),
        )
        return Prepared(plan, image)

    def _image(self, request: ImageToImageInput, files: Request) -> Pixels:
        if request.image_url is None:
            return _NO_IMAGE
        try:
            return decode_image(self._sources.image("image_url", request.image_url, files), self._settings.max_pixels)
        except ImageError as error:
            raise InvalidArgument("image_url", str(error)) from error

    def _checkpoint(self, request: ImageToImageInput, files: Request) -> Checkpoint:
        try:
            folder = self._sources.checkpoint("model_name", request.model_name, files)
            checkpoint = read_folder(folder, self._store.digest_local)
            check_schedule(checkpoint.scheduler, own=request.scheduler is None)
            return checkpoint
        except (CheckpointError, ScheduleError) as error:
            raise InvalidArgument("model_name", str(error)) from error

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

    def _lora(self, request: ImageToImageInput, index: int, checkpoint: Checkpoint, files: Request) -> LoraPlan:
        field, lora = f"loras[{index}].path", request.loras[index]
        stored = self._sources.weights(field, lora.path, files)
        try:
            read_lora(stored.path, checkpoint.adaptable)
        except (LoraError, WeightFileError) as error:
            raise InvalidArgument(field, str(error)) from error
        return LoraPlan(field=field, path=stored.path, digest=stored.digest, scale=lora.scale)


def _lean(request: ImageToImageInput) -> ImageToImageInput:
    """The request without what has been resolved or is not known, which may be megabytes."""
    lean = map_file_refs(request, lambda _, value: value[:_KEPT_REF])
    for _, part in walk_models(lean):
        if part.model_extra:
            part.model_extra.clear()
    return lean
