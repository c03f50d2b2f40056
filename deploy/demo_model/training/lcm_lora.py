"""Training of the LCM-LoRA on the trained UNet: with it, four steps without guidance make a picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random

import torch

from deploy.demo_model.evaluation.edit_cases import held_out_cases
from deploy.demo_model.paths import TRAINING
from deploy.demo_model.pipeline.components import make_lcm_scheduler
from deploy.demo_model.pipeline.image_generator import GUIDANCE, LCM_STEPS, ImageGenerator
from deploy.demo_model.pipeline.pictures import save_grid
from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.adapter import with_adapter, write_adapter
from deploy.demo_model.training.consistency_loss import consistency_loss
from deploy.demo_model.training.denoiser import Denoiser
from deploy.demo_model.training.latents import LatentDataset, tokens, training_latents
from deploy.demo_model.training.loop import TrainingSettings, device, train
from deploy.demo_model.training.state import resume
from deploy.demo_model.training.trained_networks import load_run, trained_denoiser, trained_vae
from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.random_scenes import held_out, with_other_thing
from deploy.demo_model.world.scene import Scene

RUN = "lora-lcm"
RANK = 12  # the largest whose file stays below 2 MB
# Those of published LCM-LoRAs, and the first and the last convolution.
LAYERS = [
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "conv_in", "conv_out", "downsamplers.0.conv", "upsamplers.0.conv"),
    "time_emb_proj",
]
EDIT_SHARE = 0.5  # of captions name another thing than the latents show, as prompts of image-to-image do
SHOWN = 8
BATCH = 4  # small: more steps help more than more samples in each


def train_lcm_lora(minutes: float, session_minutes: float, peak_rate: float, scene_count: int) -> None:
    """Train the run `lora-lcm` up to `minutes` in all, at most `session_minutes` of them now.

    It learns from the first `scene_count` training scenes."""
    vae = trained_vae().to(device()).requires_grad_(False)
    dataset = training_latents(vae, scene_count)
    torch.manual_seed(0)  # all processes start with the same LoRA
    denoiser = with_lcm_adapter()
    vae.register_to_config(scaling_factor=float(denoiser.scale))
    state = resume(RUN, denoiser)
    distillation = Distillation(denoiser, state.average)
    torch.manual_seed(data_parallel.seed_after(state.steps))
    random = Random(data_parallel.seed_after(state.steps))

    def loss_of(count: int) -> torch.Tensor:
        return distillation.loss(*_edits(dataset, count, random))

    def preview() -> None:
        generator = ImageGenerator(vae, state.average.unet, state.average.text_encoder, make_lcm_scheduler)
        cases = held_out_cases(SHOWN)
        texts, before = [case.prompt for case in cases], [case.picture for case in cases]
        after = generator.generate(texts, before, steps=LCM_STEPS, guidance=1.0)
        save_grid([*before, *after], SHOWN, TRAINING / f"{RUN}.png")

    settings = TrainingSettings(minutes, BATCH, peak_rate, decay=0.95, session_minutes=session_minutes)
    train(state, settings, loss_of, preview)


class Distillation:
    """The loss of `student`, a denoiser with a LoRA; `average` is the running average of its weights."""

    def __init__(self, student: Denoiser, average: Denoiser) -> None:
        self._student, self._average = student, average
        self._teacher = trained_denoiser().requires_grad_(False).to(device())

    def loss(self, latents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The consistency loss of unscaled `latents` [n, 4, 16, 16] with `tokens` [n, 77]."""
        with torch.no_grad():
            states = self._teacher.text_encoder(tokens).last_hidden_state
        return consistency_loss(
            latents * self._teacher.scale,
            self._teacher.alphas_cumprod,
            partial(self._guided, states),
            lambda noisy, times: self._student.unet(noisy, times, states).sample,
            lambda noisy, times: self._average.unet(noisy, times, states).sample,
        )

    def _guided(self, states: torch.Tensor, noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The teacher's v with guidance: the student learns to predict it without an unconditional row."""
        unconditional = self._teacher.text_encoder(_empty_tokens()).last_hidden_state.expand_as(states)
        rows = torch.cat([noisy, noisy]), torch.cat([times, times]), torch.cat([unconditional, states])
        without, along = self._teacher.unet(*rows).sample.float().chunk(2)
        guided: torch.Tensor = without + GUIDANCE * (along - without)
        return guided


def _edits(dataset: LatentDataset, count: int, random: Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of `count` random scenes, and the tokens [count, 77] of a new prompt for each."""
    chosen = [random.randrange(len(dataset.scenes)) for _ in range(count)]
    texts = [caption(_asked_for(dataset.scenes[index], random), random) for index in chosen]
    return dataset.latents[chosen].float().to(device()), tokens(texts).to(device())


def _asked_for(scene: Scene, random: Random) -> Scene:
    """The scene that a prompt describes: `scene`, or in `EDIT_SHARE` of cases another thing at its place."""
    if len(scene.things) > 1 or random.random() >= EDIT_SHARE:
        return scene
    other = with_other_thing(scene, random)
    return scene if held_out(other) else other


def _empty_tokens() -> torch.Tensor:
    return tokens([""]).to(device())


def with_lcm_adapter() -> Denoiser:
    """The trained denoiser, frozen, with a new trainable LCM-LoRA."""
    return with_adapter(RANK, LAYERS)


def write_lcm_lora(path: Path) -> None:
    """Write the averaged LoRA of the run `lora-lcm` in float16. Raises FileNotFoundError without a saved run."""
    denoiser = with_lcm_adapter()
    load_run(RUN, denoiser)
    write_adapter(denoiser, path, "diffusers")
