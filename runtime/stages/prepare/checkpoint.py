"""The checkpoint of a request: its files found, checked from their headers, and named by digest."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError, VariantError
from runtime.checkpoints.folder import HashFile
from runtime.checkpoints.read_checkpoint import read_checkpoint, with_unet
from runtime.checkpoints.scheduler_config import ScheduleError, read_schedule
from runtime.checkpoints.unread_tensors import warn_of_unread_tensors
from runtime.files.located import SingleFile
from runtime.files.safetensors_file import WeightFileError
from runtime.files.stored_file import FileChangedError
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.variant import check_variant

_DEFAULT_PREDICTION = "epsilon"  # of every scheduler of diffusers


def resolve(request: ImageToImageInput, context: PrepareContext) -> Checkpoint:
    """The checkpoint, with the request's UNet and a checked scheduler configuration.

    Raises InvalidArgument that names model_name, unet_name or variant.
    """
    check_variant("variant", request.variant)
    try:
        source = context.files.checkpoint("model_name", request.model_name, context.request_files, request.variant)
        variant = None if isinstance(source, SingleFile) else request.variant
        checkpoint = read_checkpoint(source, _hash_file(context), variant)
        schedule = read_schedule(checkpoint.scheduler, checkpoint.kind, own=request.scheduler is None)
        checkpoint = checkpoint.model_copy(update={"scheduler": schedule})
    except VariantError as error:
        raise InvalidArgument("variant", str(error)) from error
    except (CheckpointError, ScheduleError, FileChangedError) as error:
        raise InvalidArgument("model_name", str(error)) from error
    return checkpoint if request.unet_name is None else _with_unet(checkpoint, request.unet_name, request, context)


def file_digests(components: Iterable[Component]) -> dict[str, str]:
    """Field and component of each weight file -> its digest."""
    return {
        f"{component.field}.{component.role}[{index}]": file.digest
        for component in components
        for index, file in enumerate(component.files)
    }


def warnings(request: ImageToImageInput, checkpoint: Checkpoint) -> list[str]:
    """Warnings of a variant that the checkpoint cannot have, of tensors that no network reads, and of a prediction type
    that replaces the checkpoint's own. Raises InvalidArgument when a file is gone."""
    in_one_file = checkpoint.vae.layout != "component"
    variant = ["variant: a single file has no variants, ignored"] if request.variant and in_one_file else []
    try:
        unread = warn_of_unread_tensors(checkpoint.components)
    except WeightFileError as error:
        raise InvalidArgument("model_name", str(error)) from error
    return [*variant, *unread, *_other_prediction(request, checkpoint)]


def _other_prediction(request: ImageToImageInput, checkpoint: Checkpoint) -> list[str]:
    own, asked = checkpoint.scheduler.get("prediction_type", _DEFAULT_PREDICTION), request.prediction_type
    if asked is None or asked == own:
        return []
    return [
        f"prediction_type: {asked!r} replaced the checkpoint's own {own!r}; a model trained for one of them gives "
        "wrong pictures with the other: remove the field to use the checkpoint's own"
    ]


def _with_unet(
    checkpoint: Checkpoint, unet_name: str, request: ImageToImageInput, context: PrepareContext
) -> Checkpoint:
    try:
        source = context.files.unet("unet_name", unet_name, context.request_files, request.variant)
        found = with_unet(checkpoint, source, _hash_file(context), request.variant)
    except (CheckpointError, FileChangedError) as error:
        raise InvalidArgument("unet_name", str(error)) from error
    return found.model_copy(update={"unet": found.unet.model_copy(update={"field": "unet_name"})})


def _hash_file(context: PrepareContext) -> HashFile:
    """Hashes a file of a folder, until the request is cancelled."""
    return partial(context.store.digest_local, check_cancelled=context.check_cancelled)
