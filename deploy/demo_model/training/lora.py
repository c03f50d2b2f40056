"""Training of the LoRAs on the trained UNet."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch

from deploy.demo_model.paths import TRAINING
from deploy.demo_model.pipeline.image_generator import ImageGenerator
from deploy.demo_model.pipeline.pictures import save_grid
from deploy.demo_model.training.adapter import with_adapter, write_adapter
from deploy.demo_model.training.latents import LatentDataset, encode
from deploy.demo_model.training.loop import TrainingSettings, device, train
from deploy.demo_model.training.state import load_average, resume
from deploy.demo_model.training.trained_networks import trained_vae
from deploy.demo_model.world.lora_specs import LORA_SPECS, LoraSpec

RANK = 4
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv_in", "conv_out"]
SCENES = 800
PREVIEWS = ("a red fish on a blue background", "a yellow house on a meadow", "a lorikeet on a purple background")


def train_lora(name: str, minutes: float, peak_rate: float) -> None:
    """Train the run `lora-<name>` for the LoRA `name` up to `minutes` in all."""
    spec = LORA_SPECS[name]
    vae = trained_vae().to(device()).requires_grad_(False)
    scenes = spec.scenes(SCENES)
    dataset = LatentDataset(scenes, encode(vae, spec.pictures(scenes)))
    denoiser = with_adapter(RANK, LAYERS)
    vae.register_to_config(scaling_factor=float(denoiser.scale))
    state = resume(f"lora-{name}", denoiser)
    torch.manual_seed(state.steps)
    random = Random(state.steps)

    def loss_of(count: int) -> torch.Tensor:
        return denoiser.loss(*dataset.batch(count, random))

    def preview() -> None:
        generator = ImageGenerator(vae, state.average.unet, state.average.text_encoder)
        save_grid(generator.generate(PREVIEWS * 3), len(PREVIEWS), TRAINING / f"lora-{name}.png")

    train(state, TrainingSettings(minutes, batch=16, peak_rate=peak_rate, decay=0.99), loss_of, preview)


def write_lora(spec: LoraSpec, path: Path) -> None:
    """Write the averaged LoRA of the run `lora-<name>` in float16, with the spec's key format."""
    denoiser = with_adapter(RANK, LAYERS)
    load_average(f"lora-{spec.name}", denoiser)
    write_adapter(denoiser, path, spec.key_format)
