"""The `denoiser` stage: a loader thread makes jobs ready, the loop steps them, and each answers when it is done."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.engines.select import Engines
from runtime.jobs.job_reporter import JobReporter
from runtime.jobs.job_table import JobTable, State
from runtime.jobs.worker_pool import WorkerPool
from runtime.low_priority import run_at_low_priority
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.call import Call, json_tensor
from runtime.stages.denoiser.job import Conditions, Job
from runtime.stages.denoiser.step_loop import Member, StepLoop
from runtime.stages.weight_sets import bind

_WIDEST = 1 << 16  # numbers in an embedding; the network knows its own
_NOT_FINITE = "the latents are not finite in {}: a LoRA's scale or guidance_scale is too large, or the weights are bad"


class DenoiserStage:
    """PLAN, PROMPT_EMBEDS, POOLED_EMBEDS, LATENT_MEAN, LATENT_STD, REPORT -> LATENTS FP32 [N, 4, h, w],
    PER_PASS_LATENTS FP32 [steps, N, 4, h, w] ([0, ...] unless asked for), REPORT."""

    name = "denoiser"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        self._settings, self.reporter = settings, JobReporter(self.name, job_table)
        self._engines = Engines(settings, "unet", begin=run_at_low_priority)
        self._room = threading.Semaphore(settings.max_running)
        self._loader = WorkerPool(1, "loader", self._room, begin=run_at_low_priority)
        self._answers = ThreadPoolExecutor(1, "answers")
        self._loop = StepLoop(settings.turn_steps)

    def submit(self, call: Call) -> None:
        try:
            plan = self.reporter.take(call)
            self._loader.submit(self.reporter.task(plan.job, call, plan.priority, lambda: self._load(plan, call)))
        except Exception as error:
            self.reporter.fail(None, call, error)

    def close(self) -> None:
        self.reporter.close()
        self._loader.close()  # what waits is answered, by its check
        self._loop.close()
        self._answers.shutdown(wait=True)

    def _load(self, plan: Plan, call: Call) -> None:
        """Make a job and its weights ready, and let it join the loop, whose end of it leaves the room."""
        try:
            member = self._member(plan, call)
        except BaseException:
            self._room.release()
            raise
        self.reporter.report(plan.job, State.RUNNING, 0, member.job.steps)
        self._loop.add(member)

    def _member(self, plan: Plan, call: Call) -> Member:
        def check() -> None:
            self.reporter.check(plan.job)

        check()
        begun = time.monotonic()
        job = Job(plan, _conditions(plan, call))
        engine, binding = bind(self._engines, "unet", plan, plan.checkpoint.unet, check)
        call.timings["denoiser_load"] = time.monotonic() - begun
        return Member(
            job=job,
            engine=engine,
            binding=binding,
            block=self._settings.block_rows or (2 if plan.guided else 1),
            check=check,
            stepped=lambda step, steps: self.reporter.report(plan.job, State.RUNNING, step, steps),
            ended=lambda member, error: self._end(plan, call, member, error),
        )

    def _end(self, plan: Plan, call: Call, member: Member, error: BaseException | None) -> None:
        """Called by the loop, which must not wait for the answer to be copied and sent."""
        self._room.release()
        self._answers.submit(self._answer, plan, call, member, error)

    def _answer(self, plan: Plan, call: Call, member: Member, error: BaseException | None) -> None:
        try:
            if error is not None:
                raise error
            if not torch.isfinite(member.job.latents).all():
                raise InvalidArgument("", _NOT_FINITE.format(member.engine.precision))
            call.timings[self.name] = member.seconds
            report = call.report(engine=member.engine.name, precision=member.engine.precision)
            self.reporter.report(plan.job, State.DONE, member.job.step, member.job.steps)
            call.reply(
                {
                    "LATENTS": np.ascontiguousarray(member.job.latents.numpy()),
                    "PER_PASS_LATENTS": np.ascontiguousarray(member.job.passes.numpy()),
                    "REPORT": json_tensor(report),
                }
            )
        except BaseException as failure:
            self.reporter.fail(plan.job, call, failure)


def _conditions(plan: Plan, call: Call) -> Conditions:
    rows, posterior = 2 if plan.guided else 1, (1, *plan.latents_shape[1:])
    longest = {
        "PROMPT_EMBEDS": (rows, MAX_TOKENS, _WIDEST),
        "POOLED_EMBEDS": (rows, _WIDEST),
        "LATENT_MEAN": posterior,
        "LATENT_STD": posterior,
    }
    # Copied: Triton's tensors end with the request, and what is made of them may outlive it.
    return Conditions(*(torch.from_numpy(np.array(call.bounded(name, shape))) for name, shape in longest.items()))
