"""The checkpoint of a request: its files found, checked from their headers, and named by digest."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.folder import HashFile
from runtime.checkpoints.read_checkpoint import read_checkpoint, with_unet
from runtime.checkpoints.scheduler_config import ScheduleError, read_schedule
from runtime.checkpoints.unread_tensors import warn_of_unread_tensors
from runtime.files.safetensors_file import WeightFileError
from runtime.files.stored_file import FileChangedError
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.variant import Variant

_DEFAULT_PREDICTION = "epsilon"  # of every scheduler of diffusers


def resolve(request: ImageToImageInput, context: PrepareContext) -> tuple[Checkpoint, list[str]]:
    """The checkpoint, with the request's UNet and a checked scheduler configuration; and warnings of a variant that was
    not read.

    Raises InvalidArgument that names model_name, unet_name or variant.
    """
    variant = Variant("variant", request.variant, sources=1 if request.unet_name is None else 2)
    hash_file = partial(context.store.digest_local, check_cancelled=context.check_cancelled)
    try:
        source = context.files.checkpoint("model_name", request.model_name, context.request_files, request.variant)
        checkpoint = variant.read("model_name", source, lambda asked: read_checkpoint(source, hash_file, asked))
        schedule = read_schedule(checkpoint.scheduler, checkpoint.kind, own=request.scheduler is None)
        checkpoint = checkpoint.model_copy(update={"scheduler": schedule})
    except (CheckpointError, ScheduleError, FileChangedError) as error:
        raise InvalidArgument("model_name", str(error)) from error
    if request.unet_name is not None:
        checkpoint = _with_unet(checkpoint, request.unet_name, variant, hash_file, context)
    return checkpoint, variant.warnings()


def file_digests(components: Iterable[Component]) -> dict[str, str]:
    """Field and component of each weight file -> its digest."""
    return {
        f"{component.field}.{component.role}[{index}]": file.digest
        for component in components
        for index, file in enumerate(component.files)
    }


def warnings(request: ImageToImageInput, checkpoint: Checkpoint) -> list[str]:
    """Warnings of tensors that no network reads, and of a prediction type that replaces the checkpoint's own. Raises
    InvalidArgument when a file is gone."""
    try:
        unread = warn_of_unread_tensors(checkpoint.components)
    except WeightFileError as error:
        raise InvalidArgument("model_name", str(error)) from error
    return [*unread, *_other_prediction(request, checkpoint)]


def _other_prediction(request: ImageToImageInput, checkpoint: Checkpoint) -> list[str]:
    own, asked = checkpoint.scheduler.get("prediction_type", _DEFAULT_PREDICTION), request.prediction_type
    if asked is None or asked == own:
        return []
    return [
        f"prediction_type: {asked!r} replaced the checkpoint's own {own!r}; a model trained for one of them gives "
        "wrong pictures with the other: remove the field to use the checkpoint's own"
    ]


def _with_unet(
    checkpoint: Checkpoint, unet_name: str, variant: Variant, hash_file: HashFile, context: PrepareContext
) -> Checkpoint:
    try:
        source = context.files.unet("unet_name", unet_name, context.request_files, variant.asked)
        found = variant.read("unet_name", source, lambda asked: with_unet(checkpoint, source, hash_file, asked))
    except (CheckpointError, FileChangedError) as error:
        raise InvalidArgument("unet_name", str(error)) from error
    return found.model_copy(update={"unet": found.unet.model_copy(update={"field": "unet_name"})})
