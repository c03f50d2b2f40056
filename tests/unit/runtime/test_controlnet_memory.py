"""A job with ControlNets holds the residuals of a few rows at a time, and its calls have no empty rows."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.conditioning.controlnet import ControlNet
from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Outputs, never_cancelled
from runtime.stages.denoiser.initial_latents import Conditions, plan_schedule
from runtime.stages.denoiser.job import Job
from runtime.stages.step_loop.member import Member
from tests.unit.runtime.engines import noise
from tests.unit.runtime.fake_engine import FakeBinding, FakeEngine
from tests.unit.runtime.plans import make_plan
from tests.unit.runtime.stand_in import answer, answered, run_to_end, tensor

SHAPE = torch.Size([3, 7, 7])  # of the only residual of a row


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the residuals that are in memory: those of the networks, and what is computed from them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.shape == SHAPE:
            self.now += 1
            self.most = max(self.most, self.now)
            weakref.finalize(found, self._end)
        return found

    def _end(self) -> None:
        self.now -= 1


def _job(checkpoint: Checkpoint, block_rows: int, networks: int, **fields: Any) -> Job:
    plan = make_plan(checkpoint, scheduler="DDIM", num_inference_steps=2, **fields)
    _, *shape = plan.latents_shape
    posterior = torch.zeros(0, *shape)
    conditions = Conditions(noise(1 + plan.guided, 77, 32, seed=1), torch.zeros(2, 0), posterior, posterior)
    condition = noise(3, plan.height, plan.width)
    controlnets = [
        ControlNet(_bound("controlnet", block_rows), (number + 1) * condition, conditioning_scale=0.5)
        for number in range(networks)
    ]
    return Job(plan, conditions, plan_schedule(plan), _bound("unet", block_rows), controlnets)


def _bound(key: str, block_rows: int) -> Bound:
    return Bound(FakeEngine(), FakeBinding(key), block_rows)


def _respond(ask: Ask) -> Outputs:
    if "condition" in ask.inputs:
        return {"residuals": (torch.full(SHAPE, float(tensor(ask, "condition").sum() + tensor(ask, "latent").sum())),)}
    residuals = ask.inputs.get("residuals")
    added = float(residuals[0].mean()) if isinstance(residuals, tuple) else 0.0
    return {"prediction": answer(tensor(ask, "latent") + added, tensor(ask, "t"))}


def _most_alive(job: Job) -> int:
    member = Member(job, never_cancelled, lambda *_: None, lambda *_: None)
    alive = _Alive()
    with alive:
        while not member.advance():
            while member.waits:
                for place, outputs in [(place, _respond(ask)) for place, ask in member.next_asks()]:
                    member.answer(place, outputs)
    assert job.done
    return alive.most


@pytest.mark.parametrize("tiles", [{}, {"size": 256, "tile_width": 128, "tile_height": 128}])
@pytest.mark.parametrize("networks", [1, 4])
def test_few_residuals_are_in_memory(sd15: Checkpoint, networks: int, tiles: dict[str, int]) -> None:
    """However many images, windows and networks: a sum and an answer for each row of a slice, and two to add them."""
    assert 2 < _most_alive(_job(sd15, 2, networks, num_images=8, **tiles)) <= 2 * (2 + 2)


@pytest.mark.parametrize("guess_mode", [False, True])
@pytest.mark.parametrize("block_rows", [1, 2, 3, 4, 8])
def test_only_the_last_call_of_a_step_has_empty_rows(sd15: Checkpoint, block_rows: int, guess_mode: bool) -> None:
    job = _job(sd15, block_rows, 2, num_images=8, controlnet_guess_mode=guess_mode)
    calls = {"controlnet": 0, "unet": 0}
    for asks in answered(job.step(), _respond)[0]:
        calls["controlnet" if "condition" in asks[0].inputs else "unet"] += -(-len(asks) // block_rows)
    rows = 8 if guess_mode else 16
    assert calls == {"controlnet": 2 * -(-rows // block_rows), "unet": -(-16 // block_rows)}


@pytest.mark.parametrize("block_rows", [1, 2, 3, 4, 32])
@pytest.mark.parametrize("guess_mode", [False, True])
@pytest.mark.parametrize("tiles", [{}, {"size": 192, "tile_width": 128, "tile_height": 128}])
def test_slices_change_no_byte(sd15: Checkpoint, block_rows: int, guess_mode: bool, tiles: dict[str, int]) -> None:
    fields: dict[str, Any] = {"num_images": 3, "controlnet_guess_mode": guess_mode, **tiles}
    whole = run_to_end(_job(sd15, 1000, 2, **fields), _respond)
    assert torch.equal(run_to_end(_job(sd15, block_rows, 2, **fields), _respond), whole)
