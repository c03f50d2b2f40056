"""The checkpoints and LoRAs that are measured, each written when first asked for and kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Literal

from runtime.files.safetensors_file import read_header
from tests.tiny import tiny_folder

CheckpointName = Literal["sd15", "sd15-other", "sdxl"]
_SEEDS: dict[CheckpointName, int] = {"sd15": 100, "sd15-other": 200, "sdxl": 300}
_TINY: dict[CheckpointName, str] = {"sd15": "sd15", "sd15-other": "sd15-oldnames", "sdxl": "sdxl"}
_FIRST_LORA_SEED = 1000
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Models:
    """What lies in `folder`; with `quick` the tiny checkpoints, which say nothing about time."""

    def __init__(self, folder: Path, quick: bool, tell: Callable[[str], None]) -> None:
        self.folder, self._quick, self._tell = folder, quick, tell

    def checkpoint(self, name: CheckpointName) -> Path:
        """A checkpoint's folder. `sd15-other` has the architecture of `sd15` and other weights."""
        return self._once(self.folder / name, lambda path: self._write(path, name))

    def lora(self, number: int) -> Path:
        """A LoRA for `sd15`; each number is another file."""
        checkpoint = self.checkpoint("sd15")
        path = self.folder / "loras" / f"{number:03}.safetensors"
        return self._once(path, lambda partial: _write_lora(partial, checkpoint, _FIRST_LORA_SEED + number))

    def _write(self, folder: Path, name: CheckpointName) -> None:
        if self._quick:
            shutil.copytree(tiny_folder() / _TINY[name], folder)
            return
        self._tell(f"writing {name} in its full size, once: a minute or two")
        # Here, because it imports torch and diffusers: seconds and memory, for nothing when the files are there.
        from benchmarks.full_size import SD15_SIZES, SDXL_SIZES, write_checkpoint

        write_checkpoint(folder, SDXL_SIZES if name == "sdxl" else SD15_SIZES, _SEEDS[name])

    def _once(self, path: Path, write: Callable[[Path], None]) -> Path:
        """Made by `write` unless it is there; it appears complete or not at all."""
        if not path.exists():
            partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
            partial.parent.mkdir(parents=True, exist_ok=True)
            write(partial)
            partial.rename(path)
        return path


def unet_bytes(checkpoint: Path, precision: str) -> int:
    """What the weights of a checkpoint's UNet take in memory."""
    header = read_header(checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    return sum(prod(tensor.shape) for tensor in header.tensors.values()) * _BYTES[precision]


def _write_lora(path: Path, checkpoint: Path, seed: int) -> None:
    from benchmarks.lora_files import write_lora

    write_lora(path, checkpoint, seed)
