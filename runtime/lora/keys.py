"""Keys of LoRA files -> parameters. Two naming styles, both looked up in tables made from the checkpoint's own names.

    diffusers/PEFT   unet.down_blocks.0.….to_q.lora_A.weight     text_encoder.text_model.….q_proj.lora_B.weight
    Kohya            lora_unet_down_blocks_0_…_to_q.lora_down.weight   lora_te1_text_model_….alpha

Nothing is guessed from a key's parts: a key whose stem is in no table matches nothing, and is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

from runtime.checkpoints.checkpoint import Component

Role = Literal["down", "up", "alpha"]

_SUFFIXES: tuple[tuple[str, Role], ...] = (
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_A.default.weight", "down"),
    (".lora_B.default.weight", "up"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    ("_lora.down.weight", "down"),
    ("_lora.up.weight", "up"),
    (".alpha", "alpha"),
)
# Kohya's names of the components; `lora_te_` is the text encoder of SD 1.x and 2.x.
_KOHYA = {"unet": ("lora_unet",), "text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}


class Target(NamedTuple):
    """A layer that a LoRA can change: its component, and its module name within it (canonical)."""

    component: str
    module: str

    @property
    def parameter(self) -> str:
        return f"{self.module}.weight"


def split_key(key: str) -> tuple[str, Role] | None:
    """A key as (stem, role), the stem naming the layer; None when it ends like no LoRA key."""
    for suffix, role in _SUFFIXES:
        if key.endswith(suffix):
            stem = key.removesuffix(suffix)
            # diffusers' first LoRAs: `….attn1.processor.to_q_lora.down.weight`
            if suffix.startswith("_lora."):
                stem = stem.replace(".processor.", ".") + (".0" if stem.endswith("to_out") else "")
            return stem, role
    return None


def targets(components: Iterable[Component]) -> dict[str, Target]:
    """Every name that a LoRA file may use for a layer -> the layer. Layers are linear or convolutional weights."""
    table: dict[str, Target] = {}
    for component in components:
        table |= _component_targets(component.name, tuple(sorted(component.shapes.items())))
    return table


@lru_cache(maxsize=16)
def _component_targets(component: str, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, Target]:
    table: dict[str, Target] = {}
    for name, shape in shapes:
        if not name.endswith(".weight") or len(shape) not in (2, 4):
            continue
        target = Target(component, name.removesuffix(".weight"))
        table[f"{component}.{target.module}"] = target
        # PEFT adapters of a bare transformers 5 model lack the prefix.
        table[f"{component}.{target.module.removeprefix('text_model.')}"] = target
        for prefix in _KOHYA.get(component, ()):
            table[f"{prefix}_{target.module.replace('.', '_')}"] = target
    return table
