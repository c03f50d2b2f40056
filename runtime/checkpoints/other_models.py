"""Recognizes files that are not Stable Diffusion checkpoints by their tensor names, for error messages."""

from __future__ import annotations

from collections.abc import Collection

# Names of transformers, which these models have in place of a UNet, in both layouts and in their LoRAs.
_MODELS = {
    "double_blocks": "Flux",
    "single_transformer_blocks": "Flux",
    "controlnet_x_embedder": "Flux",
    "joint_blocks": "Stable Diffusion 3",
    "add_k_proj": "Stable Diffusion 3",
}
_UNET = "model.diffusion_model."
_AVERAGE = "model_ema.diffusion_model"  # in the names behind it, latent-diffusion's EMA has no dots
_FILES = {
    "control_model.": "a ControlNet",
    "controlnet_": "a ControlNet",
    "lora_": "a LoRA: give it in loras",
    ".lora.": "a LoRA: give it in loras",
    ".hada_": "a LoRA: give it in loras",
    ".lokr_": "a LoRA: give it in loras",
    "decoder.conv_in.": "a VAE alone",
    "token_embedding.": "a text encoder alone",
}


def other_model(names: Collection[str]) -> str | None:
    """The model of another architecture that a file of weights, or a LoRA, with these names is made for."""
    return _first(_MODELS, names)


def other_file(names: Collection[str]) -> str | None:
    """A description of a file with tensors of these names and without a UNet; None: unknown."""
    return other_model(names) or _only_average(names) or _first(_FILES, names)


def _only_average(names: Collection[str]) -> str | None:
    has_average = any(_AVERAGE in name for name in names) and not any(_UNET in name for name in names)
    return "a checkpoint with only a moving average of the UNet: use one with the UNet itself" if has_average else None


def _first(marks: dict[str, str], names: Collection[str]) -> str | None:
    return next((what for mark, what in marks.items() if any(mark in name for name in names)), None)
