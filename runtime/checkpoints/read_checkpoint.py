"""Reads a checkpoint, or a UNet alone, from a folder or a single file."""

from __future__ import annotations

from typing import Any

from runtime.checkpoints.checkpoint import Checkpoint, Component, kind_of
from runtime.checkpoints.checks import CheckpointError, check_unet
from runtime.checkpoints.folder import HashFile, read_folder, read_unet_folder
from runtime.checkpoints.prediction_type import marked_schedule
from runtime.checkpoints.single_file import read_single_file, read_unet_file, unet_schedule
from runtime.files.located import Folder, SingleFile
from runtime.files.safetensors_file import WeightFileError, read_header


def read_checkpoint(source: Folder | SingleFile, hash_file: HashFile, variant: str | None = None) -> Checkpoint:
    """The checkpoint in a folder or a single file, which has no variants. Raises CheckpointError."""
    return read_folder(source, hash_file, variant) if isinstance(source, Folder) else read_single_file(source)


def with_unet(
    checkpoint: Checkpoint, source: Folder | SingleFile, hash_file: HashFile, variant: str | None = None
) -> Checkpoint:
    """The checkpoint with another UNet, and with the prediction type that the UNet's file tells.

    Raises CheckpointError: damaged, or made for other text encoders. Raises VariantError: its folder lacks the variant.
    """
    try:
        unet = _unet(checkpoint, source, hash_file, variant)
        kind = kind_of(unet)
        if kind != checkpoint.kind:
            raise CheckpointError(
                f"the UNet is of {kind.upper()}, the checkpoint is not: give one of the same architecture"
            )
        check_unet(unet, checkpoint.text_encoders)
        schedule = _schedule(source, unet)
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error
    return checkpoint.model_copy(update={"unet": unet, "scheduler": checkpoint.scheduler | schedule})


def _unet(checkpoint: Checkpoint, source: Folder | SingleFile, hash_file: HashFile, variant: str | None) -> Component:
    if isinstance(source, Folder):
        return read_unet_folder(source, hash_file, variant)
    return read_unet_file(source, checkpoint.unet)


def _schedule(source: Folder | SingleFile, unet: Component) -> dict[str, Any]:
    """What the UNet's files tell of its scheduler. A folder of diffusers tells it in a scheduler's own folder."""
    if isinstance(source, SingleFile):
        return unet_schedule(source, unet)
    return marked_schedule({name for file in unet.files for name in read_header(file.path).tensors})
