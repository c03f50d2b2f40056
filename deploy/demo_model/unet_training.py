"""Training of the UNet and its text encoder, on latents encoded beforehand."""

from __future__ import annotations

from random import Random

import torch

from deploy.demo_model import workers
from deploy.demo_model.captions import caption
from deploy.demo_model.denoising import Denoiser
from deploy.demo_model.latents import training_pool
from deploy.demo_model.muon import Muon
from deploy.demo_model.painter import Painter
from deploy.demo_model.paths import TRAINING
from deploy.demo_model.pictures import save_grid
from deploy.demo_model.sampling import random_scene
from deploy.demo_model.scene import draw
from deploy.demo_model.text_training import teach_words
from deploy.demo_model.trained import trained_denoiser, trained_vae
from deploy.demo_model.training_loop import Settings, device, train
from deploy.demo_model.training_state import forget, resume

SHOWN = 12
_ENDS = ("unet.conv_in", "unet.conv_out", "unet.time_embedding")


def train_unet(minutes: float, peak_rate: float, pool_size: int, afresh: bool) -> None:
    """Train the run `unet` up to `minutes` in all, on the first `pool_size` training scenes; `afresh`, from nothing."""
    vae = trained_vae().to(device()).requires_grad_(False)
    pool = training_pool(vae, pool_size)
    denoiser = _new_denoiser() if afresh else trained_denoiser().to(device())
    denoiser.unet.to(memory_format=torch.channels_last)
    if not denoiser.scale:
        denoiser.scale.fill_(1 / pool.latents.float().std())
    state = resume("unet", denoiser, _optimizer(denoiser))
    vae.register_to_config(scaling_factor=float(denoiser.scale))
    torch.manual_seed(workers.seed_of(state.steps))
    random = Random(workers.seed_of(state.steps))

    def loss_of(count: int) -> torch.Tensor:
        return denoiser.loss(*pool.batch(count, random))

    def preview() -> None:
        shown = Random(0)
        scenes = [random_scene(shown) for _ in range(SHOWN)]
        texts = [caption(scene, shown) for scene in scenes]
        before = [draw(random_scene(shown, alone=True)) for _ in scenes]
        painter = Painter(vae, state.average.unet, state.average.text_encoder)
        save_grid([*before, *painter.paint(texts, before), *painter.paint(texts)], SHOWN, TRAINING / "unet.png")
        (TRAINING / "unet.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")

    train(state, Settings(minutes, batch=24, peak_rate=peak_rate), loss_of, preview)


def _optimizer(denoiser: Denoiser) -> Muon:
    """Muon moves the UNet's inner layers; its ends, the norms and the text encoder are AdamW's."""
    inner = {
        name
        for name, parameter in denoiser.named_parameters()
        if parameter.ndim > 1 and name.startswith("unet.") and not name.startswith(_ENDS)
    }
    named = list(denoiser.named_parameters())
    return Muon((p for name, p in named if name in inner), (p for name, p in named if name not in inner))


def _new_denoiser() -> Denoiser:
    """An untrained denoiser whose text encoder already knows words; the run so far is forgotten."""
    forget("unet")
    workers.wait()
    denoiser = Denoiser().to(device())
    teach_words(denoiser.text_encoder)
    return denoiser
