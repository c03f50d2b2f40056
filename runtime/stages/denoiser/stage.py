"""The `denoiser` stage: a loader thread prepares jobs, the step loop runs them, and a thread sends their answers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.engines.ask import Bound
from runtime.engines.select import Engines
from runtime.jobs.job_reporter import JobReporter
from runtime.jobs.job_table import JobTable, State
from runtime.jobs.worker_pool import WorkerPool
from runtime.low_priority import run_at_low_priority
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Call, json_tensor
from runtime.stages.denoiser.initial_latents import Conditions
from runtime.stages.denoiser.job import Job
from runtime.stages.denoiser.member import Member
from runtime.stages.denoiser.step_loop import StepLoop
from runtime.stages.take_plan import take_plan

_MAX_WIDTH = 1 << 16  # numbers in an embedding; the network checks the exact width
_NOT_FINITE = "the latents are not finite in {}: a LoRA's scale or guidance_scale is too large, or the weights are bad"


class DenoiserStage:
    """PLAN, PROMPT_EMBEDS, POOLED_EMBEDS, LATENT_MEAN, LATENT_STD, REPORT -> LATENTS FP32 [N, 4, h, w],
    PER_PASS_LATENTS FP32 [steps, N, 4, h, w] ([0, ...] unless asked for), REPORT."""

    name = "denoiser"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        self._settings, self.reporter = settings, JobReporter(self.name, job_table)
        self._engines = Engines(settings, "unet", begin=run_at_low_priority)
        self._slots = threading.Semaphore(settings.max_running)
        self._loader = WorkerPool(1, "loader", self._slots, begin=run_at_low_priority)
        self._answers = ThreadPoolExecutor(1, "answers")
        self._loop = StepLoop(settings.calls_per_turn)

    def submit(self, call: Call) -> None:
        try:
            plan = take_plan(self.reporter, call)
            self._loader.submit(self.reporter.task(plan.job, call, plan.priority, lambda: self._load(plan, call)))
        except Exception as error:
            self.reporter.fail(None, call, error)

    def close(self) -> None:
        self.reporter.close()
        self._loader.close()  # the check of each queued job raises, which answers its call
        self._loop.close()
        self._answers.shutdown(wait=True)

    def _load(self, plan: Plan, call: Call) -> None:
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
        begun = time.monotonic()
        conditions = _conditions(plan, call)
        block_rows = self._settings.block_rows or (2 if plan.guided else 1)
        unet = bind_component(self._engines, "unet", plan, plan.checkpoint.unet, check_cancelled, block_rows)
        try:
            job = Job(plan, conditions, unet)
        except BaseException:
            unet.release()
            raise
        call.timings["denoiser_load"] = time.monotonic() - begun
        return Member(
            job=job,
            check_cancelled=check_cancelled,
            on_step=lambda step, steps: self.reporter.report(plan.job, State.RUNNING, step, steps),
            on_end=lambda member, error: self._end(plan, call, job, unet, member.seconds, error),
        )

    def _end(self, plan: Plan, call: Call, job: Job, unet: Bound, seconds: float, error: BaseException | None) -> None:
        """Called by the loop, which must not wait for the answer to be copied and sent."""
        self._slots.release()
        call.timings[self.name] = seconds
        self._answers.submit(self._answer, plan, call, job, unet, error)

    def _answer(self, plan: Plan, call: Call, job: Job, unet: Bound, error: BaseException | None) -> None:
        try:
            if error is not None:
                raise error
            if not torch.isfinite(job.latents).all():
                raise InvalidArgument("", _NOT_FINITE.format(unet.engine.precision))
            report = call.report(engine=unet.engine.name, precision=unet.engine.precision)
            self.reporter.report(plan.job, State.DONE, job.steps_done, job.steps)
            call.reply(
                {
                    "LATENTS": np.ascontiguousarray(job.latents.numpy()),
                    "PER_PASS_LATENTS": np.ascontiguousarray(job.passes.numpy()),
                    "REPORT": json_tensor(report),
                }
            )
        except BaseException as failure:
            self.reporter.fail(plan.job, call, failure)


def _conditions(plan: Plan, call: Call) -> Conditions:
    branches, posterior = 2 if plan.guided else 1, (1, *plan.latents_shape[1:])
    longest = {
        "PROMPT_EMBEDS": (branches, MAX_TOKENS, _MAX_WIDTH),
        "POOLED_EMBEDS": (branches, _MAX_WIDTH),
        "LATENT_MEAN": posterior,
        "LATENT_STD": posterior,
    }
    # Copied: Triton frees its tensors with the request, and the job's tensors may live longer.
    return Conditions(*(torch.from_numpy(np.array(call.bounded(name, shape))) for name, shape in longest.items()))
