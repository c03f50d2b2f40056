"""`vae_encoder` and `vae_decoder`: the init image to its posterior, and latents to pixels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar

import torch

from runtime.engines.ask import Bound
from runtime.engines.select import Engines
from runtime.jobs.job_table import JobTable
from runtime.plan import BACKGROUND, FOREGROUND, INIT_IMAGE, Plan
from runtime.settings import Settings
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Array, Call
from runtime.stages.loop_stage import LoopStage
from runtime.stages.vae.jobs import DecodeJob, EncodeJob, VaeJob
from runtime.stages.vae.safety_check import SafetyCheck
from runtime.stages.watch_weights import watch_weights

# Requests that take turns, call by call. Further ones wait, by priority. A call has one row, so more requests at a time
# would not be faster.
_SLOTS = 4
AnyVaeJob = TypeVar("AnyVaeJob", bound=VaeJob)


class _VaeStage(LoopStage[AnyVaeJob]):
    """What both halves share: engines for the checkpoints' VAEs."""

    kind: ClassVar[Literal["vae_encoder", "vae_decoder"]]

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table, slots=_SLOTS, calls_per_turn=1)
        self._engines = Engines(settings, self.kind)
        watch_weights(self.metrics, self._engines.weights)

    def _bound_job(
        self, plan: Plan, call: Call, check_cancelled: Callable[[], None], make: Callable[[Bound], AnyVaeJob]
    ) -> AnyVaeJob:
        """The job that `make` makes with the VAE's binding."""
        begun = time.monotonic()
        with self._engines.weights.one_request():
            bound = bind_component(self._engines, self.kind, plan, plan.checkpoint.vae, check_cancelled)
            call.report.timings[f"{self.kind}_load"] = time.monotonic() - begun
            try:
                return make(bound)
            except BaseException:
                bound.release()
                raise

    def _outputs(self, plan: Plan, call: Call, job: AnyVaeJob) -> dict[str, Array]:
        timings = call.report.timings
        timings[self.name] += timings.get(f"{self.kind}_load", 0.0)  # part of the stage's time, as in `text_encoder`
        return job.outputs


class VaeEncoderStage(_VaeStage[EncodeJob]):
    """PLAN, PICTURES UINT8 [bytes] -> LATENT_MEAN, LATENT_STD FP32 [1, 4, h, w] and CONCAT FP32 [C, h, w].

    The first two are [0, 4, h, w] without an init image. C is 0 without IC-Light, and 4 for each of its pictures.

    A side that is not a multiple of the VAE's scale factor is padded with its last pixels; the decoder cuts them off.
    """

    name = kind = "vae_encoder"

    def _make_job(self, plan: Plan, call: Call, check_cancelled: Callable[[], None]) -> EncodeJob:
        found = (plan.picture(field) for field in (INIT_IMAGE, FOREGROUND, BACKGROUND))
        pictures = [picture.pixels(call.inputs) for picture in found if picture is not None]
        if not pictures:
            return EncodeJob(plan, None, [])
        return self._bound_job(plan, call, check_cancelled, lambda bound: EncodeJob(plan, bound, pictures))


class VaeDecoderStage(_VaeStage[DecodeJob]):
    """PLAN, LATENTS FP32 [N, 4, h, w] -> PIXELS UINT8 [N, height, width, 3]; those that are flagged are black."""

    name = kind = "vae_decoder"

    def _make_job(self, plan: Plan, call: Call, check_cancelled: Callable[[], None]) -> DecodeJob:
        latents = torch.from_numpy(call.inputs["LATENTS"]) / plan.checkpoint.scaling_factor

        def make(bound: Bound) -> DecodeJob:
            return DecodeJob(plan, bound, latents, self._safety_check(plan, check_cancelled))

        return self._bound_job(plan, call, check_cancelled, make)

    def _safety_check(self, plan: Plan, check_cancelled: Callable[[], None]) -> SafetyCheck | None:
        checker = plan.safety_checker
        if checker is None:
            return None
        bound = bind_component(self._engines, "safety_checker", plan, checker, check_cancelled)
        return SafetyCheck(bound, int(checker.config.get("image_size", 224)))

    def _outputs(self, plan: Plan, call: Call, job: DecodeJob) -> dict[str, Array]:
        call.report.has_nsfw_concepts = job.flagged
        return super()._outputs(plan, call, job)
