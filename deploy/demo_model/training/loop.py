"""The training loop of every run: time budget, learning rate, weight averaging, saving and progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from deploy.demo_model.pipeline.image_generator import autocast
from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.state import TrainingState

WARM_UP_STEPS = 100
SAVE_EVERY_S = 240.0
REPORT_EVERY_S = 30.0
LONGEST_STEP_S = 20.0  # a longer step means that the process was suspended


@dataclass(frozen=True)
class TrainingSettings:
    """Total `minutes` (earlier sessions included), batch size, peak learning rate and decay of the weight average.

    `session_minutes`: most minutes of this session; a later one continues."""

    minutes: float
    batch: int
    peak_rate: float
    decay: float = 0.998
    session_minutes: float = math.inf


def device() -> torch.device:
    """The training device: CUDA if available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    state: TrainingState[Any],
    settings: TrainingSettings,
    loss_of: Callable[[int], torch.Tensor],
    preview: Callable[[], None],
) -> None:
    """Train until `state.seconds` reaches `settings.minutes` or the session ends.

    `loss_of(n)` is the loss of `n` new samples. Process 0 saves the state and calls `preview` every `SAVE_EVERY_S`
    seconds and at the end."""
    data_parallel.broadcast(state.module)
    stepped = reported = saved = time.monotonic()
    trained = [parameter for parameter in state.module.parameters() if parameter.requires_grad]
    losses, samples = [], 0
    end = min(settings.minutes * 60, state.seconds + settings.session_minutes * 60)
    while state.seconds < end:
        for group in state.optimizer.param_groups:
            group["lr"] = _rate(state, settings)
        with autocast(device()):
            loss = loss_of(settings.batch)
        state.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        state.seconds = data_parallel.average_gradients(trained, state.seconds)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        state.optimizer.step()
        state.steps += 1
        state.samples += settings.batch * data_parallel.world_size()
        state.update_average(settings.decay)
        losses.append(loss.item())
        samples += settings.batch * data_parallel.world_size()
        now = time.monotonic()
        state.seconds += min(now - stepped, LONGEST_STEP_S)
        stepped = now
        if data_parallel.rank() == 0 and now - reported > REPORT_EVERY_S:
            print(_progress(state, sum(losses) / len(losses), samples / (now - reported)), flush=True)
            reported, losses, samples = now, [], 0
        if data_parallel.rank() == 0 and now - saved > SAVE_EVERY_S:
            state.save()
            preview()
            saved = now
    if data_parallel.rank() == 0:
        state.save()
        preview()


def _rate(state: TrainingState[Any], settings: TrainingSettings) -> float:
    """The learning rate: a linear warm-up, then half a cosine over the whole training time."""
    progress = min(1.0, state.seconds / (settings.minutes * 60))
    cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2
    return settings.peak_rate * min(1.0, (state.steps + 1) / WARM_UP_STEPS) * cosine


def _progress(state: TrainingState[Any], loss: float, speed: float) -> str:
    return f"{state.seconds / 60:6.1f} min  step {state.steps}  loss {loss:.4f}  {speed:.1f} samples/s"
