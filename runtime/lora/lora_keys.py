"""Keys of LoRA files -> parameters of a checkpoint. A lookup table holds every name that a layer has:

    diffusers/PEFT   unet.down_blocks.0.….to_q.lora_A.weight     text_encoder.text_model.….q_proj.lora_B.weight
    Kohya            lora_unet_down_blocks_0_…_to_q.lora_down.weight   lora_te1_text_model_….alpha
    Kohya for SDXL   lora_unet_input_blocks_4_1_…_to_q.lora_down.weight

The table is made from the checkpoint's own parameter names. A key that is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from runtime.checkpoints.checkpoint import Component
from runtime.lora.kinds import KINDS, dora
from runtime.lora.kinds.lora_kind import LoraKind
from runtime.lora.stability_names import stability_names

ALPHA = "alpha"
# Kohya's names of the components; `lora_te_` is the text encoder of SD 1.x and 2.x.
_KOHYA = {"unet": ("lora_unet",), "text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}
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


class LoraKey(NamedTuple):
    """The parts of a key: its stem names the layer, its suffix gives the tensor's role and the parameter changed.

    `kind` is None for alpha and for DoRA's magnitude, which several kinds use.
    """

    stem: str
    role: str
    attribute: str
    kind: LoraKind | None


_SUFFIXES: dict[str, tuple[str, str, LoraKind | None]] = {
    **{suffix: (role, kind.parameter, kind) for kind in KINDS for suffix, role in kind.roles.items()},
    **{suffix: (role, "weight", None) for suffix, role in dora.ROLES.items()},
    f".{ALPHA}": (ALPHA, "weight", None),
}


def split_key(key: str) -> LoraKey | None:
    """The parts of a key; None when it has no suffix of a LoRA key."""
    for suffix, (role, attribute, kind) in _SUFFIXES.items():
        if key.endswith(suffix):
            stem = key.removesuffix(suffix)
            # diffusers' first LoRAs: `….attn1.processor.to_q_lora.down.weight`
            if suffix.startswith("_lora."):
                stem = stem.replace(".processor.", ".")
            return LoraKey(stem, role, attribute, kind)
    return None


def targets_by_stem(components: Iterable[Component]) -> dict[str, Target]:
    """Every stem that a LoRA file may use for a layer -> the layer's weight."""
    table: dict[str, Target] = {}
    for component in components:
        table |= _targets(component.name, tuple(component.shapes))
    return table


@lru_cache(maxsize=16)
def _targets(component: str, parameters: tuple[str, ...]) -> dict[str, Target]:
    names = {module for name in parameters for module, _, last in [name.rpartition(".")] if last in ("weight", "bias")}
    table: dict[str, Target] = {}
    for module in names:
        target = Target(component, module)
        for alias in _aliases(component, module):
            table[alias] = target
        for prefix in _KOHYA.get(component, ()):
            table[f"{prefix}_{module.replace('.', '_')}"] = target
    if component == "unet":
        for module, name in stability_names(names).items():
            table[f"lora_unet_{name.replace('.', '_')}"] = Target(component, module)
    return table


def _aliases(component: str, module: str) -> list[str]:
    """The dotted names of a module."""
    if component == "unet":
        # diffusers' first LoRAs change the UNet only, have no "unet." prefix, and write `to_out.0` as `to_out`.
        return [f"{prefix}{module.removesuffix(end)}" for prefix in ("unet.", "") for end in ("", ".0")]
    # PEFT adapters of a transformers 5 text model have no "text_model." prefix.
    aliases = [f"{component}.{module}", f"{component}.{module.removeprefix('text_model.')}"]
    parent, _, last = module.rpartition(".")
    if last in _OLD_PROJECTIONS:
        aliases.append(f"{component}.{parent}.{_OLD_PROJECTIONS[last]}")
    return aliases
