"""Layouts: how a weight file names the tensors of a component, and which parameters each tensor holds. No torch.

    component   a file of one component, as diffusers and transformers save it
    prefixed    a whole checkpoint in one file with the names of diffusers: `unet.…`, `vae.…`, `text_encoder.…`
    original    Stable Diffusion's own names: `model.diffusion_model.…`, `first_stage_model.…`, `cond_stage_model.…`,
                and those of ControlNet's authors: `control_model.…`
    ip_adapter  the file of an IP-Adapter: `image_proj.…`, `ip_adapter.…`
    open_clip   a model of OpenCLIP, or its image encoder alone: `visual.…`

A ControlNet alone may have any prefix: wrappers of training runs (`module.`) add theirs.

A component names its layout, because it is sent as JSON. Files are not converted: a parameter is a view of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

from runtime.checkpoints.canonical_names import canonical_name
from runtime.checkpoints.ip_adapter_names import ip_adapter_views
from runtime.checkpoints.open_clip_names import open_clip_name, open_clip_vision_name
from runtime.checkpoints.original_controlnet_names import CONTROLNET_FIRST, controlnet_name
from runtime.checkpoints.original_unet_names import block_starts, unet_name
from runtime.checkpoints.original_vae_names import is_later_name, vae_levels, vae_name
from runtime.checkpoints.parameter_names import is_parameter
from runtime.checkpoints.view import View, Views

LayoutName = Literal["component", "prefixed", "original", "ip_adapter", "open_clip"]
Finder = Callable[[str], Views]

UNET_ROOT = "model.diffusion_model."
_COMFY_ROOT = "diffusion_model."
UNET_FIRST = "input_blocks.0.0.weight"
VAE_ROOT = "first_stage_model."
# Prefixes of the text encoders in SD 1.x and 2.x, and in SDXL and SD 2.1 Turbo.
_TEXT_ROOTS = ("cond_stage_model.", "conditioner.embedders.0.")
_OPEN_CLIP_2_ROOT = "conditioner.embedders.1.model."
# After the prefix: CLIP of transformers, and OpenCLIP.
_CLIP, _OPEN_CLIP = "transformer.", "model."
_TOKENS = "token_embedding.weight"
_FIRST_TENSORS = {_CLIP: ("embeddings.", "text_model.embeddings."), _OPEN_CLIP: ("",)}
_OPEN_CLIP_VISION_ROOT = "visual."
OPEN_CLIP_VISION_FIRST = f"{_OPEN_CLIP_VISION_ROOT}conv1.weight"
CONTROLNET_CANONICAL_FIRST = "controlnet_cond_embedding.conv_in.weight"
_QKV = ("q_proj", "k_proj", "v_proj")
# The networks whose blocks are numbered as a UNet's.
_UNETS = {"unet": unet_name, "controlnet": controlnet_name}


def views(layout: LayoutName, component: str, config: dict[str, Any], names: Collection[str]) -> dict[str, Views]:
    """Stored tensor's name -> the parameters of the component that it holds. `names` are all names of the file.

    A tensor that holds no parameter is left out, as A1111, ComfyUI and diffusers load the names that their networks
    have, and no others. When a file has a parameter under two names, the alias has no views. For the text encoder of
    SD 1.x, A1111 decides so: it renames the short names in alphabetical order, `text_model.…` comes last and stays.
    """
    find = _finder(layout, component, config, names)
    found = {name: held for name in names if (held := _parameters(component, find(name)))}
    usual = {view.name for held in found.values() for view in held if not view.is_alias}
    return {
        name: tuple(view for view in held if not (view.is_alias and view.name in usual)) for name, held in found.items()
    }


def _parameters(component: str, found: Views) -> Views:
    return tuple(view for view in found if is_parameter(component, view.name))


def _finder(layout: LayoutName, component: str, config: dict[str, Any], names: Collection[str]) -> Finder:
    if layout == "component":
        root = controlnet_root(names, CONTROLNET_CANONICAL_FIRST) if component == "controlnet" else ""
        return lambda name: _under(root or "", name, lambda inner: _plain(component, inner))
    if layout == "open_clip":
        if component == "image_encoder":
            return lambda name: _under(_OPEN_CLIP_VISION_ROOT, name, _open_clip_vision)
        return lambda name: _open_clip(name, None)
    if layout == "ip_adapter":
        return ip_adapter_views(names)
    if layout == "prefixed":
        return lambda name: _under(f"{component}.", name, lambda inner: _plain(component, inner))
    return _original(component, config, names)


def _original(component: str, config: dict[str, Any], names: Collection[str]) -> Finder:
    if component in _UNETS:
        named = _UNETS[component]
        root = unet_root(names) if component == "unet" else controlnet_root(names, CONTROLNET_FIRST) or ""
        starts = block_starts(name.removeprefix(root) for name in names if name.startswith(root))
        return lambda name: _under(root, name, lambda inner: _view(named(inner, starts)))
    if component == "vae":
        levels = vae_levels(names)
        return lambda name: _under(VAE_ROOT, name, lambda inner: _vae(inner, levels))
    if component == "text_encoder_2":
        return lambda name: _under(_OPEN_CLIP_2_ROOT, name, lambda inner: _open_clip(inner, None))
    root = _text_root(names)
    if root.endswith(_CLIP):
        return lambda name: _under(root, name, lambda inner: _plain(component, inner))
    # SD 2.x uses the output of the penultimate layer: its files contain the last layer, its networks do not.
    wanted = config.get("num_hidden_layers")
    used = wanted if isinstance(wanted, int) else None
    return lambda name: _under(root, name, lambda inner: _open_clip(inner, used))


def unet_root(names: Collection[str]) -> str:
    """The prefix of the UNet; "" or ComfyUI's in a file of a UNet alone."""
    return next((root for root in (UNET_ROOT, _COMFY_ROOT, "") if f"{root}{UNET_FIRST}" in names), UNET_ROOT)


def controlnet_root(names: Collection[str], first: str) -> str | None:
    """The prefix of the ControlNet whose first layer is named `first`, the shortest of several; None: there is none."""
    roots = (name.removesuffix(first) for name in names if name.endswith(first))
    return min((root for root in roots if not root or root.endswith(".")), key=len, default=None)


def _text_root(names: Collection[str]) -> str:
    """The prefix of the first text encoder. When the file has two, the UNet decides which one is used."""
    is_xl = f"{UNET_ROOT}label_emb.0.0.weight" in names
    for root in _TEXT_ROOTS[::-1] if is_xl else _TEXT_ROOTS:
        for kind, places in _FIRST_TENSORS.items():
            if any(f"{root}{kind}{place}{_TOKENS}" in names for place in places):
                return root + kind
    return _TEXT_ROOTS[0] + _CLIP


def _under(root: str, name: str, find: Finder) -> Views:
    return find(name.removeprefix(root)) if name.startswith(root) else ()


def _plain(component: str, name: str) -> Views:
    canonical = canonical_name(component, name)
    return (View(canonical, is_alias=canonical != name),)


def _view(canonical: str | None) -> Views:
    return () if canonical is None else (View(canonical),)


def _vae(inner: str, levels: int) -> Views:
    if (name := vae_name(inner, levels)) is None:
        return ()
    is_linear = ".attentions." in name and ".group_norm." not in name and name.endswith(".weight")
    return (View(name, is_linear=is_linear, is_alias=is_later_name(inner)),)


def _open_clip(inner: str, used_layers: int | None) -> Views:
    if inner == "text_projection":  # x @ P in OpenCLIP, x @ W.T in a linear layer
        return (View("text_projection.weight", transposed=True),)
    if inner == "text_projection.weight":
        return (View("text_projection.weight", is_alias=True),)
    if (name := open_clip_name(inner)) is None:
        return ()
    layer = name.split(".")[3] if name.startswith("text_model.encoder.layers.") else None
    if layer is not None and used_layers is not None and int(layer) >= used_layers:
        return ()
    return _separate(name)


def _open_clip_vision(inner: str) -> Views:
    if inner == "proj":  # x @ P, as text_projection
        return (View("visual_projection.weight", transposed=True),)
    name = open_clip_vision_name(inner)
    return () if name is None else _separate(name)


def _separate(name: str) -> Views:
    """A parameter of OpenCLIP; query, key and value are one."""
    stem, fused, kind = name.partition(".in_proj_")
    if not fused:
        return (View(name),)
    return tuple(View(f"{stem}.{part}.{kind}", index, len(_QKV)) for index, part in enumerate(_QKV))
