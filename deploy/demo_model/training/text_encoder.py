"""Pretraining of the text encoder: it classifies the scene from its caption.

With a pretrained text encoder, the UNet learns to follow prompts several times sooner. A label that the caption omits
cannot be predicted; this does no harm."""

from __future__ import annotations

from random import Random

import torch
from transformers import CLIPTextModel

from deploy.demo_model.pipeline.components import TEXT_WIDTH
from deploy.demo_model.training.latents import tokens
from deploy.demo_model.training.loop import device
from deploy.demo_model.training.scene_labels import NUM_LOGITS, accuracies, classification_loss, labels
from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.random_scenes import training_scenes

STEPS = 500
BATCH = 64
RATE = 1e-3


def pretrain_text_encoder(text_encoder: CLIPTextModel, seed: int = 0) -> None:
    """Train `text_encoder` until a linear map of the mean of its states labels the `questions`."""
    torch.manual_seed(seed)
    random, scenes = Random(seed), training_scenes(seed)
    head = torch.nn.Linear(TEXT_WIDTH, NUM_LOGITS).to(device())
    optimizer = torch.optim.AdamW([*text_encoder.parameters(), *head.parameters()], lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for step in range(1, STEPS + 1):
        batch = [next(scenes) for _ in range(BATCH)]
        ids = tokens([caption(scene, random) for scene in batch]).to(device())
        right = labels(batch).to(device())
        with torch.autocast(device().type, torch.bfloat16):
            logits = head(text_encoder(ids).last_hidden_state.mean(dim=1))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(classification_loss(logits, right))
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            shares = " ".join(f"{share:.2f}" for share in accuracies(logits, right))
            print(f"words: step {step}, right {shares}", flush=True)
