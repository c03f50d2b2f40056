"""Bare calls of one network in one engine, in the precision that a server takes on this processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.lora_weights import unet_with_loras
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.read_checkpoint import read_checkpoint
from runtime.checkpoints.read_controlnet import read_controlnet
from runtime.engines.engine import CallSizes, Engine, Inputs, Outputs, never_cancelled
from runtime.engines.select import Engines
from runtime.files.located import Folder
from runtime.files.stored_file import StoredFile
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.settings import Settings
from runtime.weights.weight_set import WeightSet

EngineVariant = Literal["torch", "openvino", "openvino, one size"]
VARIANTS: tuple[EngineVariant, ...] = ("torch", "openvino", "openvino, one size")


class BareEngine:
    """Calls of `rows` rows, of pictures with `pixels` x `pixels`. `artifacts`: the folder of the graphs.

    `loras`: files for the UNet. `controlnet`: the folder of one for the checkpoint, if it is the network."""

    def __init__(
        self,
        checkpoint: Path,
        artifacts: Path,
        kind: NetworkKind,
        variant: EngineVariant,
        rows: int,
        pixels: int,
        threads: int,
        loras: Sequence[Path] = (),
        controlnet: Path | None = None,
    ) -> None:
        self._checkpoint: Checkpoint = read_checkpoint(Folder(checkpoint, checkpoint), _unhashed)
        self._kind, self._rows, self._pixels = kind, rows, pixels
        component = self._component(controlnet)
        name: Literal["torch", "openvino"] = "torch" if variant == "torch" else "openvino"
        settings = Settings(engine=name, artifacts=artifacts, threads=threads)
        self._engine: Engine = Engines(settings, kind).of(architecture_of(kind, component.config))
        assert self._engine.name == name
        sizes = CallSizes(rows, self._side, self._side) if variant == VARIANTS[2] else None
        weights = unet_with_loras(self._checkpoint, loras) if loras else WeightSet(component)
        self._binding = self._engine.bind(weights, never_cancelled, sizes)

    def precision(self) -> str:
        return self._binding.precision

    def seconds(self, seed: int) -> float:
        """The time of a call with new content."""
        rows = [self._row(seed + number) for number in range(self._rows)]
        begun = time.perf_counter()
        self._call(rows)
        return time.perf_counter() - begun

    def bytes_of_rows(self, seeds: list[int]) -> list[bytes]:
        """The bytes of each row's outputs, in a call of rows with this content."""
        return [_bytes(outputs) for outputs in self._call([self._row(seed) for seed in seeds])]

    def _call(self, rows: list[Inputs]) -> list[Outputs]:
        return self._engine.run([(self._binding, row) for row in rows])

    @property
    def _side(self) -> int:
        return self._pixels // self._checkpoint.vae_scale_factor

    def _component(self, controlnet: Path | None) -> Component:
        if controlnet is not None:
            return read_controlnet(Folder(controlnet, controlnet), self._checkpoint.unet, _unhashed)
        if self._kind == "text_encoder":
            return self._checkpoint.text_encoders[0]
        return self._checkpoint.unet if self._kind == "unet" else self._checkpoint.vae

    def _row(self, seed: int) -> Inputs:
        generator, side = torch.Generator().manual_seed(seed), self._side
        width = int(self._checkpoint.unet.config["cross_attention_dim"])

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        def denoising() -> Inputs:
            return {"latent": noise(4, side, side), "t": torch.tensor(501.0), "text": noise(77, width)}

        rows: Mapping[NetworkKind, Callable[[], Inputs]] = {
            "unet": denoising,
            "controlnet": lambda: {
                **denoising(),
                "condition": torch.rand(3, self._pixels, self._pixels, generator=generator),
            },
            "vae_encoder": lambda: {"pixels": noise(3, self._pixels, self._pixels).clamp(-1, 1)},
            "vae_decoder": lambda: {"latents": noise(4, side, side)},
            "text_encoder": lambda: {"ids": torch.randint(200, (77,), generator=generator)},
        }
        return rows[self._kind]()


def _unhashed(path: Path) -> StoredFile:
    return StoredFile(path, str(path))


def _bytes(outputs: Outputs) -> bytes:
    arrays: list[npt.NDArray[np.float32]] = []
    for value in outputs.values():
        arrays += [item.numpy() for item in (value if isinstance(value, tuple) else (value,))]
    return b"".join(array.tobytes() for array in arrays)
