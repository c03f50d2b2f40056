"""The network forward passes of a request, on the server's engines without a server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.read_checkpoint import read_checkpoint
from runtime.engines.engine import Binding, CallSizes, Engine, Inputs, never_cancelled
from runtime.engines.select import Engines
from runtime.files.located import Folder
from runtime.files.stored_file import StoredFile
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.settings import Settings, load_settings
from runtime.weights.weight_set import WeightSet

_TOKENS, _VOCABULARY = 77, 200  # token ids that the tiny checkpoints have too


class ForwardPasses:
    """The four networks of an SD checkpoint in memory, called as in a guided request for a picture of this size."""

    def __init__(self, folder: Path, pixels: int) -> None:
        settings = load_settings()
        self._pixels = pixels
        # A path replaces the digest: nothing is shared with a server here.
        checkpoint = read_checkpoint(Folder(folder, folder), lambda path: StoredFile(path, str(path)))
        self._side, self._width = pixels // checkpoint.vae_scale_factor, _width(checkpoint)
        one, two = (self._sizes(settings, rows) for rows in (1, 2))
        self._text = _Bound(settings, "text_encoder", checkpoint.text_encoders[0])
        self._encoder = _Bound(settings, "vae_encoder", checkpoint.vae, one)
        self._unet = _Bound(settings, "unet", checkpoint.unet, two)
        self._decoder = _Bound(settings, "vae_decoder", checkpoint.vae, one)

    def run(self, steps: int) -> float:
        """Seconds of all forward passes: the text encoder twice, both VAE halves once, the UNet (two rows)
        once a step. Each call has new inputs; the time to create them is not counted."""
        side, pixels = self._side, self._pixels
        seconds = sum(self._text.run([{"ids": torch.randint(_VOCABULARY, (_TOKENS,))}]) for _ in range(2))
        seconds += self._encoder.run([{"pixels": torch.rand(3, pixels, pixels) * 2 - 1}])
        for _ in range(steps):
            t = torch.randint(1000, ()).float()
            rows = [{"latent": torch.randn(4, side, side), "t": t, "text": torch.randn(_TOKENS, self._width)}] * 2
            seconds += self._unet.run(rows)
        return seconds + self._decoder.run([{"latents": torch.randn(4, side, side)}])

    def _sizes(self, settings: Settings, rows: int) -> CallSizes | None:
        """The sizes of calls if the settings name the picture's size, as in the server."""
        if f"{self._pixels}x{self._pixels}" not in settings.static_shapes:
            return None
        return CallSizes(rows, self._side, self._side)


class _Bound:
    """An engine with a component's weights bound to it, as in a stage of the server."""

    def __init__(
        self, settings: Settings, kind: NetworkKind, component: Component, sizes: CallSizes | None = None
    ) -> None:
        self._engine: Engine = Engines(settings, kind).of(architecture_of(kind, component.config))
        self._binding: Binding = self._engine.bind(WeightSet(component), never_cancelled, sizes)

    def run(self, rows: Sequence[Inputs]) -> float:
        begun = time.perf_counter()
        self._engine.run([(self._binding, row) for row in rows])
        return time.perf_counter() - begun


def _width(checkpoint: Checkpoint) -> int:
    width: int = checkpoint.unet.config["cross_attention_dim"]
    return width
