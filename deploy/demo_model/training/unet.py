"""Training of the UNet and its text encoder on cached latents."""

from __future__ import annotations

from random import Random

import torch

from deploy.demo_model.paths import TRAINING
from deploy.demo_model.pipeline.image_generator import ImageGenerator
from deploy.demo_model.pipeline.pictures import save_grid
from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.denoiser import Denoiser
from deploy.demo_model.training.latents import training_latents
from deploy.demo_model.training.loop import TrainingSettings, device, train
from deploy.demo_model.training.muon import Muon
from deploy.demo_model.training.state import remove_run, resume
from deploy.demo_model.training.text_encoder import pretrain_text_encoder
from deploy.demo_model.training.trained_networks import trained_denoiser, trained_vae
from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.random_scenes import random_scene
from deploy.demo_model.world.scene import draw

SHOWN = 12
_ENDS = ("unet.conv_in", "unet.conv_out", "unet.time_embedding")


def train_unet(minutes: float, peak_rate: float, scene_count: int, afresh: bool) -> None:
    """Train the run `unet` up to `minutes` in all, on the first `scene_count` training scenes; `afresh` restarts it."""
    vae = trained_vae().to(device()).requires_grad_(False)
    dataset = training_latents(vae, scene_count)
    denoiser = _new_denoiser() if afresh else trained_denoiser().to(device())
    denoiser.unet.to(memory_format=torch.channels_last)
    if not denoiser.scale:
        denoiser.scale.fill_(1 / dataset.latents.float().std())
    state = resume("unet", denoiser, _optimizer(denoiser))
    vae.register_to_config(scaling_factor=float(denoiser.scale))
    torch.manual_seed(data_parallel.seed_after(state.steps))
    random = Random(data_parallel.seed_after(state.steps))

    def loss_of(count: int) -> torch.Tensor:
        return denoiser.loss(*dataset.batch(count, random))

    def preview() -> None:
        shown = Random(0)
        scenes = [random_scene(shown) for _ in range(SHOWN)]
        texts = [caption(scene, shown) for scene in scenes]
        before = [draw(random_scene(shown, alone=True)) for _ in scenes]
        generator = ImageGenerator(vae, state.average.unet, state.average.text_encoder)
        save_grid(
            [*before, *generator.generate(texts, before), *generator.generate(texts)], SHOWN, TRAINING / "unet.png"
        )
        (TRAINING / "unet.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")

    train(state, TrainingSettings(minutes, batch=24, peak_rate=peak_rate), loss_of, preview)


def _optimizer(denoiser: Denoiser) -> Muon:
    """Muon for the UNet's inner weight matrices; AdamW for its other parameters and the text encoder."""
    inner = {
        name
        for name, parameter in denoiser.named_parameters()
        if parameter.ndim > 1 and name.startswith("unet.") and not name.startswith(_ENDS)
    }
    named = list(denoiser.named_parameters())
    return Muon((p for name, p in named if name in inner), (p for name, p in named if name not in inner))


def _new_denoiser() -> Denoiser:
    """A denoiser with an untrained UNet and a pretrained text encoder. Deletes the run's saved state."""
    remove_run("unet")
    data_parallel.barrier()
    denoiser = Denoiser().to(device())
    pretrain_text_encoder(denoiser.text_encoder)
    return denoiser
