"""Maps the names in IP-Adapter files to canonical names, which are those of `runtime.networks.image_projection`.

The authors' files hold `image_proj.…` and `ip_adapter.<number>.to_k_ip.weight`; the numbers are odd, because they count
self-attention too. Files of a training run hold `image_proj_model.…` and `adapter_modules.…` instead, and the whole
UNet, `unet.…`. A safetensors file holds no tensor twice: there, only the UNet's names may be left. Conversions of such
files have the UNet's names behind `ip_adapter.`. Those of FaceID also hold a LoRA of the UNet's attention, in each of
these namings: `ip_adapter.<number>.to_q_lora.down.weight`, `unet.….attn1.processor.to_q_lora.down.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from runtime.checkpoints.module_order import module_order
from runtime.checkpoints.parameter_names import NUMBER
from runtime.checkpoints.view import View, Views

ProjectionKind = Literal["base", "full", "plus", "faceid", "faceid_plus"]

_ROOTS = {"image_proj": ("image_proj.", "image_proj_model."), "adapter": ("ip_adapter.", "adapter_modules.", "unet.")}
_KEYS = re.compile(rf"({NUMBER})\.to_([kv])_ip\.weight")
_BLOCK = rf"(?:(?:down|up)_blocks\.{NUMBER}|mid_block)\.attentions\.{NUMBER}\.transformer_blocks\.{NUMBER}"
_UNET_KEYS = re.compile(rf"({_BLOCK})\.attn2\.processor\.to_([kv])_ip\.weight")
_LORA = re.compile(rf"(?:({NUMBER})|({_BLOCK}\.attn[12])\.processor)\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")
# The layers outside of a resampler: stored -> canonical names.
_STEMS: dict[ProjectionKind, dict[str, str]] = {
    "base": {"proj": "image_embeds", "norm": "norm"},
    "full": {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "proj.3": "norm"},
    "faceid": {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "norm": "norm"},
    "faceid_plus": {"proj.0": "proj.net.0.proj", "proj.2": "proj.net.2", "norm": "norm"},
}
# Before the names of a resampler.
_RESAMPLERS: dict[ProjectionKind, str] = {"plus": "", "faceid_plus": "perceiver_resampler."}
_LAYER = re.compile(rf"layers\.({NUMBER})\.([01])\.(.+)")
_ATTENTION = {"norm1": "ln0", "norm2": "ln1", "to_q": "attn.to_q", "to_out": "attn.to_out.0"}
_FEED_FORWARD = {"0": "ff.0", "1": "ff.1.net.0.proj", "3": "ff.1.net.2"}


def projection_kind(names: Collection[str]) -> ProjectionKind | None:
    """The kind of IP-Adapter with these names, decided as diffusers does; None: not an IP-Adapter."""
    own = {rest for name in names if (rest := _under("image_proj", name)) is not None}
    if not own or not any(_under("adapter", name) is not None for name in names) or counts_all_blocks(names):
        return None
    marks: tuple[tuple[str, ProjectionKind], ...] = (
        ("proj.weight", "base"),
        ("proj.3.weight", "full"),
        ("perceiver_resampler.proj_in.weight", "faceid_plus"),
        ("norm.weight", "faceid"),
        ("latents", "plus"),
    )
    return next((kind for mark, kind in marks if mark in own), None)


def counts_all_blocks(names: Collection[str]) -> bool:
    """Whether the file is for a diffusion transformer (Flux, SD 3): each block has keys, so it has even numbers too."""
    numbers = (match[1] for name in names if (match := _KEYS.fullmatch(_under("adapter", name) or "")))
    return any(int(number) % 2 == 0 for number in numbers)


def ip_adapter_views(names: Collection[str]) -> Callable[[str], Views]:
    """A function from a stored tensor's name to the parameters that it holds. `names` are all names of the file."""
    kind = projection_kind(names)
    in_unet = {match[1] for name in names if (match := _UNET_KEYS.fullmatch(_under("adapter", name) or ""))}
    places = {place: number for number, place in enumerate(sorted(in_unet, key=module_order))}

    def find(name: str) -> Views:
        if (rest := _under("adapter", name)) is not None:
            return _keys_and_values(rest, places)
        rest = _under("image_proj", name)
        return () if rest is None or kind is None else _projection(kind, rest)

    return find


class LoraName(NamedTuple):
    """The tensor of a FaceID's LoRA: the attention layer, its projection, and `down` or `up`.

    `layer` is the layer's number, or its name in the UNet.
    """

    layer: int | str
    projection: str
    role: str


def lora_names(names: Iterable[str]) -> dict[str, LoraName | None]:
    """Stored name -> its parts, for the tensors of a LoRA; None: it repeats another one.

    A file of a training run has each layer twice. The names with numbers are used.
    """
    found: dict[str, LoraName | None] = {}
    for name in names:
        if match := _LORA.fullmatch(_under("adapter", name) or ""):
            number, layer, projection, role = match.groups()
            found[name] = LoraName(layer if number is None else int(number), projection, role)
    if any(parts and isinstance(parts.layer, int) for parts in found.values()):
        return {name: parts if parts and isinstance(parts.layer, int) else None for name, parts in found.items()}
    return found


def _under(part: str, name: str) -> str | None:
    return next((name.removeprefix(root) for root in _ROOTS[part] if name.startswith(root)), None)


def _keys_and_values(rest: str, places: Mapping[str, int]) -> Views:
    """`places`: the UNet's cross-attention layer -> its number among them."""
    if match := _UNET_KEYS.fullmatch(rest):
        return (View(f"to_{match[2]}_ip.{places[match[1]]}.weight", is_alias=True),)
    match = _KEYS.fullmatch(rest)
    if match is None or int(match[1]) % 2 == 0:
        return ()
    return (View(f"to_{match[2]}_ip.{int(match[1]) // 2}.weight"),)


def _projection(kind: ProjectionKind, rest: str) -> Views:
    stem, _, ending = rest.rpartition(".")
    place = _STEMS.get(kind, {}).get(stem)
    if place is not None:
        return (View(f"image_proj.{place}.{ending}"),)
    root = _RESAMPLERS.get(kind)
    if root is None or not rest.startswith(root):
        return ()
    views = _resampler(rest.removeprefix(root))
    return tuple(View(f"image_proj.{view.name}", view.part, view.parts) for view in views)


def _resampler(rest: str) -> Views:
    """Of an IP-Adapter Plus or FaceID Plus. Its keys and values are one matrix."""
    match = _LAYER.fullmatch(rest)
    if match is None:
        return (View(rest),) if rest.partition(".")[0] in ("latents", "proj_in", "proj_out", "norm_out") else ()
    layer, part, inner = f"layers.{match[1]}", match[2], match[3]
    stem, _, ending = inner.rpartition(".")
    if part == "0" and stem == "to_kv":
        return tuple(View(f"{layer}.attn.to_{one}.{ending}", index, 2) for index, one in enumerate("kv"))
    place = (_ATTENTION if part == "0" else _FEED_FORWARD).get(stem)
    return () if place is None else (View(f"{layer}.{place}.{ending}"),)
