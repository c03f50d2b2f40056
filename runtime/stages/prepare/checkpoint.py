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
_NO_VARIANTS = "variant: a single file has no variants, ignored"


def resolve(request: ImageToImageInput, context: PrepareContext) -> tuple[Checkpoint, list[str]]:
    """The checkpoint, with the request's UNet and a checked scheduler configuration; and warnings of a variant that was
    not read.

    Raises InvalidArgument that names model_name, unet_name or variant.
    """
    check_variant("variant", request.variant)
    try:
        source = context.files.checkpoint("model_name", request.model_name, context.request_files, request.variant)
        in_one_file = isinstance(source, SingleFile)
        checkpoint = read_checkpoint(source, _hash_file(context), None if in_one_file else request.variant)
        schedule = read_schedule(checkpoint.scheduler, checkpoint.kind, own=request.scheduler is None)
        checkpoint = checkpoint.model_copy(update={"scheduler": schedule})
    except VariantError as error:
        raise InvalidArgument("variant", str(error)) from error
    except (CheckpointError, ScheduleError, FileChangedError) as error:
        raise InvalidArgument("model_name", str(error)) from error
    unread = [_NO_VARIANTS] if request.variant and in_one_file else []
    return (checkpoint, unread) if request.unet_name is None else _with_unet(checkpoint, unread, request, context)


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
    checkpoint: Checkpoint, unread: list[str], request: ImageToImageInput, context: PrepareContext
) -> tuple[Checkpoint, list[str]]:
    """The checkpoint with the UNet of `unet_name`. `unread`: the warnings of a variant that the checkpoint lacks."""
    assert request.unet_name is not None
    hash_file = _hash_file(context)
    try:
        source = context.files.unet("unet_name", request.unet_name, context.request_files, request.variant)
        if request.variant and not isinstance(source, SingleFile):
            unread = []
        try:
            found = with_unet(checkpoint, source, hash_file, request.variant)
        except VariantError as error:  # there is one field for both: the checkpoint may have files of the variant alone
            found, unread = with_unet(checkpoint, source, hash_file), [f"variant: unet_name: {error}, ignored"]
    except (CheckpointError, FileChangedError) as error:
        raise InvalidArgument("unet_name", str(error)) from error
    return found.model_copy(update={"unet": found.unet.model_copy(update={"field": "unet_name"})}), unread


def _hash_file(context: PrepareContext) -> HashFile:
    """Hashes a file of a folder, until the request is cancelled."""
    return partial(context.store.digest_local, check_cancelled=context.check_cancelled)
