"""Reads a checkpoint, or a UNet alone, from a folder or a single file."""

from __future__ import annotations

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError, check_unet
from runtime.checkpoints.folder import HashFile, read_folder, read_unet_folder
from runtime.checkpoints.single_file import read_single_file, read_unet_file
from runtime.files.located import Folder, SingleFile
from runtime.files.safetensors_file import WeightFileError


def read_checkpoint(source: Folder | SingleFile, hash_file: HashFile, variant: str | None = None) -> Checkpoint:
    """The checkpoint in a folder or a single file, which has no variants. Raises CheckpointError."""
    return read_folder(source, hash_file, variant) if isinstance(source, Folder) else read_single_file(source)


def with_unet(
    checkpoint: Checkpoint, source: Folder | SingleFile, hash_file: HashFile, variant: str | None = None
) -> Checkpoint:
    """The checkpoint with another UNet. Raises CheckpointError: damaged, or made for other text encoders."""
    try:
        unet = _unet(checkpoint, source, hash_file, variant)
        is_xl = "add_embedding.linear_1.weight" in unet.shapes
        if is_xl != (checkpoint.kind == "sdxl"):
            raise CheckpointError(
                f"the UNet is of {'SDXL' if is_xl else 'SD'}, the checkpoint is not: give one of the same architecture"
            )
        check_unet(unet, checkpoint.text_encoders)
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error
    return checkpoint.model_copy(update={"unet": unet})


def _unet(checkpoint: Checkpoint, source: Folder | SingleFile, hash_file: HashFile, variant: str | None) -> Component:
    if isinstance(source, Folder):
        return read_unet_folder(source, hash_file, variant)
    return read_unet_file(source, checkpoint.unet)
