"""The `denoiser` stage: a loader thread prepares jobs, the step loop runs them, and a thread sends their answers."""

from __future__ import annotations

import threading
import time

import numpy as np
import torch

from runtime.engines.ask import Bound
from runtime.engines.engine import never_cancelled
from runtime.engines.select import Engines
from runtime.jobs.activity import Worker
from runtime.jobs.job_table import JobTable, State
from runtime.jobs.worker_pool import Task, WorkerPool
from runtime.low_priority import run_at_low_priority
from runtime.metrics.stage_definitions import CALL_ROWS, CALL_SECONDS, ROWS, STEPS
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Call
from runtime.stages.denoiser.initial_latents import Conditions
from runtime.stages.denoiser.job import Job
from runtime.stages.step_loop.member import Member
from runtime.stages.step_loop.step_loop import StepLoop
from runtime.stages.plan_stage import PlanStage
from runtime.stages.seal import check_seal
from runtime.stages.watch_weights import watch_weights

_NOT_FINITE = "the latents are not finite in {}: a LoRA's scale or guidance_scale is too large, or the weights are bad"


class DenoiserStage(PlanStage):
    """PLAN, PROMPT_EMBEDS, POOLED_EMBEDS, LATENT_MEAN, LATENT_STD, REPORT -> LATENTS FP32 [N, 4, h, w],
    PER_PASS_LATENTS FP32 [steps, N, 4, h, w] ([0, ...] unless asked for), REPORT."""

    name = "denoiser"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        self._slots = threading.Semaphore(settings.max_running)
        super().__init__(settings, job_table, WorkerPool(1, "loader", self._slots, begin=run_at_low_priority))
        self.metrics.declare(STEPS, ROWS, CALL_ROWS, CALL_SECONDS)
        self._engines = Engines(settings, "unet", begin=run_at_low_priority)
        self._answers = WorkerPool(1, "answers")
        self._loop = StepLoop(settings.calls_per_turn, self._count_call)
        watch_weights(self.metrics, self._engines.weights)

    @property
    def workers(self) -> tuple[Worker, ...]:
        return (*super().workers, self._loop, self._answers)

    def _work(self, plan: Plan, call: Call) -> None:
        """Prepare a job and its weights, and add it to the loop. The end of the job frees its slot."""
        try:
            member = self._member(plan, call)
        except BaseException:
            self._slots.release()
            raise
        self.reporter.report(plan.job, State.RUNNING, 0, member.job.steps)
        self._loop.add(member)

    def _member(self, plan: Plan, call: Call) -> Member:
        def check_cancelled() -> None:
            self.reporter.check(plan.job)

        check_cancelled()
        check_seal(self.job_table.key, plan.job, call)
        begun = time.monotonic()
        conditions = _conditions(call)
        block_rows = self.settings.block_rows or (2 if plan.guided else 1)
        unet = bind_component(self._engines, "unet", plan, plan.checkpoint.unet, check_cancelled, block_rows)
        try:
            job = Job(plan, conditions, unet)
        except BaseException:
            unet.release()
            raise
        call.report.timings["denoiser_load"] = time.monotonic() - begun
        return Member(
            job=job,
            check_cancelled=check_cancelled,
            on_step=lambda step, steps: self._count_step(plan, step, steps),
            on_end=lambda member, error: self._end(plan, call, job, unet, member.seconds, error),
        )

    def _count_step(self, plan: Plan, step: int, steps: int) -> None:
        self.reporter.report(plan.job, State.RUNNING, step, steps)
        self.metrics.count(STEPS)

    def _count_call(self, rows: int, seconds: float) -> None:
        self.metrics.count(ROWS, rows)
        self.metrics.count(CALL_SECONDS, seconds)
        self.metrics.observe(CALL_ROWS, rows)

    def _end(self, plan: Plan, call: Call, job: Job, unet: Bound, seconds: float, error: BaseException | None) -> None:
        """Called by the loop, which must not wait for the answer to be copied and sent."""
        self._slots.release()
        call.report.timings[self.name] = seconds
        self._answers.submit(
            Task(
                plan.priority,
                lambda: self._answer(plan, call, job, unet, error),
                check_cancelled=never_cancelled,
                fail=lambda failure: self.reporter.fail(plan.job, call, failure),
            )
        )

    def _answer(self, plan: Plan, call: Call, job: Job, unet: Bound, error: BaseException | None) -> None:
        if error is not None:
            raise error
        if not torch.isfinite(job.latents).all():
            raise InvalidArgument("", _NOT_FINITE.format(unet.binding.precision))
        call.report.engine = self._engines.receipt(unet)
        outputs = {
            "LATENTS": np.ascontiguousarray(job.latents.cpu().numpy()),
            "PER_PASS_LATENTS": np.ascontiguousarray(job.passes.cpu().numpy()),
        }
        self.reporter.report(plan.job, State.DONE, job.steps_done, job.steps)
        self._reply(plan.job, call, outputs)


def _conditions(call: Call) -> Conditions:
    names = ("PROMPT_EMBEDS", "POOLED_EMBEDS", "LATENT_MEAN", "LATENT_STD")
    # Copied: Triton frees its tensors with the request, and the job's tensors may live longer.
    return Conditions(*(torch.from_numpy(np.array(call.inputs[name])) for name in names))
