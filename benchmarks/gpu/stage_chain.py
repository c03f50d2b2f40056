"""The server's stages in one process, connected as the ensemble connects them, for a machine without Triton."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from lorikeet.protocol.tensors import FILES, IMAGE, REQUEST
from runtime.jobs.job_table import JobTable
from runtime.settings import Settings
from runtime.stage_errors import StageError
from runtime.stages.call import Array, Call, Tensors, bytes_tensor
from runtime.stages.denoiser.stage import DenoiserStage
from runtime.stages.finish import FinishStage
from runtime.stages.prepare.stage import PrepareStage
from runtime.stages.text_encoder import TextEncoderStage
from runtime.stages.vae.stage import VaeDecoderStage, VaeEncoderStage

# Each stage after `prepare`, and the tensors that the ensemble gives it besides REPORT and SEAL.
_STEPS: tuple[tuple[type[Any], tuple[str, ...]], ...] = (
    (TextEncoderStage, ("PLAN",)),
    (VaeEncoderStage, ("PLAN", "PICTURES")),
    (DenoiserStage, ("PLAN", "PROMPT_EMBEDS", "POOLED_EMBEDS", "LATENT_MEAN", "LATENT_STD")),
    (VaeDecoderStage, ("PLAN", "LATENTS")),
    (FinishStage, ("PLAN", "PIXELS", "LATENTS", "PER_PASS_LATENTS")),
)


class StageChain:
    """Takes requests as the ensemble does. `folder` gets the job table.

    `seconds`: the time from the last call of each stage after `prepare` to its answer.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        job_table = JobTable(folder / "job_table")
        self._prepare = PrepareStage(settings, job_table)
        self._steps = [(stage(settings, job_table), names) for stage, names in _STEPS]
        self.seconds: dict[str, float] = {}
        self._locks = [threading.Lock() for _ in self._steps]  # one thread at a time may submit to a stage

    def submit(self, fields: Mapping[str, Any], image: bytes) -> Future[Tensors]:
        """Start a request. Its result is the ensemble's outputs; a StageError is its exception."""
        done: Future[Tensors] = Future()
        inputs = {
            REQUEST: bytes_tensor([json.dumps(dict(fields)).encode()]),
            FILES: bytes_tensor([]),
            IMAGE: np.frombuffer(image, np.uint8),
        }
        self._prepare.submit(Call(inputs, lambda answer: self._next(0, {}, answer, done)))
        return done

    def run(self, fields: Mapping[str, Any], image: bytes) -> Tensors:
        """The outputs of a request. Raises its StageError."""
        return self.submit(fields, image).result()

    def close(self) -> None:
        for stage in (self._prepare, *(stage for stage, _ in self._steps)):
            stage.close()

    def _next(
        self, number: int, known: Mapping[str, Array], answer: Tensors | StageError, done: Future[Tensors]
    ) -> None:
        """Give a stage's answer to the next one. `known`: the tensors of all earlier stages."""
        if isinstance(answer, StageError):
            done.set_exception(answer)
        elif number == len(self._steps):
            done.set_result(answer)
        else:
            known = {**known, **answer}
            stage, names = self._steps[number]
            begun = time.perf_counter()

            def pass_on(found: Tensors | StageError) -> None:
                self.seconds[stage.name] = time.perf_counter() - begun
                self._next(number + 1, known, found, done)

            call = Call({name: known[name] for name in (*names, "REPORT", "SEAL")}, pass_on)
            with self._locks[number]:
                stage.submit(call)
