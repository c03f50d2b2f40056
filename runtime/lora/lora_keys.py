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
# PEFT's state dict has the adapter's name here: `….lora_A.default_0.weight`. The files that PEFT saves do not.
_ADAPTER = re.compile(r"\.(lora_[AB]|lora_magnitude_vector)\.[^.]+\.weight$")


def split_key(key: str) -> LoraKey | None:
    """The parts of a key; None when it has no suffix of a LoRA key."""
    key = _ADAPTER.sub(r".\1.weight", key)
    for suffix, (role, attribute, kind) in _SUFFIXES.items():
        if key.endswith(suffix):
            return LoraKey(key.removesuffix(suffix), role, attribute, kind)
    return None
