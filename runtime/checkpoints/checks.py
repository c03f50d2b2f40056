"""What every checkpoint must be, wherever its configurations and weights come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.checkpoints.checkpoint import Component

_MAX_LAYERS = 100
_MAX_NUMBER = 1 << 20
_SHOWN = 100
_MAX_LEVELS = 6  # of a VAE; each halves the picture
_MAX_FACTOR = 1000.0


class CheckpointError(ValueError):
    """It is no checkpoint that can be served; the message is fit for the client."""


class VariantError(CheckpointError):
    """It has no files of the variant that was asked for."""


def check_sizes(name: str, config: dict[str, Any]) -> None:
    """Refuse a configuration whose network would take ages, or all memory, to lay out."""
    for key, value in config.items():
        most = _MAX_LAYERS if "layers" in key else _MAX_NUMBER
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > _MAX_LAYERS or any(isinstance(number, int) and abs(number) > most for number in numbers):
            raise CheckpointError(f"{name}/config.json has a {key[:_SHOWN]} that is too large")


def check_unet(unet: Component, encoders: Sequence[Component]) -> None:
    """Refuse a UNet that is none of Stable Diffusion, or that was made for other text encoders."""
    shapes = unet.shapes
    if len(shapes.get("conv_in.weight", ())) != 4:
        raise CheckpointError("unet has no conv_in.weight: not a Stable Diffusion UNet")
    if (channels := shapes["conv_in.weight"][1]) != 4:
        raise CheckpointError(f"the UNet takes {channels} channels; checkpoints with 4 are served")
    width = unet.config.get("time_cond_proj_dim")
    if width is not None and not (is_count(width) and width >= 4):
        raise CheckpointError("unet/config.json has a time_cond_proj_dim that is no width")
    size = unet.config.get("sample_size")
    if not all(is_count(side) for side in (size if isinstance(size, list) and len(size) == 2 else [size or 1])):
        raise CheckpointError("unet/config.json has a sample_size that is no size")
    norm = "text_model.final_layer_norm.weight"
    widths = [encoder.shapes[norm][0] for encoder in encoders if encoder.shapes.get(norm)]
    crossed = [shape[-1] for name, shape in shapes.items() if shape and name.endswith("attn2.to_k.weight")]
    if not crossed or sum(widths) != crossed[0]:
        raise CheckpointError(f"the UNet expects text of width {crossed[:1]}; the text encoders give {widths}")


def check_vae(vae: Component) -> None:
    """Refuse a VAE that is none of Stable Diffusion."""
    if vae.shapes.get("decoder.conv_in.weight", ())[1:2] != (4,):
        raise CheckpointError("the VAE is none of Stable Diffusion: its latents have not 4 channels")
    widths = vae.config.get("block_out_channels")
    if not isinstance(widths, list) or not 1 <= len(widths) <= _MAX_LEVELS or not all(map(is_count, widths)):
        raise CheckpointError("vae/config.json has no usable block_out_channels")
    factor = vae.config.get("scaling_factor", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < _MAX_FACTOR:
        raise CheckpointError("vae/config.json has a scaling_factor that is no factor")
    for name in ("latents_mean", "latents_std", "shift_factor"):
        if vae.config.get(name) is not None:
            raise CheckpointError(f"a VAE with {name} is not served")


def is_count(value: object) -> bool:
    """Whether it is an integer above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
