"""Layouts: how a weight file names the tensors of a component, and which parameters each tensor holds. No torch.

    component   a file of one component, as diffusers and transformers save it
    prefixed    a whole checkpoint in one file with the names of diffusers: `unet.…`, `vae.…`, `text_encoder.…`
    original    Stable Diffusion's own names: `model.diffusion_model.…`, `first_stage_model.…`, `cond_stage_model.…`

A component names its layout, because it is sent as JSON. Files are not converted: a parameter is a view of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lorikeet.protocol.shorten import shorten
from runtime.checkpoints.canonical_names import canonical_name
from runtime.checkpoints.open_clip_names import open_clip_name
from runtime.checkpoints.original_unet_names import layers_per_block, unet_name
from runtime.checkpoints.original_vae_names import vae_levels, vae_name
from runtime.files.safetensors_file import WeightFileError

if TYPE_CHECKING:
    import torch

LayoutName = Literal["component", "prefixed", "original"]

UNET_ROOT = "model.diffusion_model."
VAE_ROOT = "first_stage_model."
# Prefixes of the text encoders: `transformer` is CLIP of transformers, `model` is OpenCLIP.
CLIP_ROOTS = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
OPEN_CLIP_ROOTS = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
OPEN_CLIP_2_ROOT = "conditioner.embedders.1.model."
# Other parts of CLIP, which some merged checkpoints contain.
_CLIP_OTHERS = ("logit_scale", "text_projection", "vision_model.", "visual_projection")
# Left over from the training of the VAE.
_VAE_OTHERS = ("loss.", "model_ema.")
_QKV = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class View:
    """A parameter in a stored tensor: one of `parts` equal parts along the first axis.

    It can be transposed, or a linear layer that is stored as a 1x1 convolution.
    """

    name: str
    part: int = 0
    parts: int = 1
    transposed: bool = False
    is_linear: bool = False

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the parameter. Raises WeightFileError when the shape of the stored tensor does not fit."""
        shape = stored
        if self.parts > 1:
            if not shape or shape[0] % self.parts:
                raise WeightFileError(
                    f"{self.name}: shape {list(stored)} does not divide into {self.parts} equal parts"
                )
            shape = (shape[0] // self.parts, *shape[1:])
        if self.transposed:
            if len(shape) != 2:
                raise WeightFileError(f"{self.name}: expected a matrix, found shape {list(stored)}")
            shape = (shape[1], shape[0])
        return shape[:2] if self.is_linear and shape[2:] == (1, 1) else shape

    def of(self, stored: torch.Tensor) -> torch.Tensor:
        """The parameter, a view of the memory of the stored tensor."""
        tensor = stored.chunk(self.parts)[self.part] if self.parts > 1 else stored
        if self.transposed:
            tensor = tensor.t()
        return tensor.flatten(1) if self.is_linear else tensor


Finder = Callable[[str], tuple[View, ...]]


def views(layout: LayoutName, component: str, config: dict[str, Any], names: Collection[str]) -> Finder:
    """A function from the name of a stored tensor to its parameters in the component. `names` are all of the file.

    The function returns () for a tensor that is not of this component. It raises WeightFileError for an unknown name
    within the component.
    """
    if layout == "component":
        return lambda name: _plain(canonical_name(component, name))
    if layout == "prefixed":
        return lambda name: _under(f"{component}.", name, lambda inner: _plain(canonical_name(component, inner)))
    return _original(component, config, names)


def _original(component: str, config: dict[str, Any], names: Collection[str]) -> Finder:
    if component == "unet":
        root = unet_root(names)
        layers = layers_per_block(name.removeprefix(root) for name in names if name.startswith(root))
        return lambda name: _under(root, name, lambda inner: _known(name, unet_name(inner, layers)))
    if component == "vae":
        levels = vae_levels(names)
        return lambda name: _under(VAE_ROOT, name, lambda inner: _vae(name, inner, levels))
    if component == "text_encoder_2":
        return lambda name: _under(OPEN_CLIP_2_ROOT, name, lambda inner: _open_clip(name, inner, None, projected=True))
    root = text_root(names)
    if root in CLIP_ROOTS:
        return lambda name: _under(root, name, lambda inner: _clip(name, inner))
    # SD 2.x uses the output of the penultimate layer: its files contain the last layer, its networks do not.
    wanted = config.get("num_hidden_layers")
    used = wanted if isinstance(wanted, int) else None
    return lambda name: _under(root, name, lambda inner: _open_clip(name, inner, used, projected=False))


def unet_root(names: Collection[str]) -> str:
    """The prefix of the UNet; "" in a file of a UNet alone."""
    return "" if "input_blocks.0.0.weight" in names else UNET_ROOT


def text_root(names: Collection[str]) -> str:
    """The prefix of the first text encoder."""
    for root in (*CLIP_ROOTS, *OPEN_CLIP_ROOTS):
        end = "token_embedding.weight"
        if any(f"{root}{middle}{end}" in names for middle in ("", "embeddings.", "text_model.embeddings.")):
            return root
    return CLIP_ROOTS[0]


def _under(root: str, name: str, find: Finder) -> tuple[View, ...]:
    return find(name.removeprefix(root)) if name.startswith(root) else ()


def _plain(canonical: str | None) -> tuple[View, ...]:
    return () if canonical is None else (View(canonical),)


def _known(name: str, canonical: str | None) -> tuple[View, ...]:
    if canonical is None:
        raise WeightFileError(f"{shorten(name)} is not a tensor of a Stable Diffusion checkpoint")
    return (View(canonical),)


def _vae(name: str, inner: str, levels: int) -> tuple[View, ...]:
    if inner.startswith(_VAE_OTHERS):
        return ()
    (view,) = _known(name, vae_name(inner, levels))
    is_linear = ".attentions." in view.name and ".group_norm." not in view.name and view.name.endswith(".weight")
    return (View(view.name, is_linear=is_linear),)


def _clip(name: str, inner: str) -> tuple[View, ...]:
    if inner.startswith(_CLIP_OTHERS):
        return ()
    canonical = canonical_name("text_encoder", inner)
    if canonical is None:
        return ()
    return _known(name, canonical if canonical.startswith("text_model.") else None)


def _open_clip(name: str, inner: str, used_layers: int | None, *, projected: bool) -> tuple[View, ...]:
    if inner in ("logit_scale", "attn_mask") or inner.endswith("position_ids"):
        return ()
    if inner in ("text_projection", "text_projection.weight"):  # x @ P in OpenCLIP, x @ W.T in a linear layer
        return (View("text_projection.weight", transposed=inner == "text_projection"),) if projected else ()
    (view,) = _known(name, open_clip_name(inner))
    layer = view.name.split(".")[3] if view.name.startswith("text_model.encoder.layers.") else None
    if layer is not None and used_layers is not None and int(layer) >= used_layers:
        return ()
    stem, fused, kind = view.name.partition(".in_proj_")
    if not fused:
        return (view,)
    return tuple(View(f"{stem}.{part}.{kind}", index, len(_QKV)) for index, part in enumerate(_QKV))
