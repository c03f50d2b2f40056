"""Training of the ControlNet on edges, on top of the trained UNet."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from random import Random

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image

from deploy.demo_model.paths import TRAINING
from deploy.demo_model.pipeline.adapter_pipelines import paint, with_controlnet
from deploy.demo_model.pipeline.components import TEXT_WIDTH
from deploy.demo_model.pipeline.image_generator import ImageGenerator
from deploy.demo_model.pipeline.pictures import save_grid, to_pixels
from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.denoiser import Denoiser
from deploy.demo_model.training.diffusion_loss import v_loss
from deploy.demo_model.training.latents import tokens, training_latents
from deploy.demo_model.training.loop import TrainingSettings, device, train
from deploy.demo_model.training.state import resume
from deploy.demo_model.training.trained_networks import load_run, trained_denoiser, trained_vae
from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.edges import edges
from deploy.demo_model.world.random_scenes import training_scenes
from deploy.demo_model.world.scene import draw

RUN = "controlnet"
EMPTY_SHARE = 0.3  # of captions left out: more than for the UNet, so that the lines are read without words too
SILU_GAIN = 1.677  # undoes what SiLU takes from the power of normal numbers: E[silu(x)^2] is 0.356
SHOWN = 8


class ControlledDenoiser(torch.nn.Module):
    """A frozen denoiser and the ControlNet that learns to lead it."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser.requires_grad_(False)
        self.controlnet = make_controlnet(denoiser.unet)

    def loss(self, latents: torch.Tensor, ids: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        """The error of v for unscaled `latents`, tokens and control pictures [n, 3, 128, 128] in [0, 1]."""
        states = self.denoiser.text_encoder(ids).last_hidden_state

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            down, middle = self.controlnet(noisy, times, states, control, return_dict=False)
            predicted: torch.Tensor = self.denoiser.unet(
                noisy,
                times,
                states,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            ).sample
            return predicted

        return v_loss(latents * self.denoiser.scale, self.denoiser.alphas_cumprod, predict)


def make_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet for the model's UNet that begins with the weights of its first half. It has no attention: lines
    say where, and words act in the UNet."""
    controlnet = ControlNetModel(
        down_block_types=("DownBlock2D",) * len(unet.config.block_out_channels),
        mid_block_type="UNetMidBlock2D",
        block_out_channels=unet.config.block_out_channels,
        layers_per_block=unet.config.layers_per_block,
        norm_num_groups=unet.config.norm_num_groups,
        cross_attention_dim=TEXT_WIDTH,
        conditioning_embedding_out_channels=(16, 32, 48, 64),
    )
    _open(controlnet.controlnet_cond_embedding)
    own = controlnet.state_dict()
    controlnet.load_state_dict(own | {name: value for name, value in unet.state_dict().items() if name in own})
    return controlnet


def _open(embedding: torch.nn.Module) -> None:
    """Begin with convolutions that keep a signal's power through SiLU. With torch's own, eight layers leave a hundred
    thousandth of the lines, with the usual zeros at the end nothing, and for long nothing is learned from them. Zeros
    at the ControlNet's outputs are enough to do no harm at first."""
    for weights in embedding.parameters():
        if weights.ndim == 4:
            torch.nn.init.normal_(weights, std=SILU_GAIN / weights[0].numel() ** 0.5)
        else:
            torch.nn.init.zeros_(weights)


def train_controlnet(minutes: float, peak_rate: float, pool_size: int) -> None:
    """Train the run `controlnet` up to `minutes` in all, on the first `pool_size` training scenes."""
    vae = trained_vae().to(device()).requires_grad_(False)
    pool = training_latents(vae, pool_size)
    controlled = ControlledDenoiser(trained_denoiser()).to(device())
    for network in (controlled.controlnet, controlled.denoiser.unet):
        network.to(memory_format=torch.channels_last)
    vae.register_to_config(scaling_factor=float(controlled.denoiser.scale))
    state = resume(RUN, controlled)
    torch.manual_seed(data_parallel.seed_of(state.steps))
    random = Random(data_parallel.seed_of(state.steps))

    def loss_of(count: int) -> torch.Tensor:
        chosen = [random.randrange(len(pool.scenes)) for _ in range(count)]
        scenes = [pool.scenes[index] for index in chosen]
        texts = ["" if random.random() < EMPTY_SHARE else caption(scene, random) for scene in scenes]
        latents = pool.latents[chosen].float().to(device())
        loss: torch.Tensor = controlled.loss(latents, tokens(texts).to(device()), control_pixels(map(draw, scenes)))
        return loss

    def preview() -> None:
        scenes = list(islice(training_scenes(-1), SHOWN))
        texts = [caption(scene, Random(0)) for scene in scenes]
        control = [edges(draw(scene)) for scene in scenes]
        average = state.average.denoiser
        pipeline = with_controlnet(ImageGenerator(vae, average.unet, average.text_encoder), state.average.controlnet)
        rows = [paint(pipeline, texts, image=control, controlnet_conditioning_scale=scale) for scale in (0.0, 1.0)]
        save_grid([*control, *rows[0], *rows[1]], SHOWN, TRAINING / f"{RUN}.png")

    train(state, TrainingSettings(minutes, batch=16, peak_rate=peak_rate, decay=0.995), loss_of, preview)


def control_pixels(pictures: Iterable[Image.Image]) -> torch.Tensor:
    """The control pictures of `pictures` as pipelines give them to a ControlNet, [n, 3, H, W] in [0, 1]."""
    return ((to_pixels([edges(picture) for picture in pictures]) + 1) / 2).to(device())


def write_controlnet(folder: Path) -> None:
    """Write the averaged ControlNet of the run `controlnet` in float16."""
    controlled = ControlledDenoiser(trained_denoiser())
    load_run(RUN, controlled)
    controlled.controlnet.half().save_pretrained(folder)
