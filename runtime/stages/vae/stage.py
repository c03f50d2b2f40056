"""`vae_encoder` and `vae_decoder`: the init image to its posterior, and latents to pixels. One picture at a time."""

from __future__ import annotations

import time
from typing import ClassVar, Literal

import numpy as np
import torch

from runtime.engines.ask import Bound
from runtime.engines.engine import Inputs, Outputs
from runtime.engines.select import Engines
from runtime.jobs.job_table import JobTable
from runtime.plan import INIT_IMAGE, Plan
from runtime.settings import Settings
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Array, Call
from runtime.stages.watch_weights import watch_weights
from runtime.stages.worker_stage import WorkerStage


class _VaeStage(WorkerStage):
    """What both halves share: engines for the checkpoints' VAEs."""

    kind: ClassVar[Literal["vae_encoder", "vae_decoder"]]

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table)
        self._engines = Engines(settings, self.kind)
        watch_weights(self.metrics, self._engines.weights)

    def _bind(self, plan: Plan, call: Call) -> Bound:
        begun = time.monotonic()
        vae = plan.checkpoint.vae
        bound = bind_component(self._engines, self.kind, plan, vae, lambda: self.reporter.check(plan.job))
        call.report.timings[f"{self.kind}_load"] = time.monotonic() - begun
        return bound


class VaeEncoderStage(_VaeStage):
    """PLAN, PICTURES UINT8 [bytes] -> LATENT_MEAN, LATENT_STD FP32 [1, 4, h, w]; [0, 4, h, w] without an init image.

    A side that is not a multiple of the VAE's scale factor is padded with its last pixels; the decoder cuts them off.
    """

    name = kind = "vae_encoder"

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        picture = plan.picture(INIT_IMAGE)
        if picture is None:
            empty = np.zeros((0, *plan.latents_shape[1:]), np.float32)
            return {"LATENT_MEAN": empty, "LATENT_STD": empty}
        pixels = _to_model(picture.pixels(call.inputs["PICTURES"]), plan)
        bound = self._bind(plan, call)
        try:
            found = _run(bound, {"pixels": pixels})
        finally:
            bound.release()
        return {"LATENT_MEAN": _array(found["mean"])[None], "LATENT_STD": _array(found["std"])[None]}


class VaeDecoderStage(_VaeStage):
    """PLAN, LATENTS FP32 [N, 4, h, w] -> PIXELS UINT8 [N, height, width, 3]."""

    name = kind = "vae_decoder"

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        latents = torch.from_numpy(call.inputs["LATENTS"]) / plan.checkpoint.scaling_factor
        bound = self._bind(plan, call)
        try:
            pictures = []
            for latent in latents:
                self.reporter.check(plan.job)
                pixels = _run(bound, {"latents": latent})["pixels"]
                assert isinstance(pixels, torch.Tensor)
                pictures.append(_to_pixels(pixels, plan))
        finally:
            bound.release()
        return {"PIXELS": np.stack(pictures)}


def _run(bound: Bound, inputs: Inputs) -> Outputs:
    return bound.engine.run([(bound.binding, inputs)])[0]


def _to_model(pixels: Array, plan: Plan) -> torch.Tensor:
    """UINT8 [H, W, 3] -> [3, padded H, padded W] in [-1, 1]."""
    bottom, right = plan.padded_height - pixels.shape[0], plan.padded_width - pixels.shape[1]
    padded = np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="edge")
    return torch.from_numpy(padded).permute(2, 0, 1).float() / 127.5 - 1.0


def _to_pixels(picture: torch.Tensor, plan: Plan) -> Array:
    """[3, padded H, padded W] around [-1, 1] -> UINT8 [height, width, 3], rounded as diffusers does."""
    unit = (picture.cpu() / 2 + 0.5).clamp(0, 1)[:, : plan.height, : plan.width]
    return (unit.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def _array(value: object) -> Array:
    assert isinstance(value, torch.Tensor)
    return value.cpu().numpy()
