"""A checkpoint, or a UNet alone, from wherever its files are."""

from __future__ import annotations

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError, check_unet
from runtime.checkpoints.folder import Digest, read_folder, read_unet_folder
from runtime.checkpoints.single_file import read_single_file, read_unet_file
from runtime.files.located import Folder, SingleFile
from runtime.files.safetensors_file import WeightFileError


def read_checkpoint(source: Folder | SingleFile, digest: Digest, variant: str | None = None) -> Checkpoint:
    """The checkpoint in a folder or a file; a file has no variants. Raises CheckpointError."""
    return read_folder(source, digest, variant) if isinstance(source, Folder) else read_single_file(source)


def with_unet(
    checkpoint: Checkpoint, source: Folder | SingleFile, digest: Digest, variant: str | None = None
) -> Checkpoint:
    """The checkpoint with another UNet. Raises CheckpointError: damaged, or made for other text encoders."""
    try:
        unet = _unet(checkpoint, source, digest, variant)
        is_xl = "add_embedding.linear_1.weight" in unet.shapes
        if is_xl != (checkpoint.kind == "sdxl"):
            raise CheckpointError(f"a UNet of {'SDXL' if is_xl else 'SD'} does not fit this checkpoint")
        check_unet(unet, checkpoint.text_encoders)
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error
    return checkpoint.model_copy(update={"unet": unet})


def _unet(checkpoint: Checkpoint, source: Folder | SingleFile, digest: Digest, variant: str | None) -> Component:
    if isinstance(source, Folder):
        return read_unet_folder(source, digest, variant)
    return read_unet_file(source, checkpoint.unet)
