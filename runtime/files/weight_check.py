"""Checks of weight files before the store keeps them: the file is what its field needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.files.torch_pickle import is_pickled, to_safetensors

WeightCheck = Callable[[Path], None]  # raises WeightFileError


def check_lora(path: Path) -> None:
    """The file is a readable .safetensors file, or one of torch.save. Raises WeightFileError."""
    if is_pickled(path):
        next(to_safetensors(path))  # its header: the names, shapes and places of all tensors are checked
    else:
        read_header(path)


def check_checkpoint(path: Path) -> None:
    """The file is a readable .safetensors file. Raises WeightFileError."""
    if is_pickled(path):
        raise WeightFileError("it is a pickle (.ckpt, .pt, .bin): expected a .safetensors file")
    read_header(path)
