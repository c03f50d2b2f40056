"""Splits the keys of LoRA files: the stem names a layer, the suffix gives the tensor's role and the parameter."""

from __future__ import annotations

import re
from typing import NamedTuple

from runtime.lora.kinds import KINDS, dora
from runtime.lora.kinds.lora_kind import LoraKind

ALPHA = "alpha"


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
_MAX_PARTS = 3  # of a suffix: `.lora_linear_layer.down.weight`
_FIRST_LORAS = "_lora"  # diffusers' first LoRAs have no dot before it: `….to_q_lora.down.weight`
# PEFT's state dict has the adapter's name here: `….lora_A.default_0.weight`. The files that PEFT saves do not.
_ADAPTER = re.compile(r"\.(lora_[AB]|lora_magnitude_vector)\.[^.]+\.weight$")


def split_key(key: str) -> LoraKey | None:
    """The parts of a key; None when it has no suffix of a LoRA key."""
    return _split(key) or _split(_ADAPTER.sub(r".\1.weight", key))


def _split(key: str) -> LoraKey | None:
    end = len(key)
    for _ in range(_MAX_PARTS):
        end = key.rfind(".", 0, end)
        if end < 0:
            return None
        if found := _SUFFIXES.get(key[end:]):
            return LoraKey(key[:end], *found)
        if key.endswith(_FIRST_LORAS, 0, end) and (found := _SUFFIXES.get(_FIRST_LORAS + key[end:])):
            return LoraKey(key[: end - len(_FIRST_LORAS)], *found)
    return None
