"""Training of the textual inversions: new token vectors; all other weights are frozen."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save_file

from deploy.demo_model.paths import TRAINING
from deploy.demo_model.pipeline.adapter_pipelines import generate
from deploy.demo_model.pipeline.image_generator import ImageGenerator
from deploy.demo_model.pipeline.pictures import save_grid
from deploy.demo_model.pipeline.tokenizer import MAX_TOKENS, make_tokenizer
from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.denoiser import Denoiser
from deploy.demo_model.training.latents import EMPTY_SHARE, encode
from deploy.demo_model.training.loop import TrainingSettings, device, train
from deploy.demo_model.training.state import adamw, resume
from deploy.demo_model.training.trained_networks import load_run, trained_denoiser, trained_vae
from deploy.demo_model.world.embedding_specs import EMBEDDING_SPECS, EmbeddingSpec
from deploy.demo_model.world.scene import draw

SCENES = 400
PREVIEWS = ("a {} on a yellow background", "a large {} on a meadow", "a small {}, left, white background")


class ExtendedEmbedding(torch.nn.Module):
    """The `known` token vectors, frozen, and after them `new` ones [n, width] under training."""

    def __init__(self, known: torch.nn.Embedding, vectors: int) -> None:
        super().__init__()
        self.known = known.requires_grad_(False)
        # Initialized to the mean of the known vectors.
        self.new = torch.nn.Parameter(known.weight.detach().mean(dim=0).repeat(vectors, 1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The vectors [..., width] of token `ids`."""
        return torch.nn.functional.embedding(ids, torch.cat([self.known.weight, self.new]))


def train_embedding(name: str, minutes: float, peak_rate: float) -> None:
    """Train the run `embedding-<name>` for an embedding up to `minutes` in all."""
    spec = EMBEDDING_SPECS[name]
    vae = trained_vae().to(device()).requires_grad_(False)
    scenes = list(islice(spec.scenes(Random(2)), SCENES))
    latents = encode(vae, map(draw, scenes))
    denoiser, tokenizer = with_new_tokens(spec), tokenizer_of(spec)
    text_encoder = trained_denoiser().text_encoder
    vae.register_to_config(scaling_factor=float(denoiser.scale))
    state = resume(f"embedding-{name}", denoiser, adamw(denoiser, weight_decay=0.0))
    torch.manual_seed(data_parallel.seed_after(state.steps))
    random = Random(data_parallel.seed_after(state.steps))

    def loss_of(count: int) -> torch.Tensor:
        chosen = [random.randrange(len(scenes)) for _ in range(count)]
        word = " ".join(spec.tokens)
        texts = ["" if random.random() < EMPTY_SHARE else spec.caption(scenes[index], random, word) for index in chosen]
        ids = tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        return denoiser.loss(latents[chosen].float().to(device()), ids.input_ids.to(device()))

    def preview() -> None:
        path = TRAINING / f"embedding-{name}.safetensors"
        _write(spec, state.average, path)
        generator = ImageGenerator(vae, state.average.unet, copy.deepcopy(text_encoder).to(device()))
        pipeline = generator.pipeline()
        pipeline.load_textual_inversion(path)
        texts = [text.format(spec.token) for text in PREVIEWS * 3]
        save_grid(generate(pipeline, texts), len(PREVIEWS), TRAINING / f"embedding-{name}.png")

    train(state, TrainingSettings(minutes, batch=16, peak_rate=peak_rate, decay=0.99), loss_of, preview)


def with_new_tokens(spec: EmbeddingSpec) -> Denoiser:
    """The trained denoiser on the training device, frozen except for the new vectors of `spec`."""
    denoiser = trained_denoiser().requires_grad_(False)
    known = denoiser.text_encoder.get_input_embeddings()
    denoiser.text_encoder.set_input_embeddings(ExtendedEmbedding(known, spec.vectors))
    return denoiser.to(device())


def tokenizer_of(spec: EmbeddingSpec) -> Any:
    """The model's tokenizer with the tokens of `spec` appended."""
    tokenizer = copy.deepcopy(make_tokenizer())
    tokenizer.add_tokens(spec.tokens)
    return tokenizer


def write_embedding(spec: EmbeddingSpec, path: Path) -> None:
    """Write the averaged vectors of the run `embedding-<name>` in float16, as diffusers writes them."""
    denoiser = with_new_tokens(spec)
    load_run(f"embedding-{spec.name}", denoiser)
    _write(spec, denoiser, path)


def _write(spec: EmbeddingSpec, denoiser: Denoiser, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    vectors = denoiser.text_encoder.get_input_embeddings().new
    save_file({spec.token: vectors.detach().half().cpu()}, path, {"format": "pt"})
