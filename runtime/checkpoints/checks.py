"""What every checkpoint must be, wherever its configurations and weights come from."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.checkpoints.checkpoint import Component

_INPAINTING = 9  # channels: latents, and a masked picture's with the mask
_SIZES = 6  # numbers that SDXL takes beside the text: of the original, the crop and the target


class CheckpointError(ValueError):
    """It is no checkpoint that can be served; the message is fit for the client."""


class VariantError(CheckpointError):
    """It has no files of the variant that was asked for."""


def check_unet(unet: Component, encoders: Sequence[Component]) -> None:
    """Refuse a UNet that is none of Stable Diffusion, or that was made for other text encoders."""
    shapes = unet.shapes
    if len(shapes.get("conv_in.weight", ())) != 4:
        raise CheckpointError("unet has no conv_in.weight: not a Stable Diffusion UNet")
    if (channels := shapes["conv_in.weight"][1]) != 4:
        hint = " (it is for inpainting)" if channels == _INPAINTING else ""
        raise CheckpointError(f"the UNet takes {channels} channels{hint}; checkpoints with 4 are served")
    norm = "text_model.final_layer_norm.weight"
    widths = [encoder.shapes[norm][0] for encoder in encoders if encoder.shapes.get(norm)]
    crossed = [shape[-1] for name, shape in shapes.items() if shape and name.endswith("attn2.to_k.weight")]
    if not crossed or sum(widths) != crossed[0]:
        raise CheckpointError(f"the UNet expects text of width {crossed[:1]}; the text encoders give {widths}")
    if "add_embedding.linear_1.weight" in shapes:
        _check_added(unet, encoders[-1])


def check_vae(vae: Component) -> None:
    """Refuse a VAE that is none of Stable Diffusion."""
    if vae.shapes.get("decoder.conv_in.weight", ())[1:2] != (4,):
        raise CheckpointError("the VAE is none of Stable Diffusion: its latents have not 4 channels")


def _check_added(unet: Component, encoder: Component) -> None:
    """Refuse a UNet of SDXL that takes another pooled text, or its sizes by other embeddings, than it will be given."""
    takes = unet.shapes["add_embedding.linear_1.weight"][1:]
    pooled = encoder.shapes.get("text_projection.weight", ())[:1]
    width = unet.config.get("addition_time_embed_dim")
    if not takes or not pooled or not width or takes[0] != pooled[0] + _SIZES * width:
        raise CheckpointError(
            f"the UNet's added embedding is of {list(takes)}; its addition_time_embed_dim is {width}, "
            f"and the pooled text of {list(pooled)}"
        )
