"""Messages about missing weight files: what the folder has in their place, and what to do."""

from __future__ import annotations

import re
from collections.abc import Collection

from lorikeet.protocol.shorten import listed, shorten

_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_SAFETENSORS = ".safetensors"
_SHARD = r"-\d{1,6}-of-\d{1,6}"
_VARIANT = r"\.([A-Za-z0-9_-]{1,32}?)"
_CONVERT = (
    "pickles, which are not read: convert them to .safetensors (save_pretrained of a current diffusers writes it)"
)


def missing_weights(place: str, stem: str, names: Collection[str]) -> str:
    """The message for a component whose file STEM.safetensors is missing. `names`: all files in its folder `place`."""
    missing = f"its file {shorten(place + stem + _SAFETENSORS, 100)} is missing"
    if variants := _variants(stem, names):
        return f"{missing}: set variant to {' or '.join(map(repr, variants[:4]))}, which the folder has"
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        return f"{missing}: the folder has {listed(pickles, 2)}, {_CONVERT}"
    if others := sorted(name for name in names if name.endswith(_SAFETENSORS)):
        return f"{missing}: the folder has {listed(others, 2)}; expected this file, or shards and their index"
    return f"{missing}: expected it, or a variant that the field variant names"


def missing_components(names: Collection[str]) -> str:
    """The message for a checkpoint without the folder `unet`. `names`: all files at the top of its folder."""
    missing = "its file unet/config.json is missing"
    if files := sorted(name for name in names if name.endswith(_SAFETENSORS)):
        return f"{missing}: a checkpoint in one file is named by its file, as {listed(files, 2)}"
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        return f"{missing}: the folder has {listed(pickles, 2)}, {_CONVERT}"
    return f"{missing}: expected a folder in the format of diffusers, or one .safetensors file"


def _variants(stem: str, names: Collection[str]) -> list[str]:
    weights = rf"{_VARIANT}(?:{_SHARD})?\.safetensors|{_SHARD}{_VARIANT}\.safetensors"
    pattern = re.compile(rf"{re.escape(stem)}(?:{weights}|\.safetensors\.index{_VARIANT}\.json)")
    found = (match for name in names if (match := pattern.fullmatch(name)))
    return sorted({next(group for group in match.groups() if group) for match in found})
