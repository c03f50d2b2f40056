"""ControlNets through the step loop and the torch engine: a job ends where diffusers' pipelines end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from runtime.checkpoints.checkpoint import Checkpoint, Component, WeightFile
from runtime.conditioning.controlnet import ControlNet
from runtime.engines.ask import Bound
from runtime.engines.engine import never_cancelled
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.stages.denoiser.initial_latents import Conditions, plan_schedule
from runtime.stages.denoiser.job import Job
from runtime.stages.step_loop.member import Member
from runtime.stages.step_loop.step_loop import StepLoop
from runtime.weights.weight_set import WeightSet
from tests.reference import relative_error
from tests.tiny.unets import SD15
from tests.tiny.weights import fill
from tests.unit.runtime.engines import make_engine, noise
from tests.unit.runtime.plans import make_plan
from tests.unit.runtime.tiny_checkpoints import digest

TOLERANCE = 1e-4
SIDE = 64
STEPS = 3
SCALE = 0.7


def _picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


PICTURE, CONTROL = _picture(0), _picture(1)
TEXT = noise(2, 77, SD15["cross_attention_dim"], seed=1)  # the negative prompt's and the prompt's


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Component:
    """A ControlNet of the tiny SD 1.5 UNet. No weight is zero: before training, its last convolutions are."""
    folder = tmp_path_factory.mktemp("controlnet")
    config = {name: value for name, value in SD15.items() if name not in ("sample_size", "up_block_types")}
    controlnet = ControlNetModel(
        layers_per_block=2, norm_num_groups=4, conditioning_embedding_out_channels=(8, 8, 16, 16), **config
    )
    fill(controlnet, 7, {})
    controlnet.save_pretrained(folder)
    file = digest(folder / "diffusion_pytorch_model.safetensors")
    return Component(
        role="controlnet",
        name="controlnets[0]",
        field="controlnets[0].path",
        config=dict(ControlNetModel.load_config(folder)),
        files=(WeightFile(path=file.path, digest=file.digest),),
    )


@dataclass(frozen=True)
class _Case:
    """What a request asks for; without the ControlNet, `scale` is 0."""

    image: bool = True
    scale: float = SCALE
    guess_mode: bool = False
    start: float = 0.0
    end: float = 1.0
    seed: int = 5


CASES = [_Case(), _Case(image=False), _Case(guess_mode=True), _Case(start=0.3), _Case(end=0.5)]


@cache
def _pipe(folder: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder)


@torch.no_grad()
def _expected(tiny: Path, network: Component, case: _Case) -> torch.Tensor:
    """The latents [1, 4, h, w] of diffusers' pipeline."""
    parts = _pipe(tiny / "sd15").components
    scheduler = DDIMScheduler.from_config(parts["scheduler"].config)
    controlnet = ControlNetModel.from_pretrained(network.files[0].path.parent)
    kind = StableDiffusionControlNetImg2ImgPipeline if case.image else StableDiffusionControlNetPipeline
    pipe = kind(**parts | {"scheduler": scheduler}, controlnet=controlnet, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    # Of a schedule of 6 steps, the strength leaves the last 3.
    pictures: dict[str, Any] = {"image": CONTROL, "num_inference_steps": STEPS, "width": SIDE, "height": SIDE}
    if case.image:
        strength = (STEPS + 0.5) / (2 * STEPS)
        pictures = {"image": PICTURE, "control_image": CONTROL, "num_inference_steps": 2 * STEPS, "strength": strength}
    latents: torch.Tensor = pipe(
        prompt_embeds=TEXT[1:],
        negative_prompt_embeds=TEXT[:1],
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(case.seed),
        controlnet_conditioning_scale=case.scale,
        control_guidance_start=case.start,
        control_guidance_end=case.end,
        guess_mode=case.guess_mode,
        output_type="latent",
        **pictures,
    ).images
    return latents


@dataclass(frozen=True)
class _Network:
    """A component on its engine."""

    engine: TorchEngine
    component: Component

    def bind(self) -> Bound:
        return Bound(self.engine, self.engine.bind(WeightSet(self.component), never_cancelled), 2)


class _Denoiser:
    """Engines of the UNet and of the ControlNet, and the step loop around them."""

    def __init__(self, tiny: Path, checkpoint: Checkpoint, network: Component) -> None:
        self._checkpoint = checkpoint
        unet, self.cache = make_engine("unet", checkpoint.unet)
        controlnet, _ = make_engine("controlnet", network, cache=self.cache)
        self._unet, self._controlnet = _Network(unet, checkpoint.unet), _Network(controlnet, network)
        pipe = _pipe(tiny / "sd15")
        with torch.no_grad():
            self._posterior = pipe.vae.encode(pipe.image_processor.preprocess(PICTURE)).latent_dist

    def run(self, *cases: _Case) -> list[torch.Tensor]:
        """The latents of jobs that are in the loop together."""
        jobs, ends = [self._job(case) for case in cases], [threading.Event() for _ in cases]
        errors: list[BaseException | None] = []

        def member(job: Job, end: threading.Event) -> Member:
            def on_end(_: Member, error: BaseException | None) -> None:
                errors.append(error)
                end.set()

            return Member(job=job, check_cancelled=never_cancelled, on_step=lambda *_: None, on_end=on_end)

        loop = StepLoop()
        for job, end in zip(jobs, ends, strict=True):
            loop.add(member(job, end))
        assert all(end.wait(60) for end in ends)
        loop.close()
        assert errors == [None] * len(cases)
        return [job.latents for job in jobs]

    def _job(self, case: _Case) -> Job:
        image: dict[str, Any] = {"image_url": "tensor:0", "noise_strength": 0.5} if case.image else {}
        fields: dict[str, Any] = {
            "scheduler": "DDIM",
            "num_inference_steps": STEPS,
            "controlnet_guess_mode": case.guess_mode,
        }
        plan = make_plan(self._checkpoint, size=SIDE, **image, **fields).model_copy(update={"seed": case.seed})
        kept = int(case.image)
        posterior = self._posterior.mean[:kept], self._posterior.std[:kept]
        condition = torch.from_numpy(np.array(CONTROL)).permute(2, 0, 1).float() / 255
        controlnets = []
        if case.scale:
            controlnets = [
                ControlNet(
                    self._controlnet.bind(),
                    condition,
                    conditioning_scale=case.scale,
                    start=case.start,
                    end=case.end,
                )
            ]
        return Job(
            plan, Conditions(TEXT, torch.zeros(2, 0), *posterior), plan_schedule(plan), self._unet.bind(), controlnets
        )


@pytest.fixture
def denoiser(tiny: Path, sd15: Checkpoint, network: Component) -> _Denoiser:
    return _Denoiser(tiny, sd15, network)


@pytest.mark.parametrize("case", CASES)
def test_a_controlled_job_ends_where_diffusers_ends(
    tiny: Path, network: Component, denoiser: _Denoiser, case: _Case
) -> None:
    expected = _expected(tiny, network, case)
    (found,) = denoiser.run(case)
    assert relative_error(found, expected) < TOLERANCE
    without = _expected(tiny, network, replace(case, scale=0.0))
    assert relative_error(expected, without) > 10 * TOLERANCE


@pytest.mark.parametrize("case", CASES[2:])
def test_every_setting_of_a_controlnet_moves_the_reference(tiny: Path, network: Component, case: _Case) -> None:
    assert relative_error(_expected(tiny, network, case), _expected(tiny, network, _Case())) > 10 * TOLERANCE


def test_a_job_without_a_controlnet_ends_where_diffusers_ends_with_a_scale_of_0(
    tiny: Path, network: Component, denoiser: _Denoiser
) -> None:
    case = _Case(scale=0.0)
    assert relative_error(denoiser.run(case)[0], _expected(tiny, network, case)) < TOLERANCE


def test_controlled_jobs_give_the_same_bytes_together_as_alone(denoiser: _Denoiser) -> None:
    cases = [_Case(), _Case(seed=6, scale=1.3), _Case(guess_mode=True, image=False), _Case(scale=0.0)]
    alone = [denoiser.run(case)[0] for case in cases]
    assert all(map(torch.equal, denoiser.run(*cases), alone))
    assert not torch.equal(alone[0], alone[1])
