"""What a file is that is no Stable Diffusion checkpoint, told from names that nothing else has: for refusals."""

from __future__ import annotations

from collections.abc import Collection

# Transformers in place of the UNet; in the original layout, in diffusers', and in LoRAs of both.
_MODELS = {
    "double_blocks": "Flux",
    "single_transformer_blocks": "Flux",
    "joint_blocks": "Stable Diffusion 3",
    "add_k_proj": "Stable Diffusion 3",
}
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
    """The model of another architecture that tensors, or a LoRA's, of these names are of."""
    return _first(_MODELS, names)


def other_file(names: Collection[str]) -> str | None:
    """What a file with tensors of these names, and no UNet, is."""
    return other_model(names) or _first(_FILES, names)


def _first(marks: dict[str, str], names: Collection[str]) -> str | None:
    return next((what for mark, what in marks.items() if any(mark in name for name in names)), None)
