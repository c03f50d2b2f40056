"""`vae_encoder` and `vae_decoder`: pixels to the latents' posterior, and latents to pixels. One picture at a time."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import torch

from runtime.engines.engine import Binding, Engine, GraphKind
from runtime.engines.select import Engines
from runtime.jobs.job_table import JobTable
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.call import Array, Call
from runtime.stages.stage import WorkerStage
from runtime.stages.weight_sets import bind


class _VaeStage(WorkerStage):
    """What both halves share: an engine for the checkpoint's VAE."""

    kind: ClassVar[GraphKind]

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table)
        self._engines = Engines(settings, self.kind)

    def _bind(self, plan: Plan, call: Call) -> tuple[Engine, Binding]:
        begun = time.monotonic()
        engine, binding = bind(
            self._engines, self.kind, plan, plan.checkpoint.vae, lambda: self.reporter.check(plan.job)
        )
        call.timings[f"{self.kind}_load"] = time.monotonic() - begun
        return engine, binding


class VaeEncoderStage(_VaeStage):
    """PLAN, INIT_IMAGE UINT8 [H, W, 3] -> LATENT_MEAN, LATENT_STD FP32 [1, 4, h, w]; [0, 4, h, w] without a picture.

    A side that is no multiple of the VAE's scale factor is padded with its last pixels; the decoder cuts them off.
    """

    name = kind = "vae_encoder"

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        if not plan.has_image:
            empty = np.zeros((0, *plan.latents_shape[1:]), np.float32)
            return {"LATENT_MEAN": empty, "LATENT_STD": empty}
        pixels = _to_model(call.bounded("INIT_IMAGE", (plan.height, plan.width, 3)), plan)
        engine, binding = self._bind(plan, call)
        try:
            found = engine.run(binding, {"pixels": pixels})
        finally:
            binding.release()
        return {"LATENT_MEAN": _array(found["mean"]), "LATENT_STD": _array(found["std"])}


class VaeDecoderStage(_VaeStage):
    """PLAN, LATENTS FP32 [N, 4, h, w] -> PIXELS UINT8 [N, height, width, 3]."""

    name = kind = "vae_decoder"

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        latents = torch.from_numpy(call.bounded("LATENTS", plan.latents_shape)) / plan.checkpoint.scaling_factor
        engine, binding = self._bind(plan, call)
        try:
            pictures = []
            for latent in latents:
                self.reporter.check(plan.job)
                found = engine.run(binding, {"latents": latent[None]})["pixels"]
                assert isinstance(found, torch.Tensor)
                pictures.append(_to_pixels(found[0], plan))
        finally:
            binding.release()
        return {"PIXELS": np.stack(pictures)}


def _to_model(pixels: Array, plan: Plan) -> torch.Tensor:
    """UINT8 [H, W, 3] -> [1, 3, padded H, padded W] in [-1, 1]."""
    bottom, right = plan.padded_height - pixels.shape[0], plan.padded_width - pixels.shape[1]
    padded = np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="edge")
    return torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def _to_pixels(picture: torch.Tensor, plan: Plan) -> Array:
    """[3, padded H, padded W] around [-1, 1] -> UINT8 [height, width, 3], rounded as diffusers does."""
    unit = (picture.cpu() / 2 + 0.5).clamp(0, 1)[:, : plan.height, : plan.width]
    return (unit.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def _array(value: object) -> Array:
    assert isinstance(value, torch.Tensor)
    return value.cpu().numpy()
