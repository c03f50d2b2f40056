"""Bare calls of one network in torch and in OpenVINO, with any and with fixed sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.read_checkpoint import read_checkpoint
from runtime.engines.engine import Engine, Inputs, never_cancelled
from runtime.engines.select import Engines
from runtime.files.located import Folder
from runtime.files.store import StoredFile
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.settings import Settings
from runtime.weights.weight_set import WeightSet

VARIANTS = ("torch", "openvino", "openvino, fixed sizes")


class BareEngines:
    """The networks of one checkpoint. `artifacts`: the folder of their graphs."""

    def __init__(self, folder: Path, artifacts: Path, threads: int) -> None:
        self._checkpoint: Checkpoint = read_checkpoint(Folder(folder, folder), lambda path: StoredFile(path, str(path)))
        self._settings: dict[str, Any] = {"artifacts": artifacts, "threads": threads}

    def row(self, kind: NetworkKind, pixels: int, seed: int) -> Inputs:
        """A row with random content."""
        generator = torch.Generator().manual_seed(seed)
        side = pixels // self._checkpoint.vae_scale_factor
        width = int(self._checkpoint.unet.config["cross_attention_dim"])

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        rows: Mapping[str, Callable[[], Inputs]] = {
            "unet": lambda: {"latent": noise(4, side, side), "t": torch.tensor(501.0), "text": noise(77, width)},
            "vae_encoder": lambda: {"pixels": noise(3, pixels, pixels).clamp(-1, 1)},
            "vae_decoder": lambda: {"latents": noise(4, side, side)},
            "text_encoder": lambda: {"ids": torch.randint(200, (77,), generator=generator)},
        }
        return rows[kind]()

    def bound(self, kind: NetworkKind, variant: str, rows: int, pixels: int) -> Callable[[list[Inputs]], list[Any]]:
        """Calls the network with base weights: rows -> their outputs."""
        component = self._component(kind)
        fixed = (f"{pixels}x{pixels}",) if variant == VARIANTS[2] else ()
        name = variant.partition(",")[0]
        settings = Settings(engine=name, static_shapes=fixed, **self._settings)  # type: ignore[arg-type]
        engine: Engine = Engines(settings, kind).of(architecture_of(kind, component.config))
        assert engine.name == name
        binding = engine.bind(WeightSet(component), never_cancelled)
        return lambda given: engine.run([(binding, row) for row in given])

    def _component(self, kind: NetworkKind) -> Component:
        if kind == "text_encoder":
            return self._checkpoint.text_encoders[0]
        return self._checkpoint.unet if kind == "unet" else self._checkpoint.vae


def seconds(call: Callable[[list[Inputs]], Any], rows: list[Inputs]) -> float:
    begun = time.perf_counter()
    call(rows)
    return time.perf_counter() - begun
