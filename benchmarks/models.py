"""The checkpoints, LoRAs and adapters of the cases. Each is written at its first use, and kept."""

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
AdapterName = Literal["controlnet", "ip_adapter", "image_encoder"]
_TINY_ADAPTERS: dict[AdapterName, str] = {
    "controlnet": "controlnets/sd15",
    "ip_adapter": "ip_adapters/sd15/base.safetensors",
    "image_encoder": "ip_adapters/sd15/image_encoder",
}
_ADAPTER_SEED = 400
_FIRST_LORA_SEED = 1000
RANK = 16  # of the LoRAs that the cases use, unless they name another rank
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Models:
    """The model files in `folder`. With `quick`, checkpoints are tiny."""

    def __init__(self, folder: Path, quick: bool, progress: Callable[[str], None]) -> None:
        self.folder, self._quick, self._progress = folder, quick, progress

    def checkpoint(self, name: CheckpointName) -> Path:
        """A checkpoint's folder. `sd15-other` has the architecture of `sd15` and other weights."""
        return self._once(self.folder / name, lambda path: self._write(path, name))

    def lora(self, number: int, rank: int = RANK) -> Path:
        """A LoRA file for `sd15`; each number gives a different file."""
        checkpoint = self.checkpoint("sd15")
        path = self.folder / "loras" / f"{number:03}-rank-{rank}.safetensors"
        return self._once(path, lambda partial: _write_lora(partial, checkpoint, _FIRST_LORA_SEED + number, rank))

    def locon(self, number: int) -> Path:
        """A LoRA file for `sd15` that also changes convolutions; each number gives a different file."""
        checkpoint = self.checkpoint("sd15")
        path = self.folder / "locons" / f"{number:03}.safetensors"
        return self._once(path, lambda partial: _write_lora(partial, checkpoint, _FIRST_LORA_SEED + number, RANK, True))

    def adapter(self, name: AdapterName) -> Path:
        """One of the networks for `sd15`: the folder of a ControlNet or image encoder, or an IP-Adapter's file."""
        path = self.folder / "adapters" / (f"{name}.safetensors" if name == "ip_adapter" else name)
        return self._once(path, lambda partial: self._write_adapter(partial, name))

    def kohya_lora(self, number: int, rank: int = RANK) -> Path:
        """The LoRA `number` under Kohya's names, with which openvino_genai finds the UNet's layers."""
        lora = self.lora(number, rank)
        return self._once(self.folder / "kohya" / lora.name, lambda partial: _write_in_kohya_names(partial, lora))

    def converted(self, name: CheckpointName, convert: Callable[[Path, Path], None]) -> Path:
        """The checkpoint in the form of openvino_genai, which `convert(checkpoint, folder)` writes."""
        checkpoint = self.checkpoint(name)
        return self._once(self.folder / "genai" / name, lambda partial: convert(checkpoint, partial))

    def _write(self, folder: Path, name: CheckpointName) -> None:
        if self._quick:
            shutil.copytree(tiny_folder() / _TINY[name], folder)
            return
        self._progress(f"writing the full-size checkpoint {name}: one to two minutes, at its first use only")
        # Imported here: torch and diffusers take seconds and memory, which a run with existing files does not need.
        from benchmarks.full_size import SD15_SIZES, SDXL_SIZES, write_checkpoint

        write_checkpoint(folder, SDXL_SIZES if name == "sdxl" else SD15_SIZES, _SEEDS[name])

    def _write_adapter(self, path: Path, name: AdapterName) -> None:
        if self._quick:
            source = tiny_folder() / _TINY_ADAPTERS[name]
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, path)
            return
        self._progress(f"writing the full-size {name}: some seconds, at its first use only")
        from benchmarks.full_size import SD15_SIZES
        from benchmarks.full_size_adapters import VIT_H, write_controlnet, write_image_encoder, write_ip_adapter

        if name == "controlnet":
            write_controlnet(path, SD15_SIZES, _ADAPTER_SEED)
        elif name == "image_encoder":
            write_image_encoder(path, VIT_H, _ADAPTER_SEED + 1)
        else:
            write_ip_adapter(path, SD15_SIZES, VIT_H, _ADAPTER_SEED + 2)

    def _once(self, path: Path, write: Callable[[Path], None]) -> Path:
        """Call `write` unless the path exists. The path appears complete; an interruption leaves no partial files."""
        if not path.exists():
            partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
            partial.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(partial)
                partial.rename(path)
            except BaseException:
                _remove(partial)
                raise
        return path


def unet_bytes(checkpoint: Path, precision: str) -> int:
    """The size in memory of the checkpoint's UNet weights, in bytes."""
    header = read_header(checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    return sum(prod(tensor.shape) for tensor in header.tensors.values()) * _BYTES[precision]


def _write_lora(path: Path, checkpoint: Path, seed: int, rank: int, locon: bool = False) -> None:
    from benchmarks.lora_files import ATTENTION, WITH_CONVOLUTIONS, write_lora

    write_lora(path, checkpoint, seed, WITH_CONVOLUTIONS if locon else ATTENTION, rank)


def _write_in_kohya_names(path: Path, lora: Path) -> None:
    from benchmarks.lora_files import write_in_kohya_names

    write_in_kohya_names(path, lora)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
