"""Checks of a checkpoint's networks. They apply to diffusers folders and to single files."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.checkpoints.checkpoint import Component, kind_of

_INPAINTING = 9  # input channels: latents (4), latents of the masked picture (4), mask (1)
_TIME_IDS = 6  # SDXL's time_ids: original height and width, crop top and left, target height and width


class CheckpointError(ValueError):
    """The checkpoint cannot be used. The message is for the client."""


class VariantError(CheckpointError):
    """The checkpoint has no files of the requested variant."""


def check_unet(unet: Component, encoders: Sequence[Component]) -> None:
    """Raises CheckpointError if this is not a Stable Diffusion UNet, or if it does not fit these text encoders."""
    shapes = unet.shapes
    if len(shapes.get("conv_in.weight", ())) != 4:
        raise CheckpointError("not a Stable Diffusion UNet: conv_in.weight is missing")
    if (channels := shapes["conv_in.weight"][1]) != 4:
        hint = " (it is for inpainting)" if channels == _INPAINTING else ""
        raise CheckpointError(f"the UNet has {channels} input channels{hint}: expected 4")
    norm = "text_model.final_layer_norm.weight"
    widths = [encoder.shapes[norm][0] for encoder in encoders if encoder.shapes.get(norm)]
    crossed = [shape[-1] for name, shape in shapes.items() if shape and name.endswith("attn2.to_k.weight")]
    if not crossed or sum(widths) != crossed[0]:
        expected = crossed[0] if crossed else "unknown"
        raise CheckpointError(
            f"the UNet does not fit the text encoders: expected hidden sizes with the sum {expected} "
            f"(its cross_attention_dim), found {widths}"
        )
    if kind_of(unet) == "sdxl":
        _check_added_embedding(unet, encoders[-1])


def check_vae(vae: Component) -> None:
    """Raises CheckpointError if this is not a Stable Diffusion VAE."""
    shape = vae.shapes.get("decoder.conv_in.weight", ())
    if shape[1:2] != (4,):
        found = shape[1] if len(shape) > 1 else "no decoder.conv_in.weight"
        raise CheckpointError(f"not a Stable Diffusion VAE: expected 4 latent channels, found {found}")


def _check_added_embedding(unet: Component, encoder: Component) -> None:
    """Raises CheckpointError if SDXL's add_embedding does not fit the widths of the pooled text and the time_ids."""
    found = unet.shapes["add_embedding.linear_1.weight"][1:]
    pooled = encoder.shapes.get("text_projection.weight", ())[:1]
    width = unet.config.get("addition_time_embed_dim")
    if not found or not pooled or not width or found[0] != pooled[0] + _TIME_IDS * width:
        raise CheckpointError(
            f"the UNet's add_embedding has an input of {list(found)}: expected the pooled text's width {list(pooled)} "
            f"plus {_TIME_IDS} times addition_time_embed_dim, which is {width}"
        )
