"""Reads a ControlNet, which is untrusted, from a folder or from one file, and checks that it fits a UNet."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from runtime.checkpoints.checkpoint import Component, WeightFile
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.component_shapes import ComponentShapes
from runtime.checkpoints.config_from_shapes import controlnet_config
from runtime.checkpoints.folder import HashFile, read_controlnet_folder
from runtime.checkpoints.layouts import CONTROLNET_CANONICAL_FIRST, LayoutName, controlnet_root
from runtime.checkpoints.network_config import check_config
from runtime.checkpoints.original_controlnet_names import CONTROLNET_FIRST
from runtime.checkpoints.other_controlnets import not_a_controlnet, other_controlnet
from runtime.checkpoints.sidecar import read_sidecar
from runtime.files.located import Folder, SingleFile
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.networks.architecture import DEFAULTS

# Options of a UNet that its ControlNets share, and that the shapes of their tensors cannot give.
_OF_THE_UNET = (
    *("attention_head_dim", "num_attention_heads", "norm_num_groups", "norm_eps", "upcast_attention"),
    *("cross_attention_dim", "use_linear_projection"),  # of a ControlNet without attention
)
_HINT_CHANNELS = "conditioning_embedding_out_channels"
# ComfyUI recognizes shuffle ControlNets by these file names: no shape shows that each residual is averaged over the
# picture.
_POOLING_NAMES = ("_shuffle", "_shuffle_fp16")
_OF_SDXL = ("addition_embed_type", "addition_time_embed_dim")


def read_controlnet(
    source: Folder | SingleFile,
    unet: Component,
    hash_file: HashFile,
    variant: str | None = None,
    config: dict[str, Any] | None = None,
) -> Component:
    """The ControlNet in a folder, or in a file of the layout of diffusers or of its authors.

    `unet`: the checkpoint's, which it must fit, and which has the options that shapes cannot give. `config`: options
    that override all others. Raises CheckpointError.
    """
    try:
        if isinstance(source, Folder):
            found = read_controlnet_folder(source, hash_file, variant)
            _check_names(found)
            found = _configured(found, found.config | (config or {})) if config else found
        else:
            found = _read_file(source, unet, config or {})
        _check_fit(found, unet)
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error
    return found


def check_strides(controlnet: Component, pixels: int) -> None:
    """Raises CheckpointError when the ControlNet does not reduce its picture as the VAE does: `pixels` to a latent."""
    channels = controlnet.config.get(_HINT_CHANNELS, DEFAULTS["controlnet"][_HINT_CHANNELS])
    if (own := 2 ** (len(channels) - 1)) != pixels:
        raise CheckpointError(
            f"it does not fit the checkpoint: it reduces a picture by {own} along each axis, the VAE by {pixels}: use "
            "a ControlNet that was made for this kind of checkpoint"
        )


def _read_file(file: SingleFile, unet: Component, config: dict[str, Any]) -> Component:
    stored = file.stored
    names = read_header(stored.path).tensors.keys()
    weights = WeightFile(path=stored.path, digest=stored.digest, fingerprint=stored.fingerprint)
    bare = Component(role="controlnet", config={}, files=(weights,), layout=_layout(names))
    derived = controlnet_config(ComponentShapes(bare))
    options = (*_OF_THE_UNET, *(_OF_SDXL if "projection_class_embeddings_input_dim" in derived else ()))
    shared = {name: unet.config[name] for name in options if name in unet.config}
    named = {"global_pool_conditions": True} if Path(file.name).stem.endswith(_POOLING_NAMES) else {}
    sidecar = read_sidecar(file).config("controlnet")
    return _configured(bare, shared | derived | named | sidecar | config)


def _layout(names: Collection[str]) -> LayoutName:
    if what := other_controlnet(names):
        raise CheckpointError(what)
    if controlnet_root(names, CONTROLNET_FIRST) is not None:
        return "original"
    if controlnet_root(names, CONTROLNET_CANONICAL_FIRST) is not None:
        return "component"
    raise CheckpointError(not_a_controlnet(names))


def _configured(component: Component, config: dict[str, Any]) -> Component:
    check_config("controlnet", config)
    return Component(role="controlnet", config=config, files=component.files, layout=component.layout)


def _check_names(controlnet: Component) -> None:
    """A folder can hold another network than its config.json says, also one with all tensors of a ControlNet."""
    names = {name for file in controlnet.files for name in read_header(file.path).tensors}
    if what := other_controlnet(names):
        raise CheckpointError(what)
    if CONTROLNET_CANONICAL_FIRST not in controlnet.shapes:
        raise CheckpointError(not_a_controlnet(names))


def _check_fit(controlnet: Component, unet: Component) -> None:
    """Raises CheckpointError when the ControlNet was made for a UNet of other sizes."""
    widths = (
        ("text embeddings", ".attn2.to_k.weight", 1),
        ("pooled text and time_ids", "add_embedding.linear_1.weight", 1),
    )
    for what, ending, axis in widths:
        own, expected = (_width(component, ending, axis) for component in (controlnet, unet))
        if own is not None and own != expected:
            raise CheckpointError(
                f"it does not fit the checkpoint: its {what} have {own} values, those of the checkpoint "
                f"{expected or 'none'}: use a ControlNet that was made for this kind of checkpoint"
            )
    own_levels, levels = (_skip_channels(component) for component in (controlnet, unet))
    if own_levels != levels:
        raise CheckpointError(
            f"it does not fit the checkpoint: its blocks have {own_levels} channels, those of the UNet {levels}: use a "
            "ControlNet that was made for this kind of checkpoint"
        )


def _width(component: Component, ending: str, axis: int) -> int | None:
    shapes = (shape for name, shape in component.shapes.items() if name.endswith(ending) and len(shape) > axis)
    return next((shape[axis] for shape in shapes), None)


def _skip_channels(component: Component) -> list[list[int]]:
    """For each down block, the channels of the layers and of the downsampler, which the skip connections carry."""
    shapes = ComponentShapes(component)
    levels = []
    for level in range(shapes.count("down_blocks.{}.resnets.0.conv2.weight")):
        place = f"down_blocks.{level}"
        layers = shapes.count(f"{place}.resnets.{{}}.conv2.weight")
        names = [f"{place}.resnets.{layer}.conv2.weight" for layer in range(layers)]
        names += [name for name in (f"{place}.downsamplers.0.conv.weight",) if name in shapes]
        levels.append([shapes.size(name, 0) for name in names])
    return levels
