"""Full-size checkpoints with random weights, made on the GPU, and LoRAs for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.full_size import SD15_SIZES, SDXL_SIZES, Sizes, write_checkpoint
from benchmarks.lora_files import write_lora
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.read_checkpoint import read_checkpoint
from runtime.files.located import Folder
from runtime.files.stored_file import StoredFile

GUIDANCE_WIDTH = 256  # of the embedding that a UNet distilled with guidance takes (LCM)
_SIZES: dict[str, tuple[Sizes, int]] = {
    "sd15": (SD15_SIZES, 100),
    "distilled": (replace(SD15_SIZES, unet=SD15_SIZES.unet | {"time_cond_proj_dim": GUIDANCE_WIDTH}), 150),
    "sdxl": (SDXL_SIZES, 300),
}


class GpuModels:
    """The model files in `folder`, each written at its first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The folder of `sd15`, `distilled` or `sdxl`."""
        path = self.folder / name
        if not path.exists():
            write_checkpoint(path, *_SIZES[name], torch.device("cuda"))
        return path

    def checkpoint(self, name: str) -> Checkpoint:
        path = self.path(name)
        # A path replaces the digest, as nothing here is shared with a server.
        return read_checkpoint(Folder(path, path), lambda file: StoredFile(file, str(file)))

    def lora(self, name: str, number: int) -> Path:
        """A LoRA of rank 16 for every attention layer of the checkpoint's UNet; each number gives another one."""
        path = self.folder / f"{name}-loras" / f"{number}.safetensors"
        if not path.exists():
            write_lora(path, self.path(name), number)
        return path
