"""The server's own engines without a server: what a request costs at least."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.read_checkpoint import read_checkpoint
from runtime.engines.engine import Binding, Engine, GraphKind, Inputs
from runtime.engines.select import Engines
from runtime.files.located import Folder
from runtime.files.store import StoredFile
from runtime.networks.build import graph_of
from runtime.settings import Settings, load_settings
from runtime.weights.weight_set import WeightSet

_TOKENS, _VOCABULARY = 77, 200  # ids that the tiny checkpoints have too


class BareForwards:
    """The four networks of an SD checkpoint in memory, called as a guided request of one picture calls them."""

    def __init__(self, folder: Path) -> None:
        settings = load_settings()
        # Nothing is shared with a server here, so files need no true digest.
        checkpoint = read_checkpoint(Folder(folder, folder), lambda path: StoredFile(path, str(path)))
        self._text = _Bound(settings, "text_encoder", checkpoint.text_encoders[0])
        self._encoder = _Bound(settings, "vae_encoder", checkpoint.vae)
        self._unet = _Bound(settings, "unet", checkpoint.unet)
        self._decoder = _Bound(settings, "vae_decoder", checkpoint.vae)
        self._scale, self._width = checkpoint.vae_scale_factor, _width(checkpoint)

    def run(self, pixels: int, steps: int) -> float:
        """Seconds of all forwards together: the text encoder twice, the VAE's halves once, the UNet (two rows) once
        a step. The inputs are new ones each time, and making them is not counted."""
        side = pixels // self._scale
        seconds = sum(self._text.run({"ids": torch.randint(_VOCABULARY, (1, _TOKENS))}) for _ in range(2))
        seconds += self._encoder.run({"pixels": torch.rand(1, 3, pixels, pixels) * 2 - 1})
        for _ in range(steps):
            rows = {"latent": torch.randn(2, 4, side, side), "t": torch.full((2,), float(torch.randint(1000, ())))}
            seconds += self._unet.run({**rows, "text": torch.randn(2, _TOKENS, self._width)})
        return seconds + self._decoder.run({"latents": torch.randn(1, 4, side, side)})


class _Bound:
    """An engine with a component's weights bound to it, as a stage of its own has it."""

    def __init__(self, settings: Settings, kind: GraphKind, component: Component) -> None:
        self._engine: Engine = Engines(settings, kind).of(graph_of(kind, component))
        self._binding: Binding = self._engine.bind(WeightSet(component))

    def run(self, inputs: Inputs) -> float:
        begun = time.perf_counter()
        self._engine.run(self._binding, inputs)
        return time.perf_counter() - begun


def _width(checkpoint: Checkpoint) -> int:
    width: int = checkpoint.unet.config["cross_attention_dim"]
    return width
