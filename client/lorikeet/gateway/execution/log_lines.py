"""The log of a request: one line a stage, one line a denoising step, and what the user should know of the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from lorikeet.schema import ImageToImageInput, ImageToImageOutput, JobStatus

_DENOISER = "denoiser"  # the stage whose steps are denoising steps

Level = Literal["INFO", "WARN", "ERROR"]


@dataclass(frozen=True)
class LogLine:
    """One line, as the clients read it. `timestamp`: ISO 8601, UTC, milliseconds."""

    message: str
    level: Level
    timestamp: str
    source: str = "USER"


def log_line(message: str, level: Level = "INFO") -> LogLine:
    """A line of this moment."""
    now = datetime.now(timezone.utc)
    return LogLine(message, level, now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z")


class StepLog:
    """Turns the statuses of a running request into lines. `on_rate` gets the denoising steps a second."""

    def __init__(self, add: Callable[[LogLine], None], on_rate: Callable[[float], None]) -> None:
        self._add, self._on_rate = add, on_rate
        self._stage: str | None = None
        self._step, self._of, self._since = 0, 0, 0.0
        self._has_steps = False

    def __call__(self, status: JobStatus) -> None:
        if status.stage != self._stage:
            self.finish_stage()
            self._stage, self._step, self._of, self._since = status.stage, 0, 0, time.monotonic()
            if status.stage:
                self._add(log_line(status.stage))
        if status.stage == _DENOISER:
            self._of = status.of
            self._add_steps(status.step)

    def finish(self, steps: int, seconds: float) -> None:
        """The request has ended, after `steps` denoising steps in `seconds`. Short ones lie between two polls."""
        self.finish_stage()
        if steps and not self._has_steps:
            self._step, self._of, self._since = 0, steps, time.monotonic() - seconds
            self._add_steps(steps)

    def finish_stage(self) -> None:
        """The stage has ended: the steps that no status told of are done too."""
        self._add_steps(self._of)

    def _add_steps(self, step: int) -> None:
        if step <= self._step:
            return
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._since, 1e-6)
        for done in range(self._step + 1, step + 1):
            self._add(log_line(f"{done}/{self._of} {rate:.1f} it/s"))
        self._step, self._since, self._has_steps = step, now, True
        self._on_rate(rate)


def planned_steps(request: ImageToImageInput) -> int:
    """The denoising steps that a request asks for; 0 when its own timesteps or sigmas decide.

    A few schedulers make more: PNDM one.
    """
    is_round_trip = request.image_url is not None and request.noise_strength == 0
    is_custom = request.timesteps.is_custom or request.sigmas.is_custom
    return 0 if is_round_trip or is_custom else request.num_inference_steps


def denoising_seconds(response: ImageToImageOutput) -> float:
    """The time that the denoising steps of a request took."""
    return response.timings.get(_DENOISER, 0.0)


def result_lines(response: ImageToImageOutput) -> list[LogLine]:
    """The warnings, and the LoRAs of which a part matched nothing."""
    partial = [
        f"{lora.field}: {lora.matched} of {lora.tensors} tensors apply"
        for lora in response.receipt.loras
        if lora.matched < lora.tensors
    ]
    return [log_line(text, "WARN") for text in (*response.warnings, *partial)]
