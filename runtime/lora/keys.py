"""Keys of LoRA files -> parameters. The naming styles are looked up in tables made from the checkpoint's own names.

    diffusers/PEFT   unet.down_blocks.0.….to_q.lora_A.weight     text_encoder.text_model.….q_proj.lora_B.weight
    Kohya            lora_unet_down_blocks_0_…_to_q.lora_down.weight   lora_te1_text_model_….alpha
    Kohya for SDXL   lora_unet_input_blocks_4_1_…_to_q.lora_down.weight

Nothing is guessed from a key's parts: a key whose stem is in no table matches nothing, and is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from runtime.checkpoints.checkpoint import Component
from runtime.lora.kinds import KINDS, dora
from runtime.lora.kinds.kind import Kind
from runtime.lora.sgm import sgm_names

ALPHA = "alpha"
# Kohya's names of the components; `lora_te_` is the text encoder of SD 1.x and 2.x.
_KOHYA = {"unet": ("lora_unet",), "text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}
# What diffusers' first LoRAs call a text encoder's projections.
_OLD_PROJECTIONS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


class Target(NamedTuple):
    """A parameter that a LoRA can change: its component, its module's name within it (canonical), weight or bias."""

    component: str
    module: str
    attribute: str = "weight"

    @property
    def parameter(self) -> str:
        return f"{self.module}.{self.attribute}"


class Key(NamedTuple):
    """A key taken apart: the stem names the layer, the role says what of it; alpha and magnitude are of no one kind."""

    stem: str
    role: str
    attribute: str
    kind: Kind | None


_ENDS: dict[str, tuple[str, str, Kind | None]] = {
    **{end: (role, kind.parameter, kind) for kind in KINDS for end, role in kind.roles.items()},
    **{end: (role, "weight", None) for end, role in dora.ROLES.items()},
    f".{ALPHA}": (ALPHA, "weight", None),
}


def split_key(key: str) -> Key | None:
    """A key taken apart; None when it ends like no LoRA key."""
    for end, (role, attribute, kind) in _ENDS.items():
        if key.endswith(end):
            stem = key.removesuffix(end)
            # diffusers' first LoRAs: `….attn1.processor.to_q_lora.down.weight`
            if end.startswith("_lora."):
                stem = stem.replace(".processor.", ".")
            return Key(stem, role, attribute, kind)
    return None


def modules(components: Iterable[Component]) -> dict[str, Target]:
    """Every name that a LoRA file may use for a layer -> the weight of the layer."""
    table: dict[str, Target] = {}
    for component in components:
        table |= _modules(component.name, tuple(component.shapes))
    return table


@lru_cache(maxsize=16)
def _modules(component: str, parameters: tuple[str, ...]) -> dict[str, Target]:
    names = {module for name in parameters for module, _, last in [name.rpartition(".")] if last in ("weight", "bias")}
    table: dict[str, Target] = {}
    for module in names:
        target = Target(component, module)
        for alias in _aliases(component, module):
            table[alias] = target
        for prefix in _KOHYA.get(component, ()):
            table[f"{prefix}_{module.replace('.', '_')}"] = target
    if component == "unet":
        for module, name in sgm_names(names).items():
            table[f"lora_unet_{name.replace('.', '_')}"] = Target(component, module)
    return table


def _aliases(component: str, module: str) -> list[str]:
    """The dotted names of a module."""
    if component == "unet":
        # diffusers' first LoRAs are of the UNet alone, do not say so, and omit the 0 of `to_out.0`.
        return [f"{prefix}{module.removesuffix(end)}" for prefix in ("unet.", "") for end in ("", ".0")]
    # PEFT adapters of a bare transformers 5 model lack the prefix.
    aliases = [f"{component}.{module}", f"{component}.{module.removeprefix('text_model.')}"]
    parent, _, last = module.rpartition(".")
    if last in _OLD_PROJECTIONS:
        aliases.append(f"{component}.{parent}.{_OLD_PROJECTIONS[last]}")
    return aliases
