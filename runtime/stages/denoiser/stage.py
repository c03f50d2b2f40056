"""The `denoiser` stage: a loader thread makes jobs ready, the loop steps them, and each answers when it is done."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from runtime.background import give_way
from runtime.board import Board, State
from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.engines.choice import Engines
from runtime.errors import InvalidArgument
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.denoiser.job import Conditions, Job
from runtime.stages.denoiser.loop import Loop, Member
from runtime.stages.stage import Call, Desk, json_tensor
from runtime.stages.weight_sets import bind
from runtime.stages.workers import Workers

_WIDEST = 1 << 16  # numbers in an embedding; the network knows its own
_NOT_FINITE = "the latents are not finite in {}: a LoRA's scale or guidance_scale is too large, or the weights are bad"


class DenoiserStage:
    """PLAN, PROMPT_EMBEDS, POOLED_EMBEDS, LATENT_MEAN, LATENT_STD, REPORT -> LATENTS FP32 [N, 4, h, w],
    PER_PASS_LATENTS FP32 [steps, N, 4, h, w] ([0, ...] unless asked for), REPORT."""

    name = "denoiser"

    def __init__(self, settings: Settings, board: Board) -> None:
        self._settings, self.desk = settings, Desk(self.name, board)
        self._engines = Engines(settings, "unet", begin=give_way)
        self._room = threading.Semaphore(settings.max_running)
        self._loader = Workers(1, "loader", self._room, begin=give_way)
        self._answers = ThreadPoolExecutor(1, "answers")
        self._loop = Loop(settings.turn_steps)

    def submit(self, call: Call) -> None:
        try:
            plan = self.desk.take(call)
            self._loader.submit(self.desk.task(plan.job, call, plan.priority, lambda: self._load(plan, call)))
        except Exception as error:
            self.desk.fail(None, call, error)

    def close(self) -> None:
        self.desk.close()
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
        self.desk.report(plan.job, State.RUNNING, 0, member.job.steps)
        self._loop.add(member)

    def _member(self, plan: Plan, call: Call) -> Member:
        def check() -> None:
            self.desk.check(plan.job)

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
            stepped=lambda step, steps: self.desk.report(plan.job, State.RUNNING, step, steps),
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
            self.desk.report(plan.job, State.DONE, member.job.step, member.job.steps)
            call.reply(
                {
                    "LATENTS": np.ascontiguousarray(member.job.latents.numpy()),
                    "PER_PASS_LATENTS": np.ascontiguousarray(member.job.passes.numpy()),
                    "REPORT": json_tensor(report),
                }
            )
        except BaseException as failure:
            self.desk.fail(plan.job, call, failure)


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
