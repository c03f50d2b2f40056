"""Training of the edge ControlNet on the trained UNet."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from random import Random

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image

from deploy.demo_model.paths import TRAINING
from deploy.demo_model.pipeline.adapter_pipelines import generate, with_controlnet
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
EMPTY_SHARE = 0.3  # of captions are empty; more than for the UNet, so that edges work without a prompt
SILU_GAIN = 1.677  # keeps the power of normal inputs through SiLU: 1 / sqrt(E[silu(x)^2]), which is 1 / sqrt(0.356)
SHOWN = 8


class ControlledDenoiser(torch.nn.Module):
    """A frozen denoiser and a trainable ControlNet."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser.requires_grad_(False)
        self.controlnet = make_controlnet(denoiser.unet)

    def loss(self, latents: torch.Tensor, ids: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        """The mean square error of v for unscaled `latents`, tokens and control pictures [n, 3, 128, 128] in [0, 1]."""
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
    """A ControlNet initialized with the weights of the UNet's down and middle blocks. It has no attention: the text
    acts in the UNet only."""
    controlnet = ControlNetModel(
        down_block_types=("DownBlock2D",) * len(unet.config.block_out_channels),
        mid_block_type="UNetMidBlock2D",
        block_out_channels=unet.config.block_out_channels,
        layers_per_block=unet.config.layers_per_block,
        norm_num_groups=unet.config.norm_num_groups,
        cross_attention_dim=TEXT_WIDTH,
        conditioning_embedding_out_channels=(16, 32, 48, 64),
    )
    _initialize(controlnet.controlnet_cond_embedding)
    own = controlnet.state_dict()
    controlnet.load_state_dict(own | {name: value for name, value in unet.state_dict().items() if name in own})
    return controlnet


def _initialize(embedding: torch.nn.Module) -> None:
    """Initialize convolutions so that they keep the signal's power through SiLU.

    With torch's default, eight layers reduce the edges to 1e-5 of their power, and training starts late. The usual zero
    convolution at the end is left out: the zeros at the ControlNet's outputs suffice for an unchanged start."""
    for weights in embedding.parameters():
        if weights.ndim == 4:
            torch.nn.init.normal_(weights, std=SILU_GAIN / weights[0].numel() ** 0.5)
        else:
            torch.nn.init.zeros_(weights)


def train_controlnet(minutes: float, peak_rate: float, scene_count: int) -> None:
    """Train the run `controlnet` up to `minutes` in all, on the first `scene_count` training scenes."""
    vae = trained_vae().to(device()).requires_grad_(False)
    dataset = training_latents(vae, scene_count)
    controlled = ControlledDenoiser(trained_denoiser()).to(device())
    for network in (controlled.controlnet, controlled.denoiser.unet):
        network.to(memory_format=torch.channels_last)
    vae.register_to_config(scaling_factor=float(controlled.denoiser.scale))
    state = resume(RUN, controlled)
    torch.manual_seed(data_parallel.seed_after(state.steps))
    random = Random(data_parallel.seed_after(state.steps))

    def loss_of(count: int) -> torch.Tensor:
        chosen = [random.randrange(len(dataset.scenes)) for _ in range(count)]
        scenes = [dataset.scenes[index] for index in chosen]
        texts = ["" if random.random() < EMPTY_SHARE else caption(scene, random) for scene in scenes]
        latents = dataset.latents[chosen].float().to(device())
        loss: torch.Tensor = controlled.loss(latents, tokens(texts).to(device()), control_pixels(map(draw, scenes)))
        return loss

    def preview() -> None:
        scenes = list(islice(training_scenes(-1), SHOWN))
        texts = [caption(scene, Random(0)) for scene in scenes]
        control = [edges(draw(scene)) for scene in scenes]
        average = state.average.denoiser
        pipeline = with_controlnet(ImageGenerator(vae, average.unet, average.text_encoder), state.average.controlnet)
        rows = [generate(pipeline, texts, image=control, controlnet_conditioning_scale=scale) for scale in (0.0, 1.0)]
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
