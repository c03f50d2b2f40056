"""Splits the keys of LoRA files: the stem names a layer, the suffix gives the tensor's role and the parameter."""

from __future__ import annotations

from typing import NamedTuple

from runtime.lora.kinds import KINDS, dora
from runtime.lora.kinds.lora_kind import LoraKind

ALPHA = "alpha"
MAX_KEY = 512  # characters; a key of every known naming is shorter, so a longer one names no layer


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
# PEFT's state dict has the adapter's name after these: `….lora_A.default_0.weight`. The files that PEFT saves do not.
_BEFORE_ADAPTER = ("lora_A", "lora_B", "lora_magnitude_vector")
_LAST_PARTS = frozenset(suffix.rpartition(".")[2] for suffix in _SUFFIXES)


def split_key(key: str) -> LoraKey | None:
    """The parts of a key; None when it has no suffix of a LoRA key, or more than `MAX_KEY` characters."""
    last = key[key.rfind(".") + 1 :]
    if last not in _LAST_PARTS or len(key) > MAX_KEY:
        return None
    return _split(key) or (_split_with_adapter(key) if last == "weight" else None)


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


def _split_with_adapter(key: str) -> LoraKey | None:
    parts = key.rsplit(".", 3)
    if len(parts) == 4 and parts[1] in _BEFORE_ADAPTER and parts[2]:
        return _split(f"{parts[0]}.{parts[1]}.weight")
    return None
