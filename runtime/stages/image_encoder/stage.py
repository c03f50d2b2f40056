"""`image_encoder`: image prompts -> keys and values of the IP-Adapters. torch is imported at their first request."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from runtime.jobs.job_table import JobTable
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.call import Array, Call
from runtime.stages.image_encoder.image_prompts import NONE, PromptMaker
from runtime.stages.worker_stage import WorkerStage


class ImageEncoderStage(WorkerStage):
    """PLAN, IMAGE_PROMPTS UINT8 [bytes] -> IP_KEYS, IP_VALUES FP32 [branches, adapters, tokens, sum of inner widths],
    IP_BIAS FP32 [adapters, tokens] and IP_TOKENS FP32 [branches, tokens, width], those of the adapters that condition
    ControlNets. All axes are 0 without such adapters.

    The branches are the negative image prompt and the image prompt, or the image prompt alone without guidance.
    """

    name = "image_encoder"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table)
        self._maker: PromptMaker | None = None

    def close(self) -> None:
        super().close()
        if self._maker is not None:
            self._maker.close()

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        if not plan.ip_adapters:
            return {name: np.zeros((0,) * axes, np.float32) for name, axes in NONE.items()}
        if self._maker is None:
            # It takes seconds and 360 MB, which a server without IP-Adapters does not spend. So not at the start.
            module = import_module("runtime.stages.image_encoder.prompt_maker")
            self._maker = module.NetworkPrompts(self.settings, self.metrics)
        return self._maker.make(plan, call, lambda: self.reporter.check(plan.job))
