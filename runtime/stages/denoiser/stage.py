"""The `denoiser` stage: from embeddings and the init image's posterior to latents."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from runtime.conditioning.controlnet import ControlNet
from runtime.conditioning.image_prompt import ImagePrompts
from runtime.engines.ask import Bound
from runtime.engines.select import Engines
from runtime.jobs.job_table import JobTable
from runtime.low_priority import run_at_low_priority
from runtime.metrics.stage_definitions import CALL_ROWS, CALL_SECONDS, ROWS, STEPS
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Array, Call
from runtime.stages.denoiser.bind_controlnets import bind_controlnets
from runtime.stages.denoiser.image_prompt_masks import image_prompt_masks
from runtime.stages.denoiser.initial_latents import Conditions, plan_schedule
from runtime.stages.denoiser.job import Job
from runtime.stages.denoiser.not_finite import not_finite
from runtime.stages.loop_stage import LoopStage
from runtime.stages.watch_weights import watch_weights

_TENSORS = ("PROMPT_EMBEDS", "POOLED_EMBEDS", "LATENT_MEAN", "LATENT_STD", "CONCAT", "IP_KEYS", "IP_VALUES", "IP_BIAS")
CheckCancelled = Callable[[], None]


class DenoiserStage(LoopStage[Job]):
    """PLAN, CONTROLS, the tensors of the three encoders, REPORT -> LATENTS FP32 [N, 4, h, w],
    PER_PASS_LATENTS FP32 [steps, N, 4, h, w] ([0, ...] unless asked for), REPORT."""

    name = "denoiser"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(
            settings,
            job_table,
            slots=settings.max_running,
            calls_per_turn=settings.calls_per_turn,
            begin=run_at_low_priority,
        )
        self.metrics.declare(STEPS, ROWS, CALL_ROWS, CALL_SECONDS)
        self._engines = Engines(settings, "unet", begin=run_at_low_priority)
        watch_weights(self.metrics, self._engines.weights)

    def _make_job(self, plan: Plan, call: Call, check_cancelled: Callable[[], None]) -> Job:
        begun = time.monotonic()
        schedule = plan_schedule(plan)  # first: a request whose schedule cannot be run loads no weights
        with self._engines.weights.one_request():
            unet, controlnets = self._bind(plan, call, check_cancelled)
        try:
            job = Job(plan, _conditions(plan, call), schedule, unet, controlnets)
        except BaseException:
            for bound in (unet, *(controlnet.bound for controlnet in controlnets)):
                bound.release()
            raise
        call.report.timings["denoiser_load"] = time.monotonic() - begun
        return job

    def _bind(self, plan: Plan, call: Call, check_cancelled: CheckCancelled) -> tuple[Bound, list[ControlNet]]:
        """The request's networks with their weights."""
        block_rows = plan.block_rows(self.settings.block_rows)
        tokens = call.inputs["PROMPT_EMBEDS"].shape[1]
        unet = bind_component(self._engines, "unet", plan, plan.unet, check_cancelled, block_rows, tokens)
        try:
            return unet, bind_controlnets(self._engines, plan, call.inputs, check_cancelled, block_rows)
        except BaseException:
            unet.release()
            raise

    def _count_step(self) -> None:
        self.metrics.count(STEPS)

    def _count_call(self, rows: int, seconds: float) -> None:
        self.metrics.count(ROWS, rows)
        self.metrics.count(CALL_SECONDS, seconds)
        self.metrics.observe(CALL_ROWS, rows)

    def _outputs(self, plan: Plan, call: Call, job: Job) -> dict[str, Array]:
        if not torch.isfinite(job.latents).all():
            raise not_finite(plan, job.unet.binding.precision)
        call.report.engine = self._engines.receipt(job.unet)
        return {
            "LATENTS": np.ascontiguousarray(job.latents.cpu().numpy()),
            "PER_PASS_LATENTS": np.ascontiguousarray(job.passes.cpu().numpy()),
        }


def _conditions(plan: Plan, call: Call) -> Conditions:
    # Copied: Triton frees its tensors with the request, and the job's tensors may live longer.
    text, pooled, mean, std, concat, *prompts = (torch.from_numpy(np.array(call.inputs[name])) for name in _TENSORS)
    keys, values, bias = prompts
    masks = image_prompt_masks(plan, call.inputs)
    return Conditions(text, pooled, mean, std, ImagePrompts(keys, values, bias), concat, masks)
