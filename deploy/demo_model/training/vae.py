"""Training of the autoencoder."""

from __future__ import annotations

from random import Random

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.nn.functional import avg_pool2d

from deploy.demo_model.paths import TRAINING
from deploy.demo_model.pipeline.pictures import save_grid, to_pictures, to_pixels
from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.latent_scaling import channel_factors, scale_channels
from deploy.demo_model.training.latents import remove_latents
from deploy.demo_model.training.loop import TrainingSettings, device, train
from deploy.demo_model.training.state import TrainingState, remove_run, resume
from deploy.demo_model.training.trained_networks import trained_vae
from deploy.demo_model.world.canvas import SIDE
from deploy.demo_model.world.random_scenes import random_scene, training_scenes
from deploy.demo_model.world.scene import draw
from deploy.demo_model.world.styles import STYLES
from deploy.demo_model.world.things import SUBJECT

KL_WEIGHT = 5e-4
SQUARE_WEIGHT = 1.0
COLOUR_WEIGHT = 0.5  # initial weight that pulls the first three latents to the cell's mean colour; falls to 0 during
# the run
CROPS_UNTIL = 0.6  # of the time on crops, for more steps; then whole pictures, whose group norms match inference
CROP = 64
STYLED_SHARE = 0.1  # for each style; the LoRAs change only the UNet, so the autoencoder must know the styles
SUBJECT_SHARE = 0.04


def train_vae(minutes: float, peak_rate: float) -> None:
    """Train the run `vae` up to `minutes` in all. Deletes the cached latents and the run `decoder`."""
    remove_latents()
    remove_run("decoder")
    state = _train("vae", trained_vae(), minutes, peak_rate)
    if data_parallel.rank() == 0:
        equalize_channels(state)


def train_decoder(minutes: float, peak_rate: float) -> None:
    """Train the run `decoder` up to `minutes` in all: only the decoder, so that the latents do not change."""
    vae = trained_vae()
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    _train("decoder", vae, minutes, peak_rate)


def equalize_channels(state: TrainingState[AutoencoderKL]) -> torch.Tensor:
    """Give the latents the same standard deviation in each channel. Returns the factors [c]."""
    pictures = _Pictures(seed=-2)
    with torch.no_grad():
        latents = torch.cat([state.average.encode(pictures.next(16, SIDE)).latent_dist.mode() for _ in range(32)])
    factors = channel_factors(latents)
    for vae in (state.module, state.average):
        scale_channels(vae, factors)
    state.save()
    return factors


def _train(run: str, vae: AutoencoderKL, minutes: float, peak_rate: float) -> TrainingState[AutoencoderKL]:
    vae.to(device(), memory_format=torch.channels_last)
    state = resume(run, vae)
    torch.manual_seed(data_parallel.seed_after(state.steps))
    pictures = _Pictures(data_parallel.seed_after(state.steps))
    shown = _Pictures(seed=-1).next(16, SIDE)

    def loss_of(count: int) -> torch.Tensor:
        done = state.seconds / (minutes * 60)
        crop = CROP if done < CROPS_UNTIL else SIDE
        pixels = pictures.next(count, crop)
        posterior = vae.encode(pixels).latent_dist
        difference = (vae.decode(posterior.sample()).sample - pixels).float()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        colour = posterior.mean[:, :3].float() - avg_pool2d(pixels, 8)
        loss: torch.Tensor = (
            difference.abs().mean()
            + SQUARE_WEIGHT * difference.square().mean()
            + COLOUR_WEIGHT * (1 - done) * colour.square().mean()
            + KL_WEIGHT * kl
        )
        return loss

    def preview() -> None:
        with torch.no_grad():
            again = state.average.decode(state.average.encode(shown).latent_dist.mode()).sample
        error = (again.clamp(-1, 1) - shown).square().mean(dim=(1, 2, 3)) / 4
        print(f"PSNR {(-10 * error.log10()).mean():.1f} dB", flush=True)
        save_grid(to_pictures(torch.cat([shown, again])), 8, TRAINING / f"{run}.png")

    train(state, TrainingSettings(minutes, batch=3, peak_rate=peak_rate, decay=0.995), loss_of, preview)
    return state


class _Pictures:
    """Endless pictures of all kinds that the autoencoder must encode."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._scenes = training_scenes(seed)

    def next(self, count: int, side: int) -> torch.Tensor:
        """Crops of `count` pictures, [count, 3, side, side] in [-1, 1], aligned to the 8-pixel cells of the latents."""
        pixels = to_pixels([self._crop(self._picture(), side) for _ in range(count)])
        return pixels.to(device(), memory_format=torch.channels_last)

    def _crop(self, picture: Image.Image, side: int) -> Image.Image:
        left, top = (8 * self._random.randint(0, (SIDE - side) // 8) for _ in range(2))
        return picture.crop((left, top, left + side, top + side))

    def _picture(self) -> Image.Image:
        is_subject = self._random.random() < SUBJECT_SHARE
        picture = draw(random_scene(self._random, alone=True, kind=SUBJECT) if is_subject else next(self._scenes))
        for style in STYLES.values():
            if self._random.random() < STYLED_SHARE:
                picture = style(picture)
        return picture
