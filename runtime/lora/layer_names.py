"""The names that LoRA files give to the layers of a checkpoint: prefixes, then the layer's name in its component.

Prefixes and layer names combine freely, and a dot is equal to an underscore. So these name one layer of an SDXL UNet:

    unet.down_blocks.1.attentions.0.proj_in              diffusers, PEFT
    base_model.model.down_blocks.1.attentions.0.proj_in  PEFT without diffusers
    lora_unet_down_blocks_1_attentions_0_proj_in         Kohya; the lycoris package writes lycoris_down_blocks_…
    lora_unet_input_blocks_4_1_proj_in                   Kohya for SDXL: the layer's name in Stability AI's code
    diffusion_model.input_blocks.4.1.proj_in             ComfyUI; OneTrainer writes unet.input_blocks.…

The layer names come from the checkpoint's own parameters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from runtime.checkpoints.checkpoint import Component
from runtime.lora.stability_names import stability_names

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_ALL = frozenset({"unet", *TEXT_ENCODERS, "vae"})
# Prefix -> the components that it may stand for. Kohya's `te` is the text encoder of SD 1.x and 2.x.
_COMPONENTS: dict[str, tuple[str, ...]] = {
    "unet": ("unet", "diffusion_model"),
    "text_encoder": ("te", "te1", "text_encoder", "text_encoder_1", "clip_l", "clip_h", "conditioner.embedders.0"),
    "text_encoder_2": ("te2", "text_encoder_2", "clip_g", "conditioner.embedders.1"),
    "text_encoder_3": ("te3", "text_encoder_3", "t5xxl"),
    "vae": ("vae", "first_stage_model"),
}
_WRAPPERS = ("lora", "lycoris", "base_model", "model", "module", "transformer")
_PREFIXES: dict[str, frozenset[str]] = {
    **{prefix.replace(".", "_"): frozenset({name}) for name, prefixes in _COMPONENTS.items() for prefix in prefixes},
    **dict.fromkeys(("text_encoders", "cond_stage_model"), frozenset(TEXT_ENCODERS)),
    **dict.fromkeys(_WRAPPERS, _ALL),
}
_PREFIX = re.compile(f"({'|'.join(sorted(_PREFIXES, key=len, reverse=True))})_")
_MAX_PREFIXES = 8  # of a key; a hostile one may have millions
_ALL_PREFIXES = re.compile(f"(?:{_PREFIX.pattern}){{0,{_MAX_PREFIXES}}}")
_BEGINNING = 3  # characters; every layer's name has more
_MAX_PARENTS = 4  # parts of a key after a layer's name; the longest known suffix has three
# The names of a text encoder's projections in diffusers' first LoRAs.
_OLD_PROJECTIONS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


class Target(NamedTuple):
    """A parameter that a LoRA changes: component, canonical module name within it, and `weight` or `bias`."""

    component: str
    module: str
    attribute: str = "weight"

    @property
    def parameter(self) -> str:
        return f"{self.module}.{self.attribute}"


class LayerNames:
    """Looks up the layers of these components by the names that LoRA files give them."""

    def __init__(self, components: Sequence[Component]) -> None:
        self._names = frozenset(component.name for component in components)
        parts = tuple((component.name, tuple(component.shapes)) for component in components)
        self._targets, self._beginnings = _targets(parts)

    def find(self, stem: str) -> tuple[Target, ...]:
        """The layers that a stem may name, none if it is unknown.

        Several are possible only when the prefix names no component: the two text encoders of SDXL have equal names.
        """
        allowed, name = _split(stem)
        found = self._targets.get(name, ())
        return tuple(target for target in found if target.component in allowed) if found else ()

    def is_for_other_component(self, key: str) -> bool:
        """Whether the key's prefix names a component that is not one of these."""
        allowed, _ = _split(key)
        return bool(allowed) and allowed.isdisjoint(self._names)

    def begins_with_layer(self, key: str) -> bool:
        """Whether one to four parts of the key follow the name of a layer."""
        allowed, name = _split(key)
        if name[:_BEGINNING] not in self._beginnings:
            return False
        dot = len(key)
        for _ in range(_MAX_PARENTS):
            dot = key.rfind(".", 0, dot)
            if dot <= 0:
                return False
            # Underscoring the rest is much faster than splitting the layer's name anew.
            found = self._targets.get(name[: -len(_underscored(key[dot:]))], ())
            if any(target.component in allowed for target in found):
                return True
        return False


def is_for(component: str, key: str) -> bool:
    """Whether the key's prefix names this component alone."""
    return _split(key)[0] == {component}


@lru_cache(maxsize=4)  # one key is asked about several times
def _split(stem: str) -> tuple[frozenset[str], str]:
    """The components that the stem's prefixes allow, and the layer's name with underscores for dots."""
    name = _underscored(stem)
    match = _ALL_PREFIXES.match(name)
    end = match.end() if match else 0
    return (_allowed(name[:end]), name[end:]) if end else (_ALL, name)


def _underscored(text: str) -> str:
    # `_orig_mod` is torch.compile's wrapper; `processor` is in the keys of diffusers' first LoRAs.
    return text.replace("_orig_mod.", "").replace(".", "_").replace("_processor_", "_")


@lru_cache(maxsize=1024)
def _allowed(prefixes: str) -> frozenset[str]:
    """The components that all of these prefixes may stand for."""
    return frozenset.intersection(*map(_PREFIXES.__getitem__, _PREFIX.findall(prefixes)))


@lru_cache(maxsize=16)
def _targets(
    components: tuple[tuple[str, tuple[str, ...]], ...],
) -> tuple[dict[str, tuple[Target, ...]], frozenset[str]]:
    """A layer's name with underscores for dots -> the layers of that name; and the beginnings of all names.

    `components`: (name, parameters) of each.
    """
    found: dict[str, tuple[Target, ...]] = {}
    for component, parameters in components:
        for name, module in _modules(component, parameters).items():
            found[name] = (*found.get(name, ()), Target(component, module))
    return found, frozenset(name[:_BEGINNING] for name in found)


def _modules(component: str, parameters: tuple[str, ...]) -> dict[str, str]:
    """The names of the component's layers, with underscores for dots -> the canonical module name."""
    parts = (name.rpartition(".") for name in parameters)
    modules = {module for module, _, last in parts if last in ("weight", "bias")}
    named = _unet_names(modules) if component == "unet" else _text_names(modules)
    return {name.replace(".", "_"): module for module, name in named}


def _unet_names(modules: Collection[str]) -> Iterator[tuple[str, str]]:
    """(module, a name of it), the names of diffusers and of Stability AI. Early files write `to_out.0` as `to_out`."""
    stability = stability_names(modules)
    for module in modules:
        for name in (module, stability.get(module, module)):
            yield module, name
            if name.endswith(".to_out.0"):
                yield module, name.removesuffix(".0")


def _text_names(modules: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(module, a name of it). A text model of transformers 5 has no `text_model.` prefix, nor has its LoRA."""
    for module in modules:
        parent, _, last = module.rpartition(".")
        for name in (module, f"{parent}.{_OLD_PROJECTIONS[last]}" if last in _OLD_PROJECTIONS else module):
            yield module, name
            yield module, name.removeprefix("text_model.")
